"""The commands of ``lcg`` that are not Lightning's: one function each, whose arguments are the options."""

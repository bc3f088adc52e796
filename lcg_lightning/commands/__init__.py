"""The commands of ``lcg`` that are not Lightning's: each is a function whose arguments are the options."""

"""Files that other people wrote, read without running them."""

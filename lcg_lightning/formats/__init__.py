"""Readers for third-party files that run none of the code in them."""

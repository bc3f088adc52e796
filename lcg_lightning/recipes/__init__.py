"""Recipes that train the networks of the zoo."""

"""Sweeps: searches over an evaluation's options, described in W&B's format and run by Optuna."""

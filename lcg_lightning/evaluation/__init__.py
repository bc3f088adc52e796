"""Evaluation: tasks, metrics, records and leaderboards."""

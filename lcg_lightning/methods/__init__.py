"""LCG and its baselines, behind one interface."""

"""LCG and its baselines, behind one interface."""

from typing import Any

DEFAULT_METHOD: dict[str, Any] = {"class_path": "lcg_lightning.methods.lcg.LatentClassifierGuidance"}
"""What commands use unless a method is named."""

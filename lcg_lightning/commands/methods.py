"""The methods that commands take by their bare names, and the one that they take by default."""

from typing import Any

from lcg_lightning.methods import arithmetic, lcg, real, retrieval, unguided  # noqa: F401 - known to the parser

DEFAULT_METHOD: dict[str, Any] = {"class_path": "lcg_lightning.methods.lcg.LatentClassifierGuidance"}

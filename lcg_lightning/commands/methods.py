"""The methods that commands accept by class name, and the default one."""

from typing import Any

from lcg_lightning.methods import arithmetic, lcg, real, retrieval, unguided  # noqa: F401 - known to the parser

DEFAULT_METHOD: dict[str, Any] = {"class_path": "lcg_lightning.methods.lcg.LatentClassifierGuidance"}

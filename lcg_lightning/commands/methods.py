"""The methods that commands accept by class name, and the default one."""

from typing import Any

from lcg_lightning.methods import (  # noqa: F401 - the parser's
    arithmetic,
    cfg,
    lace,
    lcg,
    oracle,
    real,
    regression,
    rejection,
    retrieval,
    styleflow,
    unguided,
)

DEFAULT_METHOD: dict[str, Any] = {"class_path": "lcg_lightning.methods.lcg.LatentClassifierGuidance"}

"""The methods that commands accept by class name."""

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

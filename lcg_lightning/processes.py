"""Processes that run one command together, as Lightning, torchrun or SLURM has started them."""

import os


def is_first() -> bool:
    """Whether this is the first of them; known before any library is loaded."""
    if "RANK" in os.environ:  # torchrun's
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))

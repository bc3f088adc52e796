"""The networks that ship with the package: a generator of SynthFaces with its encoder, and two judges.

Weights are in ``zoo/weights``, one safetensors file and one card each; ``make zoo`` trains them again.
"""

from os.path import isfile
from pathlib import Path
from typing import Any

from torch import Tensor

from lcg_lightning.errors import UserError
from lcg_lightning.formats import tensors

WEIGHTS = Path(__file__).parent / "weights"


def read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict, in single precision, and configuration of a network of the zoo.

    Raises:
        UserError: the zoo has no network of that name.
    """
    path = WEIGHTS / f"{name}.safetensors"
    if not isfile(path):
        known = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors")))
        raise UserError(f"the zoo has no network {name!r} (it has: {known})")
    return tensors.read(path)

"""What a method is: the one interface through which LCG and every baseline are judged."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from lcg_lightning.conditions import Condition
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.files import plain

Noise = Callable[[int], Tensor]
"""Draw number -> standard normal noise (B, D) of the samples of a batch; draw 0 is the start of sampling."""


class Method(nn.Module):
    """Turns conditions into whitened latents (B, D).

    Subclasses keep their plain constructor arguments in ``config``, which goes into the record, and load what they
    need in :meth:`prepare`, which is called once, with the store, before anything else.
    """

    name: str
    sampler: str = "none"
    nfe: float = 0.0
    """Function evaluations of the prior for one generated sample."""
    edit_sampler: str = "none"
    edit_nfe: float = 0.0
    """Function evaluations of the prior for one step of an edit."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = plain(config)

    def prepare(self, store: LatentStore) -> None:
        """Loads or fits what the method needs and checks it against the store."""
        raise NotImplementedError

    def generate(self, condition: Condition, noise: Noise) -> Tensor:
        """Latents (B, D) that satisfy a condition, one for each row of noise."""
        raise UserError(f"method {self.name} cannot generate; use it on an editing task")

    def edit(self, source: Tensor, conditions: Sequence[Condition]) -> list[Tensor]:
        """Edits latents (B, D) by one condition after another; the latents (B, D) after each of them."""
        raise UserError(f"method {self.name} cannot edit; use it on a generation task")

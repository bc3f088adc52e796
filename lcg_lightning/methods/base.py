"""The interface through which LCG and every baseline are evaluated."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from lcg_lightning.conditions import Condition
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import Diverged, UserError
from lcg_lightning.files import plain
from lcg_lightning.formats.fingerprint import combine, digest, fingerprint


class Edit(NamedTuple):
    """One step of a sequential edit."""

    asked: Condition
    """The condition of this step."""
    merged: Condition
    """The combined condition of all steps up to this one; see :func:`lcg_lightning.conditions.merge`."""


class Method(nn.Module):
    """Turns conditions into standardized latents (B, D).

    Subclasses pass their plain constructor arguments to ``config``, which goes into the record. They load networks in
    :meth:`prepare`, which is called once, before any other method.
    """

    name: str
    split: str = "test"
    """Split of the store whose rows the evaluation asks about; it is set before :meth:`prepare`."""
    sampler: str = "none"
    nfe: float = 0.0
    """Evaluations of the network that the method integrates, such as the prior, for one generated sample."""
    edit_sampler: str = "none"
    edit_nfe: float = 0.0
    """The same for one step of an edit."""
    ranked: bool = True
    """Whether the method competes on leaderboards; one that knows the truth does not."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = plain(config)
        self._used = {"nfe": (0.0, 0), "edit_nfe": (0.0, 0)}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints for the record, after :meth:`prepare`: networks by name, own tensors as ``method``.

        With each trained network goes one of its arguments without the seed, such as ``prior_arguments``.
        """
        own = dict(self.named_buffers(recurse=False)) | dict(self.named_parameters(recurse=False))
        found = {"method": digest(own)} if own else {}
        for name, child in self.named_children():
            found |= child.fingerprints if isinstance(child, Method) else {name: fingerprint(child)}
            if arguments := getattr(child, "hparams", None):  # a LightningModule's
                found[f"{name}_arguments"] = combine(sorted((k, v) for k, v in arguments.items() if k != "seed"))
        return found

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Loads or fits the method's networks and checks them against the store.

        Args:
            store: latents and labels; a method may learn only from the train split.
            space: the space of these latents, with the generator that decodes them.
        """
        raise NotImplementedError

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Latents (B, D) that satisfy a condition, one for each sample of the noise."""
        raise UserError(f"method {self.name} cannot generate; use it on an editing task")

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """Edits source latents (B, D) step by step; returns the latents (B, D) after each step."""
        raise UserError(f"method {self.name} cannot edit; use it on a generation task")

    def _count(self, name: Literal["nfe", "edit_nfe"], used: Tensor) -> None:
        """Makes ``nfe`` or ``edit_nfe`` the mean of evaluations (B,) over all samples so far."""
        total, samples = self._used[name]
        self._used[name] = total, samples = total + float(used.sum()), samples + len(used)
        setattr(self, name, total / max(1, samples))


def strength(method: Method, edits: bool) -> float | None:
    """The guidance scale or step length that a method takes, for edits or generation; None if it takes none."""
    own = getattr(method, "edit_scale", None) if edits else None
    found = getattr(method, "scale", None) if own is None else own
    return found if "scale" in method.config and isinstance(found, int | float) else None


def refuse_broken(latents: Sequence[Tensor], index: Tensor, name: str) -> None:
    """Raises :class:`Diverged` if a method's latents (B, D) of samples ``index`` (B,) are not finite after any step."""
    for k, z in enumerate(latents):
        if bad := index[~z.isfinite().all(1).to(index.device)].tolist():
            raise Diverged(
                f"method {name}: the latent of sample {bad[0]} is not finite after step {k + 1} "
                f"({len(bad)} of {len(z)} in a batch); lower the scale, or check prior and classifier"
            )

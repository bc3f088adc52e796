"""What a method is: the one interface through which LCG and every baseline are judged."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcg_lightning.classifier import LatentClassifier
from lcg_lightning.conditions import Condition
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.generators.checkpoints import peek, read_checkpoint
from lcg_lightning.generators.diffae_checkpoint import is_diffae, load_latent_net
from lcg_lightning.prior import LatentPrior, prior_of_diffae
from lcg_lightning.records import plain
from lcg_lightning.training import NoisedLatentModule

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


def load_prior(path: Path, store: LatentStore) -> LatentPrior:
    """A trained prior, ours or that of a DiffAE latent checkpoint, checked against the store it is to work on.

    Raises:
        UserError: the file is no prior checkpoint, one for latents of another size, or whitened
            otherwise than the store's.
    """
    if is_diffae(peek(path)):
        prior = prior_of_diffae(load_latent_net(path), path).eval().requires_grad_(False)
    else:
        prior = _load(LatentPrior, path)
    _check_latents(path, prior, store)
    return prior


def load_classifier(path: Path, store: LatentStore) -> LatentClassifier:
    """A trained classifier, checked against the store it is to work on.

    Raises:
        UserError: the file is no classifier checkpoint, or one of another schema or latent size.
    """
    classifier: LatentClassifier = _load(LatentClassifier, path)
    _check_latents(path, classifier, store)
    if classifier.schema != store.schema:
        raise UserError(
            f"{path}: trained on attributes {', '.join(classifier.schema.names)}, but the store {store.path} has "
            f"{', '.join(store.schema.names)} (or other ranges); train the classifier on this store"
        )
    return classifier


def _load(kind: Any, path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give the file that `lcg fit` wrote")
    read_checkpoint(path)
    try:
        module = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except Exception as error:  # another module's checkpoint can fail in any way
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a {kind.__name__} checkpoint ({line}); give the one `lcg fit` wrote") from error
    return module.eval().requires_grad_(False)


def _check_latents(path: Path, network: NoisedLatentModule, store: LatentStore) -> None:
    width, wanted = int(network.hparams["latent_dim"]), torch.Size(store.latent_shape).numel()
    if width != wanted:
        raise UserError(f"{path}: made for latents of {width} numbers, but the store {store.path} has {wanted}")
    own = (store.mean, store.std)
    if network.whitening is not None and not all(map(_same, network.whitening, own)):
        raise UserError(
            f"{path}: made for latents that are whitened by other statistics than those of {store.path}; train it on "
            "this store (for the prior of a DiffAE checkpoint, encode the store with that checkpoint as generator)"
        )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a.flatten(), b.flatten(), rtol=1e-4, atol=1e-6)

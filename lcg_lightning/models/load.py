"""Loads trained networks on latents from checkpoints."""

import inspect
from pathlib import Path
from typing import TypeVar

import torch

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.formats.checkpoints import load_weights, peek, read_checkpoint
from lcg_lightning.formats.diffae_checkpoint import is_diffae, load_latent_net
from lcg_lightning.kept import keeps
from lcg_lightning.models.base import LatentModule, same_statistics
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.clean import CleanClassifier
from lcg_lightning.models.conditional import ConditionalPrior
from lcg_lightning.models.flow import ConditionalFlow
from lcg_lightning.models.prior import LatentPrior

Module = TypeVar("Module", bound=LatentModule)


def load_prior(path: Path, store: LatentStore) -> LatentPrior:
    """A trained prior, ours or from a DiffAE latent checkpoint, checked against the store that it will be used with.

    Raises:
        UserError: the file is not a prior checkpoint, its weights are not finite, or its latents differ from the
            store's in size or in the statistics that standardize them.
    """
    prior = prior_of_diffae(path) if is_diffae(peek(path)) else _load(LatentPrior, path)
    _check_latents(path, prior, store)
    return prior


def load_classifier(path: Path, store: LatentStore) -> LatentClassifier:
    """A trained classifier, checked against the store that it will be used with.

    Raises:
        UserError: the file is not a classifier checkpoint, its weights are not finite, its schema differs from the
            store's, or its latents differ in size or in the statistics that standardize them.
    """
    classifier = _load(LatentClassifier, path)
    _check_latents(path, classifier, store)
    _check_schema(path, classifier.schema, store)
    return classifier


def load_clean_classifier(path: Path, store: LatentStore) -> CleanClassifier:
    """A trained classifier of clean latents, checked as in :func:`load_classifier`.

    Raises:
        UserError: as there.
    """
    classifier = _load(CleanClassifier, path)
    _check_latents(path, classifier, store)
    _check_schema(path, classifier.schema, store)
    return classifier


def load_flow(path: Path, store: LatentStore) -> ConditionalFlow:
    """A trained flow, checked as in :func:`load_classifier`.

    Raises:
        UserError: as there.
    """
    flow = _load(ConditionalFlow, path)
    _check_latents(path, flow, store)
    _check_schema(path, flow.schema, store)
    return flow


def load_conditional_prior(path: Path, store: LatentStore) -> ConditionalPrior:
    """A trained conditional prior, checked against the store that it will be used with.

    Raises:
        UserError: the file is not such a checkpoint, or does not match the store; see :func:`load_classifier`.
    """
    prior = _load(ConditionalPrior, path)
    _check_latents(path, prior, store)
    _check_schema(path, prior.schema, store)
    return prior


@keeps
def _load(kind: type[Module], path: Path) -> Module:
    checkpoint = read_checkpoint(path)
    own = inspect.signature(kind).parameters
    try:
        module = kind(**{name: value for name, value in checkpoint["hyper_parameters"].items() if name in own})
        module.on_load_checkpoint(checkpoint)
        state = dict(checkpoint["state_dict"])
    except Exception as error:  # another program's checkpoint can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise UserError(f"{path}: not a {kind.__name__} checkpoint ({reason}); give the one `lcg fit` wrote") from error
    load_weights(module, state, path)
    return module.eval().requires_grad_(False)


def _check_schema(path: Path, schema: AttributeSchema, store: LatentStore) -> None:
    if schema != store.schema:
        raise UserError(
            f"{path}: trained on attributes {', '.join(schema.names)}, but the store {store.path} has "
            f"{', '.join(store.schema.names)} (or other ranges); train it on this store"
        )


def _check_latents(path: Path, network: LatentModule, store: LatentStore) -> None:
    width, wanted = int(network.hparams["latent_dim"]), torch.Size(store.latent_shape).numel()
    if width != wanted:
        raise UserError(f"{path}: made for latents of {width} numbers, but the store {store.path} has {wanted}")
    own = (store.mean, store.std)
    if network.statistics is not None and not same_statistics(network.statistics, own):
        raise UserError(
            f"{path}: made for latents that are standardized by other statistics than those of {store.path}; train it "
            "on this store (for the prior of a DiffAE checkpoint, encode the store with that checkpoint as generator)"
        )


@keeps
def prior_of_diffae(path: Path) -> LatentPrior:
    """The latent prior of a DiffAE checkpoint as a frozen :class:`LatentPrior`.

    Raises:
        UserError: see :func:`lcg_lightning.formats.diffae_checkpoint.load_latent_net`.
    """
    found = load_latent_net(path)
    prior = LatentPrior(**found.arguments, output="eps", schedule=found.schedule, num_steps=found.num_steps)  # type: ignore[arg-type]
    for network in (prior.net, prior.ema):
        load_weights(network, {key: value.clone() for key, value in found.state.items()}, path)
    prior.statistics = found.mean, found.std
    return prior.eval().requires_grad_(False)

"""What all visitors of the studio share and none changes: store, generator, methods, and their worker thread."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore, Split
from lcg_lightning.errors import UserError
from lcg_lightning.formats.descriptions import Spec
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.load import in_zoo, load_generator
from lcg_lightning.judges.identity import IdentityNetwork
from lcg_lightning.judges.load import load_identity_network
from lcg_lightning.kept import load_once
from lcg_lightning.methods.base import Method
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.clean import CleanClassifier, clean_outputs
from lcg_lightning.studio.methods import others, title

P = ParamSpec("P")
T = TypeVar("T")

SPLIT = "test"
"""Split of the store whose faces visitors edit."""


class Worker:
    """One thread on which all heavy work is done in turn, so that several visitors' work does not pile up.

    What is loaded and fitted there is kept (:mod:`lcg_lightning.kept`).
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "studio", initializer=load_once)

    def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``work`` gives, computed without gradients; waits for it, and raises what it raises."""
        return self._thread.submit(torch.inference_mode()(work), *args, **kwargs).result()


@dataclass(frozen=True, eq=False)
class Resources:
    """What a page needs to answer any visitor."""

    store: LatentStore
    space: LatentSpace
    methods: Mapping[str, Method]
    """Prepared methods by title; the first is the command line's."""
    classifier: LatentClassifier | CleanClassifier
    """The main method's, of the store's attributes."""
    identity: IdentityNetwork | None
    """What compares who is shown; None unless the generator is the zoo's."""
    generator_spec: Spec
    """The generator as the command line names it."""
    device: str
    records: Path | None
    """Folder with the records of the Compare page."""
    worker: Worker

    @property
    def main(self) -> Method:
        """The command line's method."""
        return next(iter(self.methods.values()))

    @property
    def schema(self) -> AttributeSchema:
        """The attributes that can be asked for."""
        return self.store.schema

    @property
    def generator(self) -> Generator:
        """What decodes."""
        return self.space.generator

    @property
    def faces(self) -> Split:
        """The rows that visitors edit."""
        return self.store.split(SPLIT)

    def read(self, z: Tensor) -> Tensor:
        """The classifier's outputs (B, K) for standardized latents (B, D)."""
        return clean_outputs(self.classifier, z)

    def prepared(self, method: Method) -> Method:
        """A method ready to edit; networks and fits that an earlier one needed are not loaded again."""
        if method not in self.methods.values():
            with torch.inference_mode(False):
                method.prepare(self.store, self.space)
            method.to(self.device).eval()
        return method


def load_resources(
    store: Path,
    method: Method,
    generator: Spec = "synthfaces",
    device: str = "cpu",
    records: Path | None = None,
    tell: Callable[[str], Any] = lambda text: None,
) -> Resources:
    """Loads everything and prepares every method.

    Args:
        store: latent store that the method was trained on.
        method: the main one, which must have a classifier.
        generator: as the command line names it.
        device: where to compute.
        records: folder with records.
        tell: is told what is being done, and which method is left out for which reason.

    Raises:
        UserError: parts that do not fit each other, or a method without a classifier.
    """
    no_classifier = f"lcg studio: method {method.name} has no classifier to read attributes with; name one"
    if not method.config.get("classifier"):
        raise UserError(no_classifier)
    worker = Worker()

    def load() -> Resources:
        tell("Loading the generator")
        decoder = load_generator(generator).to(device)
        tell("Reading the store")
        opened = LatentStore.open(store, decoder)
        if not opened.sizes.get(SPLIT):
            raise UserError(f"lcg studio: {store} has no {SPLIT} split, whose faces visitors edit; make one that has")
        space = opened.space(decoder)

        def prepare(name: str, each: Method) -> None:
            tell(f"Preparing {name}")
            with torch.inference_mode(False):
                each.prepare(opened, space)
            ready[name] = each.to(device).eval()

        ready: dict[str, Method] = {}
        prepare(title(method), method)
        classifier = getattr(method, "classifier", None)
        if not isinstance(classifier, LatentClassifier | CleanClassifier):
            raise UserError(no_classifier)
        for name, each in others(method).items():
            try:
                prepare(name, each)
            except UserError as error:
                tell(f"{name} is left out: {error}")
        identity = identity_network(generator, device)
        return Resources(opened, space, ready, classifier, identity, generator, device, records, worker)

    return worker.do(load)


def identity_network(generator: Spec, device: str) -> IdentityNetwork | None:
    """The identity network of a zoo generator; None for any other, whose images the zoo's network does not know."""
    return load_identity_network(generator).to(device) if in_zoo(generator) else None

"""One visitor's work on the Edit page: the source, the edits so far, their results. It knows nothing of browsers."""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lcg_lightning.conditions import merge, to_text
from lcg_lightning.data.images import in_range
from lcg_lightning.errors import UserError
from lcg_lightning.files import plain
from lcg_lightning.methods.base import Edit, Method, refuse_broken
from lcg_lightning.studio.controls import Change, Value, condition, standing, taken
from lcg_lightning.studio.methods import remade
from lcg_lightning.studio.pictures import Pixels, pixels
from lcg_lightning.studio.resources import Resources
from lcg_lightning.studio.sources import Row, Source

MOST_EDITS = 30
KEPT_STATES = 64
"""States of edits that a visitor's session keeps, the latest ones."""


@dataclass(frozen=True, eq=False)
class State:
    """A face after some edits."""

    latents: Tensor
    """(1, *latent_shape)."""
    picture: Pixels
    outputs: Tensor
    """(1, K), the classifier's."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a method made of the edits so far."""

    source: Source
    changes: tuple[Change, ...]
    edits: tuple[str, ...]
    """The changes as conditions, in order."""
    method: Method
    states: tuple[State, ...]
    """The face after each edit, at least one."""
    identity: float | None
    """Cosine of the identity embeddings of source and last state; None without an identity network."""
    seconds: float

    @property
    def last(self) -> State:
        """The face after all edits."""
        return self.states[-1]


class Session:
    """A visitor's source and edits.

    A control that is moved is one edit; moved again at once, it changes that edit, and put back where the source
    stands, it asks for nothing any more.

    Args:
        resources: what all visitors share.
        source: the face to edit.
    """

    def __init__(self, resources: Resources, source: Source) -> None:
        self.resources = resources
        self._turns = self._row = 0
        self.start(source)

    def start(self, source: Source) -> None:
        """Begins anew with a face."""
        self.source = source
        if isinstance(source.origin, Row):
            self._row = source.origin.number
        self._past: list[tuple[Change, ...]] = [()]
        self._states: OrderedDict[Any, tuple[State, ...]] = OrderedDict()
        self._turns += 1

    def next_row(self) -> int:
        """The row after the one last seen."""
        return (self._row + 1) % len(self.resources.faces.latents)

    def previous_row(self) -> int:
        """The row before the one last seen; from a drawn or uploaded face, that row itself."""
        if not isinstance(self.source.origin, Row):
            return self._row
        return (self._row - 1) % len(self.resources.faces.latents)

    @property
    def turn(self) -> int:
        """Changes whenever the controls are set to other values than the visitor's own."""
        return self._turns

    @property
    def edits(self) -> tuple[Change, ...]:
        """The edits so far."""
        return self._past[-1]

    @property
    def texts(self) -> tuple[str, ...]:
        """The edits so far, in the language of conditions."""
        schema = self.resources.schema
        return tuple(to_text(condition(edit, schema), schema) for edit in self.edits)

    def values(self) -> tuple[Value, ...]:
        """Where the controls stand."""
        changed = {edit.name: edit.value for edit in self.edits}
        before = standing(self.source.outputs, self.resources.schema)
        return tuple(changed.get(n, v) for n, v in zip(self.resources.schema.names, before, strict=True))

    def set(self, values: Sequence[Value | None]) -> None:
        """Takes over where a visitor has put the controls, in the schema's order; None asks for nothing new.

        Raises:
            UserError: more edits than a session keeps.
        """
        schema = self.resources.schema
        before, now = standing(self.source.outputs, schema), self.values()
        asked = map(taken, values, now, schema)
        moved = [
            (Change(name, value), value == own)
            for name, value, old, own in zip(schema.names, asked, now, before, strict=True)
            if value != old
        ]
        for change, back in moved:
            self._change(change, back)

    def _change(self, change: Change, back: bool) -> None:
        edits = self.edits
        again = bool(edits) and edits[-1].name == change.name
        if back:
            kept = tuple(edit for edit in edits if edit.name != change.name)
        else:
            kept = (*(edits[:-1] if again else edits), change)
        if len(kept) > MOST_EDITS:
            raise UserError(f"These are {MOST_EDITS} edits already; undo some, or start over.")
        if again:
            self._past.pop()
        if not self._past or self._past[-1] != kept:
            self._past.append(kept)
        del self._past[1 : -2 * MOST_EDITS]

    def undo(self) -> None:
        """Takes the last change of the edits back."""
        if len(self._past) > 1:
            self._past.pop()
        self._turns += 1

    def reset(self) -> None:
        """Takes all edits back; undo brings them again."""
        if self.edits:
            self._past.append(())
        self._turns += 1

    def result(self, method: Method, options: Mapping[str, Any] | None = None) -> Result | None:
        """The source after the edits so far; None if there are none.

        Args:
            method: one of the resources' methods.
            options: arguments that the visitor has given other values.

        Raises:
            UserError: the method refuses an option or cannot answer the edits, or its result is not finite.
        """
        if not self.edits:
            return None
        begin = time.perf_counter()
        method = remade(method, **options or {})
        states = self._after(method)
        identity, seconds = self._identity(states[-1]), time.perf_counter() - begin
        return Result(self.source, self.edits, self.texts, method, states, identity, seconds)

    def _after(self, method: Method) -> tuple[State, ...]:
        """The states after each edit; those that were made before are not made again."""
        schema = self.resources.schema
        trees = [condition(edit, schema) for edit in self.edits]
        steps = [Edit(tree, merge(trees[: k + 1])) for k, tree in enumerate(trees)]
        if getattr(method, "anchor", "") != "original":
            return self._kept(method, len(steps), steps)
        each = [self._kept(method, k + 1, steps[k : k + 1]) for k in range(len(steps))]  # the others do not matter
        return tuple(states[-1] for states in each)

    def _kept(self, method: Method, count: int, steps: Sequence[Edit]) -> tuple[State, ...]:
        """The states after some steps, which are the last of the first ``count`` edits."""
        key = (method.name, repr(plain(method.config)), self.edits[:count])
        if key not in self._states:
            ready = self.resources.prepared(method)
            edited = ready.edit(self.resources.space.standardize(self.source.latents), steps)
            refuse_broken(edited, torch.tensor([0]), method.name)
            self._states[key] = tuple(map(self._state, edited))
            while sum(map(len, self._states.values())) > max(KEPT_STATES, len(edited)):
                self._states.popitem(last=False)
        self._states.move_to_end(key)
        return self._states[key]

    def _state(self, z: Tensor) -> State:
        latents = self.resources.space.unstandardize(z)
        picture = pixels(self.resources.generator.decode(latents, self.source.noise))
        return State(latents, picture, self.resources.read(z))

    def _identity(self, state: State) -> float | None:
        network = self.resources.identity
        if network is None:
            return None
        both = [torch.from_numpy(p).permute(2, 0, 1) for p in (self.source.picture, state.picture)]
        first, second = network.embed(in_range(torch.stack(both)).to(self.resources.device))
        return float(cosine_similarity(first, second, dim=0))

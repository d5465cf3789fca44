"""Match optimizer state in a file with variables that have changed.

A file numbers the state of an optimizer in the order of its variables. If a class has more, fewer
or other weights than at the save, all following numbers change. So each number of the file is found
again through its variable:

* A tensor that `migrate_weights` returns unchanged, under any name, keeps its state. So does every
  variable that was not migrated.
* A tensor that was made, changed, joined or split starts without state, as a new variable does.

Files of this package contain the variables of the optimizer. For third-party files, only those
before the first migrated object and after the last one are known; the state between is
reinitialized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_ckpt_tools.formats.tensor_source import TensorSource, optimizers_of
from keras_ckpt_tools.live import state
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP
from keras_ckpt_tools.metadata import OptimizerState

if TYPE_CHECKING:
    from keras_ckpt_tools.live.migration import Held

# One segment of an optimizer's variables: the names of the slots that each trained variable has in
# it, or how many variables there are that belong to no other.
_Segment = tuple[str, ...] | int


@dataclass
class Slots:
    """The state of optimizers after a migration.

    Attributes:
        begun_anew: The paths of reinitialized state.
        built_on: By the group of an optimizer that was renumbered, the variables that its state
            belongs to now, in order.
    """

    begun_anew: list[str] = field(default_factory=list)
    built_on: dict[str, tuple[str, ...]] = field(default_factory=dict)


def carried_over(
    source: TensorSource,
    held: dict[str, Held],
    saveables: Mapping[str, Any],
    live: Mapping[int, str],
    touched: frozenset[str],
) -> Slots:
    """Put the state of optimizers under the numbers that it has now.

    Args:
        source: The file.
        held: Its tensors after migration; changed here.
        saveables: Live objects by group, optimizers among them.
        live: The path of each live variable, by its `id`.
        touched: Paths of what was migrated.
    """
    done = Slots()
    known = optimizers_of(source)
    for group, saveable in saveables.items():
        prefix = f"{group}/" if group else ""
        own = isinstance(saveable, keras.optimizers.Optimizer)
        top = prefix if own else prefix + OPTIMIZER_GROUP
        optimizer = saveable if own else getattr(saveable, "optimizer", None)
        if optimizer is None or not optimizer.built:
            continue
        said = known.get(top.rstrip("/"), OptimizerState())
        if said.class_name not in ("", type(optimizer).__name__):
            continue  # It belongs to another optimizer; the comparison reports it.
        numbers = _Numbers(source, held, top, optimizer, live, touched)
        anew = numbers.renumber(said.built_on or None)
        if anew is not None:
            done.begun_anew += anew
            done.built_on[top.rstrip("/")] = numbers.paths
    return done


class _Numbers:
    """One optimizer, and those inside it."""

    def __init__(
        self,
        source: TensorSource,
        held: dict[str, Held],
        top: str,
        optimizer: Any,
        live: Mapping[int, str],
        touched: frozenset[str],
    ):
        self._source, self._held, self._top = source, held, top
        self._optimizer, self._live, self._touched = optimizer, live, touched
        inner = optimizer
        while hasattr(inner, "inner_optimizer"):
            inner = inner.inner_optimizer
        self._trained = list(getattr(inner, "_trainable_variables", ()))
        self.paths = tuple(live.get(id(v), "") for v in self._trained)

    def renumber(self, built_on: Sequence[str] | None) -> list[str] | None:
        """Return the reinitialized state; `None` if all numbers are unchanged."""
        if not any(path in self._touched for path in self.paths):
            return None
        saved = [path for path in self._held if path.startswith(self._top)]
        if not saved:
            return None
        fresh = self._fresh()
        moved: dict[str, Any] = {}
        for group, level in self._levels():
            segments = _segments(level, self._trained)
            here = [p for p in saved if p.rpartition("/")[0] == f"{group}vars"]
            moved |= self._numbered(group, segments, len(here), built_on)
        taken = {path: self._held.pop(path) for path in saved}
        for path in fresh:
            if (place := moved.get(path)) in taken:
                self._held[path] = taken[place]
        anew = [path for path in fresh if path not in self._held]
        self._begin(fresh, anew)
        return anew

    def _levels(self) -> list[tuple[str, Any]]:
        levels, group, level = [], self._top, self._optimizer
        while level is not None:
            levels.append((group, level))
            group, level = f"{group}inner_optimizer/", getattr(level, "inner_optimizer", None)
        return levels

    def _numbered(
        self,
        group: str,
        segments: list[_Segment],
        count: int,
        built_on: Sequence[str] | None,
    ) -> dict[str, str]:
        """Return where each of the optimizer's variables stands in the file, as far as known."""
        alone = sum(s for s in segments if isinstance(s, int))
        each = sum(len(s) for s in segments if not isinstance(s, int))
        then, odd = divmod(count - alone, each) if each else (0, 1)
        if odd or then < 0 or (built_on is not None and len(built_on) != then):
            return {}
        old = self._old_numbers(then, built_on)
        found: dict[str, str] = {}
        now_at = then_at = 0
        for segment in segments:
            if isinstance(segment, int):
                for i in range(segment):
                    found[f"{group}vars/{now_at + i}"] = f"{group}vars/{then_at + i}"
                now_at, then_at = now_at + segment, then_at + segment
                continue
            size = len(segment)
            for i, place in enumerate(old):
                if place is not None:
                    for slot in range(size):
                        there = f"{group}vars/{then_at + place * size + slot}"
                        found[f"{group}vars/{now_at + i * size + slot}"] = there
            now_at, then_at = now_at + len(old) * size, then_at + then * size
        return found

    def _old_numbers(self, then: int, built_on: Sequence[str] | None) -> list[int | None]:
        """Return the number that each trained variable had among those of the file."""
        if built_on is not None:
            numbers = {path: number for number, path in enumerate(built_on)}
            origins = [self._held[p].origin if p in self._held else None for p in self.paths]
            return [None if origin is None else numbers.get(origin) for origin in origins]
        now = len(self.paths)
        changed = [i for i, path in enumerate(self.paths) if path in self._touched]
        old: list[int | None] = [None] * now
        for i in range(min(changed[0], then)):
            old[i] = i
        for i in range(changed[-1] + 1, now):
            old[i] = then - (now - i) if then >= now - i else None
        return old

    def _fresh(self) -> dict[str, Any]:
        """Return the state that the optimizer has before it is used, by path."""
        new = type(self._optimizer).from_config(self._optimizer.get_config())
        new.build(self._trained)
        return {f"{self._top}{path}": v for path, v in state.capture(new).values.items()}

    def _begin(self, fresh: Mapping[str, Any], anew: Sequence[str]) -> None:
        """Reinitialize state. An average of weights starts with the weights, not with zeros."""
        from keras_ckpt_tools.live.migration import Held

        averaged = self._averaged()
        for path in anew:
            weight = self._held.get(averaged.get(path, ""))
            if weight is None:
                array = state.to_numpy(fresh[path])
            elif weight.array is not None:
                array = weight.array
            else:
                assert weight.origin is not None  # Whatever was made is in memory.
                array = self._source.read_all([weight.origin])[weight.origin]
            self._held[path] = Held(None, np.asarray(array))

    def _averaged(self) -> dict[str, str]:
        """Return the path of the weight of which each moving average is one."""
        found: dict[str, str] = {}
        for group, level in self._levels():
            places = {id(v): f"{group}vars/{i}" for i, v in enumerate(level.variables)}
            averages = getattr(level, "_model_variables_moving_average", None) or ()
            for average, path in zip(averages, self.paths, strict=False):
                if average is not None and id(average) in places:
                    found[places[id(average)]] = path
        return found


def _segments(optimizer: Any, trained: Sequence[Any]) -> list[_Segment]:
    """Return how the variables of an optimizer follow each other; nothing where irregularly."""
    owners = _owners(optimizer, trained)
    segments: list[_Segment] = []
    at = 0
    while at < len(owners):
        start = at
        while at < len(owners) and owners[at] is None:
            at += 1
        if at > start:
            segments.append(at - start)
            continue
        slots = _slots_at(owners, at)
        expected = [(i, slot) for i in range(len(trained)) for slot in slots]
        if owners[at : at + len(expected)] != expected:
            return []
        segments.append(slots)
        at += len(expected)
    return segments


def _slots_at(owners: Sequence[tuple[int, str] | None], at: int) -> tuple[str, ...]:
    slots: list[str] = []
    for owner in owners[at:]:
        if owner is None or owner[0] != 0 or owner[1] in slots:
            break
        slots.append(owner[1])
    return tuple(slots) or ("",)


def _owners(optimizer: Any, trained: Sequence[Any]) -> list[tuple[int, str] | None]:
    """Return, for each variable of an optimizer, whose state it is, and which one of it."""
    flat = {str(v.path).replace("/", "_"): i for i, v in enumerate(trained)}
    found: list[tuple[int, str] | None] = []
    for variable in optimizer.variables:
        name = str(variable.name)
        owner = max((f for f in flat if name.startswith(f"{f}_")), key=len, default=None)
        found.append(None if owner is None else (flat[owner], name[len(owner) + 1 :]))
    return found

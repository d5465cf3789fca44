"""Take a snapshot of all variables without copying them.

TensorFlow writes the next value of a variable into a new buffer while the old one is still in use.
So holding what was read is a snapshot: training resumes at once, and only values that training
changes take memory twice. Values on a GPU, and those of other backends, are copied to the host.

A walk through all attributes of all layers finds the tensors of a model. It depends on the
structure only, so its result is reused while the structure is unchanged. State that a layer
computes in its own `save_own_variables` is collected each time. Repeated snapshots use `bulk_read`.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import (
    Callable,
    Collection,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.formats.common.contents import Snapshot
from keras_ckpt_tools.formats.layer_names import names_above
from keras_ckpt_tools.live.keras_walk import Structure
from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.live.stores import Captured, built_on
from keras_ckpt_tools.live.variables import as_array, handle_of, read
from keras_ckpt_tools.metadata import OptimizerState

if TYPE_CHECKING:
    from keras_ckpt_tools.live.bulk_read import BulkRead

__all__ = ["Part", "Snapshot", "Snapshots"]


@dataclass(frozen=True)
class Part:
    """One of the objects that a snapshot is taken of.

    Attributes:
        group: Where its tensors stand in the file, `""` for the root.
        capture: Walks it.
        structure: What the walk depends on. It is repeated when that is not what it was.
    """

    group: str
    capture: Callable[[], Captured]
    structure: Structure


class Snapshots:
    """Takes snapshots of the same objects repeatedly."""

    def __init__(self) -> None:
        self._walked: dict[str, _Walked] = {}
        self._told: tuple[Sequence[Captured], Mapping[str, str], Mapping[str, OptimizerState]] = (
            (),
            {},
            {},
        )

    def take(self, parts: Iterable[Part]) -> Snapshot:
        """Take a snapshot of all parts, now."""
        taken: list[_Taken] = []
        names: dict[str, str] = {}
        walked = []
        for part in parts:
            captured = self.walk(part)
            known = self._walked.get(part.group)
            taken.append(known.read() if known else _read_anew(captured.values))
            names |= captured.names
            walked.append(captured)
        called, optimizers = self._described(walked)
        return Snapshot(_Arrays(taken), names, (), called, optimizers)

    def _described(
        self, walked: Sequence[Captured]
    ) -> tuple[Mapping[str, str], Mapping[str, OptimizerState]]:
        """Return the names for the record; computed again only after a new walk."""
        telling = [captured for captured in walked if captured.names or captured.optimizers]
        if not _identical(self._told[0], telling):
            values: dict[str, Any] = {}
            names: dict[str, str] = {}
            optimizers: dict[str, tuple[str, list[Any]]] = {}
            for captured in walked:
                values |= captured.values
            for captured in telling:
                names |= captured.called()
                optimizers |= captured.optimizers
            told = names_above(names, values), built_on(optimizers, values)
            kept = {id(known.captured) for known in self._walked.values()}
            # The result of a repeated walk may hold arrays of the user.
            self._told = (telling if all(id(c) in kept for c in telling) else (), *told)
            return told
        return self._told[1:]

    def walk(self, part: Part) -> Captured:
        """Return the variables of a part, by full path; walked again only if it has changed."""
        known = self._walked.get(part.group)
        if known and _same(known.structure, part.structure):
            return known.captured
        captured = part.capture()
        if part.group:
            captured = captured.under(part.group)
        if part.structure.keeps and all(map(_is_variable, captured.values.values())):
            self._walked[part.group] = _Walked(part.structure, captured)
        else:
            self._walked.pop(part.group, None)
        return captured

    def __deepcopy__(self, memo: object) -> Snapshots:
        return Snapshots()  # Tuners copy callbacks; what was found out is found out again.

    def __reduce__(self) -> tuple[type[Snapshots], tuple[()]]:
        return Snapshots, ()


class _Taken(NamedTuple):
    """What was read of one part.

    Attributes:
        paths: Of what, in order.
        arrays: Returns the values as arrays; called by the writing thread, not the training one.
    """

    paths: Collection[str]
    arrays: Callable[[], Mapping[str, np.ndarray[Any, Any]]]


class _Walked:
    """The variables found by a walk; valid while the structure is unchanged."""

    def __init__(self, structure: Structure, captured: Captured):
        self.structure = structure
        self.captured = captured
        self._was_read = False
        self._bulk: BulkRead | None = None
        self._paths: list[str] = []
        self._copied: dict[str, Any] = {}

    def read(self) -> _Taken:
        """Read the present values."""
        if not self._was_read:
            # For a single save, they are read directly.
            self._was_read = True
            return _read_anew(self.captured.values)
        bulk = self._in_bulk()
        if bulk is None:
            return _read_anew(self.captured.values)
        give = bulk()
        copied = {path: to_numpy(value) for path, value in self._copied.items()}

        def arrays() -> dict[str, np.ndarray[Any, Any]]:
            taken = dict(zip(self._paths, give(), strict=True)) | copied
            return {path: taken[path] for path in self.captured.values} if copied else taken

        return _Taken(self.captured.values.keys(), arrays)

    def _in_bulk(self) -> BulkRead | None:
        """Return what reads the variables that have handles, which are those of TensorFlow."""
        if self._bulk is None:
            values = self.captured.values
            self._paths = [path for path, value in values.items() if handle_of(value) is not None]
            if not self._paths:
                return None
            self._copied = {p: v for p, v in values.items() if handle_of(v) is None}
            from keras_ckpt_tools.live.bulk_read import BulkRead

            self._bulk = BulkRead([values[path] for path in self._paths])
        return self._bulk


def _read_anew(values: Mapping[str, Any]) -> _Taken:
    """Read the present values of what was found just now."""
    taken = {}
    for path, value in values.items():
        handle = handle_of(value) if _is_variable(value) else None
        taken[path] = to_numpy(value) if handle is None else read(handle)
    return _Taken(taken.keys(), lambda: {path: _array(value) for path, value in taken.items()})


def _array(value: Any) -> np.ndarray[Any, Any]:
    return value if isinstance(value, np.ndarray) else as_array(value)


class _Arrays(Mapping[str, np.ndarray[Any, Any]]):
    """The values of all parts, converted to arrays when they are used."""

    def __init__(self, taken: Sequence[_Taken]):
        self._taken = taken

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        return {path: array for one in self._taken for path, array in one.arrays().items()}

    def __getitem__(self, path: str) -> np.ndarray[Any, Any]:
        return self._arrays[path]

    def items(self) -> ItemsView[str, np.ndarray[Any, Any]]:
        return self._arrays.items()

    def __contains__(self, path: object) -> bool:
        return any(path in one.paths for one in self._taken)

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(one.paths for one in self._taken)

    def __len__(self) -> int:
        return sum(len(one.paths) for one in self._taken)


def _same(one: Structure, other: Structure) -> bool:
    return one.marks == other.marks and _identical(one.variables, other.variables)


def _identical(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _is_variable(value: Any) -> bool:
    return isinstance(value, (keras.Variable, *tf_kinds("Variable")))

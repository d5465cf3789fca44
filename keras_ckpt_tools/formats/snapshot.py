"""The state of one moment, without copying it: policy -> *snapshot* -> write.

TensorFlow keeps a variable's value in a buffer that is shared by whoever read it, and writes the
next value into a new one while anybody still holds the old. So reading all variables and keeping
what was read is a snapshot: it takes as long as so many references, training goes on at once, and
only what training then changes takes memory twice. Values on a GPU, and those of other backends,
are copied to the host.

What a model's tensors are is found by a walk through all attributes of all layers. It depends on
the structure alone, so it is walked once and kept for as long as the variables are the same ones,
and layers have the same layers under the same names.
State that is no variable, because a layer makes it up in its own `save_own_variables`, is asked for
anew each time.

Variables are read one by one, and not by a `tf.function` that reads all of them: called, both take
the same time, but a function is traced first, and with 6,000 variables that took 14 seconds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_ckpt_tools.formats.contents import Snapshot
from keras_ckpt_tools.formats.naming import names_above
from keras_ckpt_tools.formats.sharing import Handle, as_array, handle_of, read
from keras_ckpt_tools.formats.state import to_numpy
from keras_ckpt_tools.formats.stores import Captured, built_on
from keras_ckpt_tools.formats.structure import Structure
from keras_ckpt_tools.metadata import OptimizerState

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
    """Takes snapshots of the same objects again and again."""

    def __init__(self) -> None:
        self._walked: dict[str, tuple[Structure, Captured]] = {}
        self._handles: dict[str, tuple[Any, Handle | None]] = {}
        self._told: tuple[Sequence[Captured], Mapping[str, str], Mapping[str, OptimizerState]] = (
            (),
            {},
            {},
        )

    def take(self, parts: Iterable[Part]) -> Snapshot:
        """Take a snapshot of all parts, now."""
        values: dict[str, Any] = {}
        names: dict[str, str] = {}
        walked = [self.walk(part) for part in parts]
        for captured in walked:
            values |= captured.values
            names |= captured.names
        called, optimizers = self._described(walked, values)
        return Snapshot(self._arrays(values), names, (), called, optimizers)

    def _described(
        self, walked: Sequence[Captured], values: Mapping[str, Any]
    ) -> tuple[Mapping[str, str], Mapping[str, OptimizerState]]:
        """Return what the record says of names; made anew only where something was walked anew."""
        telling = [captured for captured in walked if captured.names or captured.optimizers]
        if not _identical(self._told[0], telling):
            names: dict[str, str] = {}
            optimizers: dict[str, tuple[str, list[Any]]] = {}
            for captured in telling:
                names |= captured.called()
                optimizers |= captured.optimizers
            told = names_above(names, values), built_on(optimizers, values)
            kept = {id(captured) for _, captured in self._walked.values()}
            # What is walked anew each time may hold arrays of the user's.
            self._told = (telling if all(id(c) in kept for c in telling) else (), *told)
            return told
        return self._told[1:]

    def walk(self, part: Part) -> Captured:
        """Return what a part is made of, by full path; walked anew only where it has changed."""
        known = self._walked.get(part.group)
        if known and _same(known[0], part.structure):
            return known[1]
        captured = part.capture()
        if part.group:
            captured = captured.under(part.group)
        if part.structure.keeps and all(map(_is_variable, captured.values.values())):
            self._walked[part.group] = (part.structure, captured)
        else:
            self._walked.pop(part.group, None)
        return captured

    def _arrays(self, values: dict[str, Any]) -> Mapping[str, np.ndarray[Any, Any]]:
        known, self._handles = self._handles, {}
        taken = {}
        for path, value in values.items():
            if not _is_variable(value):
                taken[path] = to_numpy(value)  # Of the user's, and not held on to.
                continue
            variable, handle = known.get(path, (None, None))
            if variable is not value:
                handle = handle_of(value)
            self._handles[path] = value, handle
            taken[path] = to_numpy(value) if handle is None else read(handle)
        return _Arrays(taken)


class _Arrays(Mapping[str, np.ndarray[Any, Any]]):
    """What was read, as arrays: these are made when they are asked for, by whoever writes."""

    def __init__(self, taken: Mapping[str, Any]):
        self._taken = taken

    def __getitem__(self, path: str) -> np.ndarray[Any, Any]:
        value = self._taken[path]
        return value if isinstance(value, np.ndarray) else as_array(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._taken)

    def __len__(self) -> int:
        return len(self._taken)


def _same(one: Structure, other: Structure) -> bool:
    return one.marks == other.marks and _identical(one.variables, other.variables)


def _identical(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _is_variable(value: Any) -> bool:
    return isinstance(value, (keras.Variable, tf.Variable))

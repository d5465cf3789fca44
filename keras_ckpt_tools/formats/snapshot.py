"""The state of one moment, without copying it: policy -> *snapshot* -> write.

TensorFlow keeps a variable's value in a buffer that is shared by whoever read it, and writes the
next value into a new one while anybody still holds the old. So reading all variables and keeping
what was read is a snapshot: it takes as long as so many references, training goes on at once, and
only what training then changes takes memory twice. Values on a GPU, and those of other backends,
are copied to the host.

What a model's tensors are is found by a walk through all attributes of all layers. It depends on
the structure alone, so it is walked once and kept for as long as the variables are the same ones.
State that is no variable, because a layer makes it up in its own `save_own_variables`, is asked for
anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_ckpt_tools.formats.dtypes import dtype_name, numpy_dtype
from keras_ckpt_tools.formats.state import to_numpy
from keras_ckpt_tools.formats.stores import Captured

# Tracing a function that reads so many variables is worth it from about here, if it is used again.
_MANY_VARIABLES = 32


@dataclass(frozen=True)
class Snapshot:
    """The tensors of one moment, ready to be written.

    Attributes:
        arrays: Tensors by HDF5 path. They may share memory with the variables' old values.
        names: Names of objects by the path of their group (HDF5 attributes, as Keras sets them).
        links: Second paths of groups: `(path, target)`.
    """

    arrays: Mapping[str, np.ndarray[Any, Any]]
    names: Mapping[str, str] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Part:
    """One of the objects that a snapshot is taken of.

    Attributes:
        group: Where its tensors stand in the file, `""` for the root.
        capture: Walks it.
        variables: All its variables. The walk is repeated when they are others than before.
        keeps: Whether the walk is the same for as long as they are.
    """

    group: str
    capture: Callable[[], Captured]
    variables: Sequence[Any]
    keeps: bool = True


class Snapshots:
    """Takes snapshots of the same objects again and again."""

    def __init__(self) -> None:
        self._walked: dict[str, tuple[Sequence[Any], Captured]] = {}
        self._variables: list[Any] = []
        self._read: Callable[[], list[Any]] | None = None

    def take(self, parts: Iterable[Part]) -> Snapshot:
        """Take a snapshot of all parts, now."""
        values: dict[str, Any] = {}
        names: dict[str, str] = {}
        for part in parts:
            captured = self.walk(part)
            values |= captured.values
            names |= captured.names
        return Snapshot(self._arrays(values), names)

    def walk(self, part: Part) -> Captured:
        """Return what a part is made of, by full path; walked anew only where it has changed."""
        known = self._walked.get(part.group)
        if known is not None and _identical(known[0], part.variables):
            return known[1]
        captured = part.capture()
        if part.group:
            captured = captured.under(part.group)
        if part.keeps and all(map(_is_variable, captured.values.values())):
            self._walked[part.group] = (tuple(part.variables), captured)
        else:
            self._walked.pop(part.group, None)
        return captured

    def _arrays(self, values: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        found = {path: _tf_variable(value) for path, value in values.items()}
        variables = {path: v for path, v in found.items() if v is not None}
        tensors = self._read_all(list(variables.values()))
        arrays = {
            path: as_array(tensor, dtype_name(variable.dtype))
            for (path, variable), tensor in zip(variables.items(), tensors, strict=True)
        }
        return {path: arrays[path] if path in arrays else to_numpy(values[path]) for path in values}

    def _read_all(self, variables: list[Any]) -> list[Any]:
        if not _identical(self._variables, variables):
            self._variables, self._read = variables, None
        elif self._read is None and len(variables) >= _MANY_VARIABLES:
            # The second time: from now on it is worth a function that reads them in one call.
            self._read = tf.function(lambda: [_read(v) for v in variables], autograph=False)
        return self._read() if self._read else [_read(variable) for variable in variables]


def _identical(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _is_variable(value: Any) -> bool:
    return isinstance(value, (keras.Variable, tf.Variable))


def _tf_variable(value: Any) -> Any:
    """Return the TensorFlow variable behind a variable, or `None` where there is none."""
    inner = value.value if isinstance(value, keras.Variable) else value
    return inner if isinstance(inner, tf.Variable) else None


def _read(variable: Any) -> Any:
    value = variable.read_value()
    # Python's buffers know no bfloat16; its bits are enough.
    width = numpy_dtype(value.dtype.name).itemsize if _is_exotic(value.dtype.name) else 0
    return tf.bitcast(value, {1: tf.uint8, 2: tf.uint16}[width]) if width else value


def _is_exotic(name: str) -> bool:
    return name.startswith(("bfloat", "float8"))


def as_array(tensor: Any, dtype: str) -> np.ndarray[Any, Any]:
    """Return a tensor as an array, on the CPU without a copy.

    Args:
        tensor: A TensorFlow tensor; its bits, for a dtype that Python's buffers do not know.
        dtype: Name of the dtype of what was read.
    """
    try:
        array = np.asarray(memoryview(tensor))
    except (TypeError, ValueError, BufferError, RuntimeError):
        array = np.asarray(tensor.numpy())  # On a GPU, or strings.
    return array.view(numpy_dtype(dtype)) if _is_exotic(dtype) else array

"""Detect whether the body of a loop has trained on its batch before a save.

A save in the body of a loop contains the state before or after the update, and the count of batches
must match it. Each optimizer counts its updates, so its count decides. Gradients that accumulate
over several batches are tracked as floats and count as well. Without a counting optimizer, a save
is assumed to be at the end of the body.

Marks are taken at each batch, so nothing is copied from a device and nothing waits for it: they are
references to the values of one small variable for each object, as in a snapshot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.live.adapters import Adapter, MetricAdapter, VariablesAdapter
from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.live.variables import variable_of

_COUNTERS = ("dynamic_scale",)


class Marked:
    """The variables of the tracked objects whose changes are detected.

    Args:
        adapters: The tracked objects.
    """

    def __init__(self, adapters: Sequence[Adapter]):
        found = {id(one): one for adapter in adapters for one in _optimizers_of(adapter.target)}
        self._optimizers = list(found.values())
        self._counters = [v for one in self._optimizers for v in _counters_of(one)]
        sums = [v for one in adapters for v in _smallest_float(one)]
        self._watched = [_variable_behind(v) for v in (*self._counters, *sums)]

    @property
    def counts(self) -> bool:
        """Whether an optimizer counts the updates."""
        return bool(self._counters)

    @property
    def settled(self) -> bool:
        """Whether the set is final: all optimizers are built."""
        return all(getattr(one, "built", True) for one in self._optimizers)

    def now(self) -> Marks:
        """Return the current marks."""
        # Without an optimizer they are not used.
        return Marks(self._watched if self.counts else [])


class Marks:
    """The values of some variables at one time, by reference."""

    def __init__(self, variables: Iterable[Any]):
        self._held = [(variable, _held(variable)) for variable in variables]

    @property
    def moved(self) -> bool:
        """Whether one of the variables has changed since."""
        return any(not _same(held, _held(variable)) for variable, held in self._held)


def _optimizers_of(target: Any) -> Iterable[Any]:
    """Return the optimizers in an object, including itself and inner optimizers."""
    if isinstance(target, keras.optimizers.Optimizer):
        yield target
        inner = getattr(target, "inner_optimizer", None)
        if inner is not None:
            yield from _optimizers_of(inner)
    elif isinstance(target, (keras.Model, *tf_kinds("Module"))):
        for item in vars(target).values():
            if isinstance(item, keras.optimizers.Optimizer):
                yield from _optimizers_of(item)


def _counters_of(optimizer: Any) -> list[Any]:
    """Return the counters of an optimizer; a learning rate may be set at any time."""
    return [
        variable
        for variable in optimizer.variables
        if not tuple(variable.shape)
        and ("int" in str(variable.dtype) or str(variable.name).endswith(_COUNTERS))
    ]


def _smallest_float(adapter: Adapter) -> list[Any]:
    # A counter of the program may change before or after the update.
    if isinstance(adapter, (VariablesAdapter, MetricAdapter)):
        floats = [v for v in adapter.variables().values() if "float" in str(v.dtype)]
        return sorted(floats, key=lambda v: math.prod(tuple(v.shape)))[:1]
    return []


def _variable_behind(variable: Any) -> Any:
    """Return the TensorFlow variable of a Keras variable, if there is one: it stays the same."""
    value = variable_of(variable)
    return value if isinstance(value, tf_kinds("Variable")) else variable


def _held(variable: Any) -> Any:
    value = variable if isinstance(variable, tf_kinds("Variable")) else variable_of(variable)
    if isinstance(value, tf_kinds("Variable")):
        return value.value()  # Takes half the time of `read_value`, for each batch.
    # JAX arrays cannot be changed; those of PyTorch can, and are copied on their device.
    return value.detach().clone() if hasattr(value, "detach") else value


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return bool(np.array_equal(to_numpy(one), to_numpy(other), equal_nan=True))
    except RuntimeError:
        return False  # JAX reuses the memory of an updated array.

"""What shows that the body of a loop has done its work: iteration -> *marks* -> count, save.

A save in the body of a loop is of the state before the update or of the state after it, and the
count of batches has to agree with that. Each optimizer counts its updates, so its count decides.
Gradients that are added up over several batches are tracked beside the optimizer, as floats, and
count as well. Where no optimizer counts, there is nothing to go by, and a save is taken to stand at
the end of the body.

Marks are taken at each batch, so nothing is copied from a device or waited for: they are references
to values, as a snapshot's are, of one small variable for each object.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_ckpt_tools.live.adapters import Adapter, MetricAdapter, VariablesAdapter
from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.live.variables import variable_of

_COUNTERS = ("dynamic_scale",)


class Marked:
    """What is looked at in the tracked objects.

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
        """Whether nothing can be added to it: all optimizers are built."""
        return all(getattr(one, "built", True) for one in self._optimizers)

    def now(self) -> Marks:
        """Return the marks of this moment."""
        # Without an optimizer nobody asks.
        return Marks(self._watched if self.counts else [])


class Marks:
    """The values of some variables at one moment, by reference."""

    def __init__(self, variables: Iterable[Any]):
        self._held = [(variable, _held(variable)) for variable in variables]

    @property
    def moved(self) -> bool:
        """Whether one of the variables has another value now."""
        return any(not _same(held, _held(variable)) for variable, held in self._held)


def _optimizers_of(target: Any) -> Iterable[Any]:
    """Return the optimizers that hang on an object, itself included, and those inside of them."""
    if isinstance(target, keras.optimizers.Optimizer):
        yield target
        inner = getattr(target, "inner_optimizer", None)
        if inner is not None:
            yield from _optimizers_of(inner)
    elif isinstance(target, (keras.Model, tf.Module)):
        for item in vars(target).values():
            if isinstance(item, keras.optimizers.Optimizer):
                yield from _optimizers_of(item)


def _counters_of(optimizer: Any) -> list[Any]:
    """Return what an optimizer counts in; a learning rate may be set at any time."""
    return [
        variable
        for variable in optimizer.variables
        if not tuple(variable.shape)
        and ("int" in str(variable.dtype) or str(variable.name).endswith(_COUNTERS))
    ]


def _smallest_float(adapter: Adapter) -> list[Any]:
    # Counters that a program keeps itself may be raised before the work as well as after it.
    if isinstance(adapter, (VariablesAdapter, MetricAdapter)):
        floats = [v for v in adapter.variables().values() if "float" in str(v.dtype)]
        return sorted(floats, key=lambda v: math.prod(tuple(v.shape)))[:1]
    return []


def _variable_behind(variable: Any) -> Any:
    """Return TensorFlow's own variable, where there is one: it stays the same."""
    value = variable_of(variable)
    return value if isinstance(value, tf.Variable) else variable


def _held(variable: Any) -> Any:
    value = variable if isinstance(variable, tf.Variable) else variable_of(variable)
    if isinstance(value, tf.Variable):
        return value.value()  # Half the time of `read_value`, and this is for each batch.
    # Arrays of JAX cannot be changed; those of PyTorch can, and are copied where they are.
    return value.detach().clone() if hasattr(value, "detach") else value


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return bool(np.array_equal(to_numpy(one), to_numpy(other), equal_nan=True))
    except RuntimeError:
        return False  # JAX gives away the memory of what was updated.

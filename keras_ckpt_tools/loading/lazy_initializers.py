"""Draw no random numbers that are overwritten at once: verdicts -> *build* -> fill.

Building a model draws a random number for each weight and writes a zero for each slot of its
optimizer, and for a large model that takes longer than reading all of them from the file. While a
model is built from a file, variables get zeros that the operating system hands out when they are
first touched, which they never are: the fill replaces them. A variable that it has not replaced
(one that a layer makes and does not save) draws its random numbers after all, at the end.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools.formats.common.dtypes import numpy_dtype
from keras_ckpt_tools.formats.common.extents import aligned_memory
from keras_ckpt_tools.live.variables import as_array, as_tensor, handle_of, read

# The one place where Keras' variables get their first value. A Keras without it draws numbers.
_METHOD = "_initialize_with_initializer"
# Below this, zeros are written faster than they are asked for.
_LARGE = 64 << 10
_RANDOM = frozenset(
    {
        keras.initializers.GlorotNormal,
        keras.initializers.GlorotUniform,
        keras.initializers.HeNormal,
        keras.initializers.HeUniform,
        keras.initializers.LecunNormal,
        keras.initializers.LecunUniform,
        keras.initializers.Orthogonal,
        keras.initializers.RandomNormal,
        keras.initializers.RandomUniform,
        keras.initializers.TruncatedNormal,
        keras.initializers.VarianceScaling,
    }
)


# Two threads that load at once would otherwise give back what the other one has put there.
_one_at_a_time = threading.RLock()


class PutOff:
    """Variables that are still to draw their random numbers."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, Any, Any]] = []

    def add(self, variable: Any, initializer: Any, zeros: Any) -> None:
        """Note a variable and the zeros that it has for now."""
        self._waiting.append((variable, initializer, zeros))

    def draw(self) -> None:
        """Initialize the variables that still have the zeros they were given."""
        for variable, initializer, zeros in self._waiting:
            handle = handle_of(variable)
            if handle is not None and _place_of(read(handle)) == _place_of(zeros):
                variable.assign(initializer(variable.shape, dtype=variable.dtype))
        self._waiting.clear()


@contextmanager
def random_numbers_put_off() -> Iterator[PutOff]:
    """Put off the random numbers of variables that this thread makes in the block."""
    put_off = PutOff()
    original = getattr(keras.Variable, _METHOD, None)
    if keras.backend.backend() != "tensorflow" or original is None or _has_strategy():
        yield put_off
        return
    thread = threading.get_ident()
    _one_at_a_time.acquire()
    original = getattr(keras.Variable, _METHOD)

    def initialize(variable: Any, initializer: Any) -> None:
        if threading.get_ident() == thread and type(initializer) in _RANDOM:
            zeros = _zeros(variable.shape, variable.dtype)
            put_off.add(variable, initializer, zeros)
            original(variable, lambda shape, dtype: zeros)
        elif threading.get_ident() == thread and type(initializer) is keras.initializers.Zeros:
            original(variable, _zeros)
        else:
            original(variable, initializer)

    setattr(keras.Variable, _METHOD, initialize)
    try:
        yield put_off
    finally:
        setattr(keras.Variable, _METHOD, original)
        _one_at_a_time.release()


def _has_strategy() -> bool:
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def _zeros(shape: Any, dtype: Any) -> Any:
    import tensorflow as tf

    kind = numpy_dtype(str(dtype))
    nbytes = math.prod(shape) * kind.itemsize
    if nbytes < _LARGE or kind.kind not in "fV":
        return tf.zeros(shape, dtype)
    return as_tensor(aligned_memory(nbytes, make=np.zeros).view(kind).reshape(shape))


def _place_of(tensor: Any) -> int:
    return int(as_array(tensor).__array_interface__["data"][0])

"""Skip the random initialization of variables that are overwritten at once.

Random numbers for each weight and zeros for each optimizer slot take longer, in a large model, than
reading the file. While a model is built from a file, variables get zeros whose memory is not
allocated until it is used. A variable that the file does not overwrite is initialized at the end.
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

# The method that gives variables their first value. A Keras without it draws the numbers.
_METHOD = "_initialize_with_initializer"
# Below this, writing zeros is faster than requesting them.
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


# Two threads that load at once could otherwise restore each other's replacement.
_one_at_a_time = threading.RLock()


class PutOff:
    """Variables that are not initialized yet."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, Any, Any]] = []

    def add(self, variable: Any, initializer: Any, zeros: Any) -> None:
        """Add a variable and its temporary zeros."""
        self._waiting.append((variable, initializer, zeros))

    def draw(self) -> None:
        """Initialize the variables that still have their temporary zeros."""
        for variable, initializer, zeros in self._waiting:
            handle = handle_of(variable)
            if handle is not None and _place_of(read(handle)) == _place_of(zeros):
                variable.assign(initializer(variable.shape, dtype=variable.dtype))
        self._waiting.clear()


@contextmanager
def random_numbers_put_off() -> Iterator[PutOff]:
    """Defer the initialization of variables that this thread makes in the block."""
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

"""What the machine allows: the same bytes moved with nothing around them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf


def variables_of(model: keras.Model) -> list[tf.Variable]:
    """Return the TensorFlow variables of a model and its optimizer."""
    return [v.value for v in (*model.variables, *model.optimizer.variables)]


def reader_of(model: keras.Model) -> Callable[[], list[memoryview]]:
    """Return what reads all variables by reference: one call of a function, and their buffers."""
    variables = variables_of(model)
    read = tf.function(lambda: [v.read_value() for v in variables], autograph=False)
    return lambda: [memoryview(tensor) for tensor in read()]


def write_raw(path: str, buffers: list[memoryview]) -> None:
    """Write buffers one after another, and sync."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        for buffer in buffers:
            left = memoryview(np.asarray(buffer).reshape(-1).view(np.uint8))
            while left:
                left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_raw(path: str, variables: list[tf.Variable]) -> None:
    """Read what `write_raw` wrote, and assign each as it comes."""
    for variable, array in _arrays_in(path, variables):
        variable.assign(array)


def read_raw_then_assign(path: str, variables: list[tf.Variable]) -> None:
    """Read all that `write_raw` wrote before the first variable changes."""
    for variable, array in list(_arrays_in(path, variables)):
        variable.assign(array)


def _arrays_in(path: str, variables: list[tf.Variable]) -> Iterator[tuple[tf.Variable, Any]]:
    descriptor = os.open(path, os.O_RDONLY)
    offset = 0
    try:
        for variable in variables:
            array = np.empty(variable.shape, variable.dtype.as_numpy_dtype)
            os.preadv(descriptor, [array.reshape(-1).view(np.uint8)], offset)
            offset += array.nbytes
            yield variable, array
    finally:
        os.close(descriptor)


def _memory_as_it_is(_self: Any, shape: Any, dtype: Any = None, **_rest: Any) -> Any:
    return tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(dtype or "float32"), init=False)


@contextmanager
def no_initializers() -> Iterator[None]:
    """Let the initializers that our models use return memory as it is."""
    with (
        mock.patch.object(keras.initializers.VarianceScaling, "__call__", _memory_as_it_is),
        mock.patch.object(keras.initializers.Zeros, "__call__", _memory_as_it_is),
    ):
        yield


def load_raw(config: str, path: str) -> keras.Model:
    """Build a model from its config without initializers, and fill it with raw bytes."""
    with no_initializers():
        model = keras.saving.deserialize_keras_object(json.loads(config))
        model.optimizer.build(model.trainable_variables)
    read_raw(path, variables_of(model))
    return model

"""Memory that arrays and TensorFlow's tensors share: snapshot -> write, and source -> restore.

TensorFlow copies what is converted in the usual ways (`.numpy()`, `tf.constant`), and for large
models these copies are what a save or a load costs. Python's buffers and DLPack hand over the
memory itself. It has to be left alone from then on: TensorFlow takes its tensors for immutable.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_ckpt_tools.formats.dtypes import dtype_name, is_of_numpy, numpy_dtype
from keras_ckpt_tools.formats.extents import ALIGNMENT

Handle = tuple[Any, Any]
"""A variable's resource and dtype."""

# Python's buffers and DLPack do not know this one; its bits are enough.
_EXOTIC = "bfloat16"
_BITS = "uint16"


def variable_of(value: Any) -> Any:
    """Return what is behind a variable of Keras'; anything else is returned as it is."""
    return value.value if isinstance(value, keras.Variable) else value


def handle_of(value: Any) -> Handle | None:
    """Return the handle of the TensorFlow variable behind a value, if it is in host memory.

    What is not (on a GPU, or one copy for each replica of a strategy) has to be copied.
    """
    inner = variable_of(value)
    if not isinstance(inner, tf.Variable) or hasattr(inner, "values"):
        return None
    return (inner.handle, inner.dtype) if "CPU" in inner.handle.device else None


def read(handle: Handle) -> Any:
    """Return the present value of a variable. A later assignment goes into new memory."""
    return tf.raw_ops.ReadVariableOp(resource=handle[0], dtype=handle[1])


def assign(handle: Handle, value: Any) -> None:
    """Let a variable have a value of its shape and dtype."""
    tf.raw_ops.AssignVariableOp(resource=handle[0], value=value)


def as_array(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a tensor as an array, on the CPU without a copy."""
    try:
        return np.asarray(memoryview(tensor))
    except (TypeError, ValueError, BufferError, RuntimeError):
        name = tensor.dtype.name
    if name == _EXOTIC:
        bits = tf.bitcast(tensor, _BITS)
        return np.asarray(memoryview(bits)).view(numpy_dtype(name))
    return np.asarray(tensor.numpy())  # On a GPU, strings, or float8.


def as_tensor(array: np.ndarray[Any, Any]) -> Any:
    """Return an array as a tensor, without a copy where its memory lies as TensorFlow wants it."""
    name = dtype_name(array.dtype)
    exotic = name == _EXOTIC
    shareable = exotic or (array.dtype.kind in "iufc" and is_of_numpy(array.dtype))
    place, read_only = array.__array_interface__["data"]
    if not shareable or read_only or place % ALIGNMENT:
        return tf.constant(array)
    bits = array.view(_BITS) if exotic else array
    tensor = tf.experimental.dlpack.from_dlpack(bits.__dlpack__())
    return tf.bitcast(tensor, name) if exotic else tensor

"""Share memory between arrays and TensorFlow's tensors.

TensorFlow's usual conversions (`.numpy()`, `tf.constant`) copy, and for large models these copies
are the main cost of a save or load. Python's buffers and DLPack share the memory. Shared memory
must not be changed, because TensorFlow's tensors are immutable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.formats.common.dtypes import dtype_name, is_of_numpy, numpy_dtype
from keras_ckpt_tools.formats.common.extents import ALIGNMENT
from keras_ckpt_tools.live.stores import Captured

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
    if not isinstance(inner, tf_kinds("Variable")) or hasattr(inner, "values"):
        return None
    return (inner.handle, inner.dtype) if "CPU" in inner.handle.device else None


def read(handle: Handle) -> Any:
    """Return the present value of a variable. A later assignment goes into new memory."""
    import tensorflow as tf

    return tf.raw_ops.ReadVariableOp(resource=handle[0], dtype=handle[1])


def assign(handle: Handle, value: Any) -> None:
    """Let a variable have a value of its shape and dtype."""
    import tensorflow as tf

    tf.raw_ops.AssignVariableOp(resource=handle[0], value=value)


def as_array(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a tensor as an array, on the CPU without a copy."""
    try:
        return np.asarray(memoryview(tensor))
    except (TypeError, ValueError, BufferError, RuntimeError):
        name = tensor.dtype.name
    if name == _EXOTIC:
        import tensorflow as tf

        bits = tf.bitcast(tensor, _BITS)
        return np.asarray(memoryview(bits)).view(numpy_dtype(name))
    return np.asarray(tensor.numpy())  # On a GPU, strings, or float8.


def as_tensor(array: np.ndarray[Any, Any]) -> Any:
    """Return an array as a tensor, without a copy where its memory lies as TensorFlow wants it."""
    import tensorflow as tf

    name = dtype_name(array.dtype)
    exotic = name == _EXOTIC
    shareable = exotic or (array.dtype.kind in "iufc" and is_of_numpy(array.dtype))
    place, read_only = array.__array_interface__["data"]
    if not shareable or read_only or place % ALIGNMENT:
        return tf.constant(array)
    bits = array.view(_BITS) if exotic else array
    tensor = tf.experimental.dlpack.from_dlpack(bits.__dlpack__())
    return tf.bitcast(tensor, name) if exotic else tensor


# Methods that assign each tensor to the variable that was saved under its name, and nothing else.
_ASSIGNS = frozenset(
    {keras.layers.Layer.load_own_variables, keras.optimizers.Optimizer.load_own_variables}
)
# These assign only, as long as the layer is neither quantized nor adapted (LoRA).
_ASSIGNS_WHEN_PLAIN = frozenset(
    layer.load_own_variables
    for layer in (
        keras.layers.Conv1D,
        keras.layers.Conv2D,
        keras.layers.Conv3D,
        keras.layers.Dense,
        keras.layers.EinsumDense,
        keras.layers.Embedding,
    )
)


def handles_of(saveable: Any, captured: Captured) -> dict[str, Handle] | None:
    """Return the variable of each path, if a restore is nothing but assigning to them.

    Args:
        saveable: A model, layer or optimizer.
        captured: What it is made of.
    """
    parts = {id(part): part for part in _parts(saveable)}.values()
    # The walk met nothing else that has a say.
    known = sum(hasattr(part, "save_own_variables") for part in parts) == len(captured.asked)
    if not known or not all(map(_only_assigns, parts)):
        return None
    handles = {path: handle_of(value) for path, value in captured.values.items()}
    found = {path: handle for path, handle in handles.items() if handle is not None}
    return found if len(found) == len(handles) else None


def asks_for_files(saveable: Any, captured: Captured) -> bool:
    """Return whether anything in an object saves or loads files (vocabularies)."""
    return captured.has_assets or any(hasattr(part, "load_assets") for part in _parts(saveable))


def _parts(saveable: Any) -> Iterator[Any]:
    yield saveable
    if hasattr(saveable, "_flatten_layers"):
        yield from saveable._flatten_layers()
    optimizer = getattr(saveable, "optimizer", None)
    while optimizer is not None:
        yield optimizer
        optimizer = getattr(optimizer, "inner_optimizer", None)


def _only_assigns(part: Any) -> bool:
    method = getattr(type(part), "load_own_variables", None)
    if method is None or method in _ASSIGNS:
        return True
    quantized = getattr(part, "quantization_mode", None) is not None
    return method in _ASSIGNS_WHEN_PLAIN and not quantized and not part.lora_enabled

"""Names of dtypes, the same in Keras, TensorFlow, NumPy and our files. Knows no framework."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np


def dtype_name(dtype: Any) -> str:
    """Return the name of a dtype of Keras, TensorFlow or NumPy.

    >>> dtype_name(np.dtype("float32")), dtype_name("bfloat16")
    ('float32', 'bfloat16')
    """
    if isinstance(dtype, str):
        return dtype
    if isinstance(dtype, np.dtype) and dtype.kind == "S":
        return dtype.str
    return str(getattr(dtype, "name", dtype))


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a name, ml_dtypes' included.

    >>> numpy_dtype("bfloat16").itemsize
    2
    """
    return np.dtype(getattr(ml_dtypes, name, name))


def raw_bytes(array: np.ndarray[Any, Any]) -> memoryview:
    """Return the bytes of an array, without a copy where it is in one piece.

    >>> raw_bytes(np.zeros((2, 3), "float32")).nbytes
    24
    """
    if not array.size:
        return memoryview(b"")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return memoryview(flat.data)

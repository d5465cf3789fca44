"""Names of dtypes in Keras, TensorFlow, NumPy and the files of this package."""

from __future__ import annotations

import functools
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
    return _numpy_name(dtype) if isinstance(dtype, np.dtype) else str(getattr(dtype, "name", dtype))


@functools.cache
def _numpy_name(dtype: np.dtype[Any]) -> str:
    # NumPy computes the name again each time, which takes long.
    return dtype.str if dtype.kind == "S" else dtype.name


@functools.lru_cache(maxsize=256)
def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a name, ml_dtypes' included.

    >>> numpy_dtype("bfloat16").itemsize
    2
    """
    return np.dtype(getattr(ml_dtypes, name, name))


def is_of_numpy(dtype: np.dtype[Any]) -> bool:
    """Return whether NumPy itself has a dtype, and so has everything that knows NumPy.

    >>> is_of_numpy(np.dtype("float16")), is_of_numpy(numpy_dtype("float8_e5m2"))
    (True, False)
    """
    return dtype.isbuiltin != 2


def hdf5_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype as which HDF5 holds one: it knows those of ml_dtypes as bytes only.

    >>> hdf5_dtype(numpy_dtype("bfloat16")), hdf5_dtype(np.dtype("int8"))
    (dtype('V2'), dtype('int8'))
    """
    return dtype if is_of_numpy(dtype) else np.dtype(f"V{dtype.itemsize}")


def in_native_order(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array with the bytes of its numbers in this machine's order.

    >>> in_native_order(np.array([1], ">i4")).dtype.str == np.array([1], "i4").dtype.str
    True
    """
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def raw_bytes(array: np.ndarray[Any, Any]) -> memoryview:
    """Return the bytes of an array, without a copy where it is in one piece.

    >>> raw_bytes(np.zeros((2, 3), "float32")).nbytes
    24
    """
    if not array.size:
        return memoryview(b"")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return memoryview(flat.data)


_FLOATS = ("float16", "bfloat16", "float32", "float64")


def may_be_cast(theirs: str, ours: str) -> bool:
    """Return whether numbers of one dtype may become numbers of another: floats, or integers.

    >>> may_be_cast("float32", "bfloat16"), may_be_cast("int32", "int64")
    (True, True)
    >>> may_be_cast("float32", "int32"), may_be_cast("float8_e4m3fn", "float32")
    (False, False)
    """
    if theirs in _FLOATS:
        return ours in _FLOATS
    return _is_integer(theirs) and _is_integer(ours)


def _is_integer(name: str) -> bool:
    return name.lstrip("u") in ("int8", "int16", "int32", "int64")


def cast(
    array: np.ndarray[Any, Any], name: str, *, exactly: bool = False
) -> np.ndarray[Any, Any] | None:
    """Return an array as another dtype; `None` where that would lose more than precision.

    >>> cast(np.array([1, 2], "int64"), "int32"), cast(np.array([2**40]), "int32")
    (array([1, 2], dtype=int32), None)
    >>> cast(np.array([1e6], "float32"), "float16") is None  # It would be infinity.
    True
    """
    with np.errstate(over="ignore"):
        found = array.astype(numpy_dtype(name))
        if _is_integer(name) or exactly:
            # Of integers, the way back does not find a sign that was lost.
            same = (found.astype(array.dtype) == array) | np.isnan(array)
            return found if same.all() and ((found < 0) == (array < 0)).all() else None
    return found if (np.isfinite(found) | ~np.isfinite(array)).all() else None

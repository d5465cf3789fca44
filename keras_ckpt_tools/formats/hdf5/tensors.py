"""Read single tensors of third-party HDF5 files.

The scan shows where a tensor is, and whether it is stored as plain bytes. Then these are read
directly; only compressed data and dtypes that need conversion go through h5py.
"""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np

from keras_ckpt_tools.formats.common.dtypes import numpy_dtype, raw_bytes
from keras_ckpt_tools.formats.hdf5.window import pread_into
from keras_ckpt_tools.metadata import TensorInfo


def read_table(file: h5py.File) -> dict[str, TensorInfo]:
    """Return every dataset of a file that we wrote, by path. Second names of one count each."""
    found: dict[str, TensorInfo] = {}
    _walk(file, "", found)
    return found


def _walk(group: h5py.Group, prefix: str, found: dict[str, TensorInfo]) -> None:
    for name, item in group.items():
        path = f"{prefix}{name}"
        if isinstance(item, h5py.Dataset):
            found[path] = _info(path, item)
        else:
            _walk(item, f"{path}/", found)


def _info(path: str, dataset: h5py.Dataset) -> TensorInfo:
    offset = dataset.id.get_offset() if dataset.nbytes and dataset.chunks is None else None
    dtype = str(dataset.attrs.get("dtype", "")) or dataset.dtype.name
    return TensorInfo(path, tuple(dataset.shape or ()), dtype, offset, int(dataset.nbytes))


def read_tensor(file: h5py.File, info: TensorInfo) -> np.ndarray[Any, Any]:
    """Return a dataset as an array of the dtype that its attributes give it."""
    return _typed(np.asarray(file[info.path][()]), info)


def read_plain(
    descriptor: int, start: int, info: TensorInfo, layout: str
) -> np.ndarray[Any, Any] | None:
    """Return a tensor from where it lies in an open file, or `None` if it ends too early.

    Args:
        descriptor: The open file.
        start: Where the HDF5 file begins in it.
        info: The tensor.
        layout: NumPy's type of its elements as they are in the file.

    Raises:
        ValueError: shape, type and length contradict each other.
    """
    dtype = np.dtype(layout)
    if dtype.hasobject or math.prod(info.shape) * dtype.itemsize != info.nbytes:
        raise ValueError(f"the length of {info.path} is not that of its shape")
    array = np.empty(info.shape, dtype)
    view, offset = raw_bytes(array), start + (info.offset or 0)
    while view:
        read = pread_into(descriptor, view, offset)
        if not read:
            return None
        view, offset = view[read:], offset + read
    return _typed(array, info)


def _typed(array: np.ndarray[Any, Any], info: TensorInfo) -> np.ndarray[Any, Any]:
    dtype = np.dtype("O") if info.dtype == "object" else numpy_dtype(info.dtype)
    if array.dtype.kind == "V":
        return array.view(dtype)
    return array.astype(dtype, copy=False)

"""Read the tensors of any HDF5 file through h5py: artefact -> *source*.

For files that we did not write, and to find out where the tensors of a finished file lie. Knows
neither Keras nor our record.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from keras_ckpt_tools.metadata import TensorInfo


def read_table(file: h5py.File) -> dict[str, TensorInfo]:
    """Return every dataset of an open file, by path. Second names of one dataset count each."""
    found: dict[str, TensorInfo] = {}
    _walk(file, "", found, set())
    return found


def _walk(group: h5py.Group, prefix: str, found: dict[str, TensorInfo], above: set[Any]) -> None:
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            continue  # Soft and external links lead elsewhere; a weights file has none.
        item = group[name]
        path = f"{prefix}{name}"
        if isinstance(item, h5py.Dataset):
            found[path] = _info(path, item)
        elif isinstance(item, h5py.Group) and item.id not in above:
            _walk(item, f"{path}/", found, above | {item.id})


def _info(path: str, dataset: h5py.Dataset) -> TensorInfo:
    offset = dataset.id.get_offset() if dataset.nbytes and dataset.chunks is None else None
    dtype = str(dataset.attrs.get("dtype", "")) or dataset.dtype.name
    return TensorInfo(path, tuple(dataset.shape or ()), dtype, offset, int(dataset.nbytes))


def read_tensor(file: h5py.File, info: TensorInfo, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return a dataset as an array of the dtype that its attributes give it."""
    array = np.asarray(file[info.path][()])
    if array.dtype.kind == "V":
        return array.view(dtype)
    return array.astype(dtype, copy=False)

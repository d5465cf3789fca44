"""Write an HDF5 file with our record in front: snapshot -> *write* -> commit.

The bytes go out once, from the first to the last: record, skeleton and buffers, each digested on
the way. That suits a staged file as well as a member of a zip, and needs no memory beyond the
snapshot. The file is a plain Keras file; see `layout` for why libhdf5 need not be asked.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.formats.dtypes import dtype_name, numpy_dtype, raw_bytes
from keras_ckpt_tools.formats.layout import Dataset, Layout, Structure, lay_out
from keras_ckpt_tools.formats.snapshot import Snapshot
from keras_ckpt_tools.formats.userblock import block_size, digest_of, encode, encode_json
from keras_ckpt_tools.metadata import Record, TensorInfo

Write = Callable[[Any], Any]

# Stands in for numbers that are known only after the layout: no file is longer than this.
_LONGEST = 10**15


def write_weights(
    write: Write, snapshot: Snapshot, record: Record, directory: str | None = None
) -> Record:
    """Write a snapshot and its record as one HDF5 file.

    Args:
        write: Takes the next bytes of the file.
        snapshot: The tensors.
        record: What else the file says about itself; the tables of bytes are filled in here.
        directory: Where the layout may put an empty file for a moment.

    Returns:
        The record as it stands in the file.
    """
    arrays = {path: _storable(array) for path, array in snapshot.arrays.items()}
    tensors = tuple(
        TensorInfo(
            path,
            array.shape,
            dtype_name(array.dtype),
            _LONGEST,
            array.nbytes,
            digest_of(raw_bytes(array)),
        )
        for path, array in arrays.items()
    )
    record = dataclasses.replace(
        record, tensors=tensors, skeleton_digest=digest_of(), size=_LONGEST
    )
    block = block_size(len(encode_json(record)))
    layout = lay_out(_structure(arrays, snapshot, block), directory)
    record = dataclasses.replace(
        record,
        tensors=tuple(dataclasses.replace(t, offset=layout.offsets.get(t.path)) for t in tensors),
        skeleton_digest=digest_of(*(chunk for _, chunk in layout.skeleton)),
        size=layout.size,
    )
    write(encode(record, block))
    for _, piece in _pieces(layout, arrays):
        write(piece)
    return record


def _storable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return strings as bytes of one length: only those lie in one piece in HDF5."""
    if array.dtype.kind in "OU":
        return np.char.encode(array.astype(str), "utf-8")
    return array


def _structure(
    arrays: Mapping[str, np.ndarray[Any, Any]], snapshot: Snapshot, block: int
) -> Structure:
    return Structure(
        datasets=tuple(
            Dataset(path, array.shape, array.dtype, dtype_attributes(dtype_name(array.dtype)))
            for path, array in arrays.items()
        ),
        group_attributes=tuple((path, "name", name) for path, name in snapshot.names.items()),
        links=snapshot.links,
        userblock=block,
    )


def dtype_attributes(name: str) -> tuple[tuple[str, str], ...]:
    """Return the attribute by which Keras knows a dtype that HDF5 does not.

    >>> dtype_attributes("bfloat16"), dtype_attributes("float32")
    ((('dtype', 'bfloat16'),), ())
    """
    return (("dtype", name),) if numpy_dtype(name).kind == "V" else ()


def _pieces(
    layout: Layout, arrays: Mapping[str, np.ndarray[Any, Any]]
) -> Iterator[tuple[int, Any]]:
    """Yield skeleton and data in the order of the file."""
    data = sorted((offset, path) for path, offset in layout.offsets.items())
    return heapq.merge(
        layout.skeleton,
        ((offset, raw_bytes(arrays[path])) for offset, path in data),
        key=lambda piece: piece[0],
    )

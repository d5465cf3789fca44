"""Write an HDF5 file with our record in front: snapshot -> *write* -> commit.

The bytes go out once, from the first to the last: record, skeleton and buffers, each digested on
the way. That suits a staged file as well as a member of a zip, and needs no memory beyond the
snapshot. The file is a plain Keras file; see `layout` for why libhdf5 need not be asked.
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.formats.contents import Snapshot
from keras_ckpt_tools.formats.dtypes import (
    dtype_name,
    hdf5_dtype,
    in_native_order,
    is_of_numpy,
    numpy_dtype,
    raw_bytes,
)
from keras_ckpt_tools.formats.layout import Dataset, Layout, Structure, lay_out
from keras_ckpt_tools.formats.userblock import block_size, digest_of, encode, encode_json
from keras_ckpt_tools.metadata import OptimizerState, Record, TensorInfo
from keras_ckpt_tools.showing.byte_counts import counted

Write = Callable[[Any], Any]

# Stands in for numbers that are known only after the layout: no file is longer than this.
_LONGEST = 10**15
# What a tensor's entry in the record takes beside its path, shape and dtype.
_ROOM = len(json.dumps(TensorInfo("", (), "", _LONGEST, _LONGEST, digest_of()).to_json()))
# Pieces below the first size are joined up to the second.
_SMALL = 64 << 10
_JOINED = 1 << 20


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
    names = {path: dtype_name(array.dtype) for path, array in arrays.items()}
    record = dataclasses.replace(
        record,
        names=snapshot.called,
        optimizers=optimizers_in(snapshot, record),
        tensors=(),
        skeleton_digest=digest_of(),
        size=_LONGEST,
    )
    entries = json.dumps([(path, array.shape, names[path]) for path, array in arrays.items()])
    block = block_size(len(encode_json(record)) + len(entries) + _ROOM * len(arrays))
    layout = lay_out(_structure(arrays, names, snapshot, block), directory)
    tensors = tuple(
        TensorInfo(
            path,
            array.shape,
            names[path],
            layout.offsets.get(path),
            array.nbytes,
            digest_of(raw_bytes(array)),
        )
        for path, array in arrays.items()
    )
    record = dataclasses.replace(
        record,
        tensors=tensors,
        skeleton_digest=digest_of(*(chunk for _, chunk in layout.skeleton)),
        size=layout.size,
    )
    write(encode(record, block))
    write = counted(write)
    for piece in _gathered(_pieces(layout, arrays)):
        write(piece)
    return record


def optimizers_in(snapshot: Snapshot, record: Record) -> dict[str, OptimizerState]:
    """Return whose state there is; what a tracked optimizer was built on is on record already."""
    return {
        group: OptimizerState(one.class_name) if group in record.tracked else one
        for group, one in snapshot.optimizers.items()
    }


def _storable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return strings as bytes of one length: only those lie in one piece in HDF5."""
    if array.dtype.kind in "OU":
        return np.char.encode(array.astype(str), "utf-8")
    return in_native_order(array)


def _structure(
    arrays: Mapping[str, np.ndarray[Any, Any]],
    names: Mapping[str, str],
    snapshot: Snapshot,
    block: int,
) -> Structure:
    return Structure(
        datasets=tuple(
            Dataset(path, array.shape, hdf5_dtype(array.dtype), dtype_attributes(names[path]))
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
    return (("dtype", name),) if not is_of_numpy(numpy_dtype(name)) else ()


def _pieces(layout: Layout, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Iterator[Any]:
    """Yield skeleton and data in the order of the file."""
    places: list[tuple[int, Any]] = [*layout.skeleton, *((o, p) for p, o in layout.offsets.items())]
    places.sort(key=operator.itemgetter(0))
    return (raw_bytes(arrays[place]) if isinstance(place, str) else place for _, place in places)


def _gathered(pieces: Iterable[Any]) -> Iterator[Any]:
    """Yield pieces, with small neighbours joined: each goes through several hands."""
    small: list[Any] = []
    size = 0
    for piece in pieces:
        if len(piece) < _SMALL:
            small.append(piece)
            size += len(piece)
        if size >= _JOINED or len(piece) >= _SMALL:
            yield b"".join(small)
            small, size = [], 0
        if len(piece) >= _SMALL:
            yield piece
    yield b"".join(small)

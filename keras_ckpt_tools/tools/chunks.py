"""Read tensors in bounded memory, several at a time or in pieces.

Small tensors are read together. A larger one is read in pieces from its file; its digest, if any,
is checked after the last piece. Compressed tensors, and those of TensorFlow, are read in one piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import xxhash

from keras_ckpt_tools.errors import damaged
from keras_ckpt_tools.formats.common.dtypes import numpy_dtype, raw_bytes
from keras_ckpt_tools.formats.hdf5.window import pread_into
from keras_ckpt_tools.formats.tensor_source import ModelSource, TensorSource
from keras_ckpt_tools.metadata import TensorInfo

TOGETHER = 32 << 20
"""Bytes that are read together, and of which a large tensor's pieces are at most."""


def in_batches(tensors: Mapping[str, TensorInfo], paths: Iterable[str]) -> Iterator[list[str]]:
    """Yield paths, some at a time, in their order: as many as are `TOGETHER`, and at least one.

    >>> sizes = {"a": TensorInfo("a", (8 << 20,), "float32", None, TOGETHER)}
    >>> list(in_batches({**sizes, "b": sizes["a"]}, "ab"))
    [['a'], ['b']]
    """
    batch: list[str] = []
    size = 0
    for path in paths:
        length = nbytes_of(tensors[path])
        if batch and size + length > TOGETHER:
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += length
    if batch:
        yield batch


def nbytes_of(info: TensorInfo) -> int:
    """Return how many bytes a tensor has, also where its source does not say."""
    if info.nbytes or info.dtype == "object":
        return info.nbytes
    try:
        return math.prod(info.shape) * numpy_dtype(info.dtype).itemsize
    except TypeError:
        return 0


def pieces(source: TensorSource, path: str, length: int) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the elements of a tensor in C order, `length` at a time; the last piece is shorter.

    Raises:
        DamagedArtefactError: its bytes have changed since it was written; after the last piece.
    """
    place = source.place_of(path) if isinstance(source, ModelSource) else None
    info = source.tensors[path]
    if place is None or math.prod(info.shape) * np.dtype(place[2]).itemsize != info.nbytes:
        whole = source.read_all([path])[path].reshape(-1)
        yield from (whole[start : start + length] for start in range(0, whole.size, length))
        return
    assert isinstance(source, ModelSource)
    digest = xxhash.xxh3_128()
    descriptor, offset, layout = place
    dtype = np.dtype(layout)
    left = math.prod(info.shape)
    while left:
        piece = np.empty(min(length, left), dtype)
        view = raw_bytes(piece)
        while view:
            read = pread_into(descriptor, view, offset)
            if not read:
                raise damaged(source.path, f"the bytes of {path} have changed")
            view, offset = view[read:], offset + read
        digest.update(raw_bytes(piece))
        left -= piece.size
        yield piece.view(numpy_dtype(info.dtype)) if dtype.kind == "V" else piece
    if info.digest and digest.hexdigest() != info.digest:
        raise damaged(source.path, f"the bytes of {path} have changed")
    source.check_unchanged()

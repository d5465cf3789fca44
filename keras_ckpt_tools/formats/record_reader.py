"""Read a file of ours through its record: artefact -> *tensors*, by `pread` alone.

The record says where everything is and what its digest is, so reading needs no HDF5 library, and
no byte is handed out that was not checked.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import xxhash

from keras_ckpt_tools.formats.dtypes import numpy_dtype, raw_bytes
from keras_ckpt_tools.formats.extents import gaps_between
from keras_ckpt_tools.formats.userblock import decode, digest_of
from keras_ckpt_tools.metadata import Record, TensorInfo

# Where TensorFlow's memory begins, a multiple of this; such memory it can take over as it is.
ALIGNMENT = 64
# Bytes between tensors are few, if the record is honest.
_PIECE = 1 << 20


class RecordReader:
    """Reads the HDF5 file between two offsets of an open file.

    Args:
        descriptor: The open file.
        start: Where the HDF5 file begins in it.
        end: Where it ends.
        record: Its record.
        block: Length of its user block.
    """

    def __init__(self, descriptor: int, start: int, end: int, record: Record, block: int):
        self.record = record
        self._descriptor = descriptor
        self._start = start
        self._end = end
        self._block = block

    def read(self, info: TensorInfo) -> np.ndarray[Any, Any] | None:
        """Return a tensor, or `None` if its bytes have changed."""
        array = self._array(info)
        return array if digest_of(raw_bytes(array)) == info.digest else None

    def _array(self, info: TensorInfo) -> np.ndarray[Any, Any]:
        array = _aligned(info.shape, numpy_dtype(info.dtype))
        if info.offset is not None and array.nbytes == info.nbytes:
            self._read_into(raw_bytes(array), self._start + info.offset)
        return array

    def _read_into(self, view: memoryview, offset: int) -> None:
        while view:
            read = os.preadv(self._descriptor, [view], offset)
            if not read:
                view[:] = bytes(len(view))  # The file has become shorter; the digest tells.
                return
            view, offset = view[read:], offset + read

    def changed_tensors(self) -> Iterator[str]:
        """Yield the paths of tensors whose bytes have changed."""
        return (info.path for info in self.record.tensors if self.read(info) is None)

    def check(self) -> list[str]:
        """Check all bytes that belong to no tensor; return what is wrong, as sentences."""
        length = self._end - self._start
        if length != self.record.size:
            return [f"it has {length:,} bytes of {self.record.size:,}"]
        data = sorted((t.offset, t.nbytes) for t in self.record.tensors if t.offset is not None)
        gaps = gaps_between(data, self._block, self.record.size)
        state = xxhash.xxh3_128()
        for start, end in gaps:
            for place in range(start, end, _PIECE):
                length = min(_PIECE, end - place)
                state.update(os.pread(self._descriptor, length, self._start + place))
        changed = state.hexdigest() != self.record.skeleton_digest
        return ["the bytes between its tensors have changed"] if changed else []


def open_record(descriptor: int, start: int, end: int, path: str) -> RecordReader | None:
    """Return a reader of the HDF5 file between two offsets, or `None` where it is not ours.

    Raises:
        DamagedArtefactError: it is ours, and its record has changed.
        NewerFormatError: a later version of the package wrote it.
    """

    def read_at(offset: int, length: int) -> bytes:
        return os.pread(descriptor, min(length, max(end - start - offset, 0)), start + offset)

    found = decode(read_at, path)
    return RecordReader(descriptor, start, end, *found) if found else None


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    nbytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + nbytes].view(dtype).reshape(shape)

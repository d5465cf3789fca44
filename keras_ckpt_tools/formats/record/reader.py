"""Read tensors of a file written by this package, through its record.

The record contains positions and digests, so reading needs no HDF5 library, and every byte is
checked before it is returned.

Neighbouring tensors are read together into one block of memory that their arrays share: with
thousands of small tensors, each would cost a call and a memory page. Two threads share the work,
because most of the time goes into allocating memory.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xxhash

from keras_ckpt_tools.formats.common.dtypes import numpy_dtype, raw_bytes
from keras_ckpt_tools.formats.common.extents import aligned_memory, gaps_between
from keras_ckpt_tools.formats.common.finite import not_finite_in
from keras_ckpt_tools.formats.hdf5.structure import FoundTensor, UnfamiliarError, tensors_in
from keras_ckpt_tools.formats.hdf5.window import pread_into
from keras_ckpt_tools.formats.record.userblock import digest_of
from keras_ckpt_tools.metadata import Record, TensorInfo
from keras_ckpt_tools.showing.byte_counts import advance

# Tensors that lie this close together are read together, up to this much.
_NEAR = 4 << 10
_TOGETHER = 32 << 20
_READERS = 2
# Bytes between tensors are few, if the record is honest.
_PIECE = 1 << 20
_LARGEST_SKELETON = 64 << 20

_Arrays = dict[str, np.ndarray[Any, Any] | None]

Run = list[TensorInfo]
"""Neighbours, in the order of the file."""


class RecordReader:
    """Reads the HDF5 file between two offsets of an open file.

    Attributes:
        not_finite: Paths of the tensors with NaN or infinity among those that were read.
    """

    def __init__(self, descriptor: int, start: int, end: int, record: Record, block: int):
        self.record = record
        self._descriptor = descriptor
        self._start = start
        self._end = end
        self._block = block
        self.not_finite: list[str] = []
        self._skeleton: list[tuple[int, bytes]] = []

    def read(self, infos: Iterable[TensorInfo]) -> dict[str, np.ndarray[Any, Any] | None]:
        """Return tensors by path; `None` for each whose bytes have changed."""
        found: dict[str, np.ndarray[Any, Any] | None] = {}
        for arrays in self._in_runs(list(infos)):
            found |= arrays
        return found

    def changed_tensors(self) -> list[str]:
        """Return the paths of tensors whose bytes have changed."""
        runs = self._in_runs(self.record.tensors)
        return [path for arrays in runs for path, array in arrays.items() if array is None]

    def _in_runs(
        self, infos: Sequence[TensorInfo]
    ) -> Iterator[dict[str, np.ndarray[Any, Any] | None]]:
        yield {info.path: _empty(info) for info in infos if not _has_place(info)}
        runs = list(_runs([info for info in infos if _has_place(info)]))
        if len(runs) < _READERS:
            yield from _told(runs, map(self._read_run, runs))
            return
        with ThreadPoolExecutor(_READERS, "kct-read") as readers:
            yield from _told(runs, readers.map(self._read_run, runs))

    def _read_run(self, run: Run) -> dict[str, np.ndarray[Any, Any] | None]:
        first = run[0].offset or 0
        memory = aligned_memory(_end(run[-1]) - first, first)
        self._read_into(memoryview(memory.data), self._start + first)
        arrays: _Arrays = {}
        for info in run:
            place = (info.offset or 0) - first
            data = memory[place : place + info.nbytes]
            whole = digest_of(data) == info.digest
            arrays[info.path] = _shaped(data, info) if whole else None
        self.not_finite += not_finite_in(arrays.items())
        return arrays

    def _read_into(self, view: memoryview, offset: int) -> None:
        while view:
            read = pread_into(self._descriptor, view, offset)
            if not read:
                view[:] = bytes(len(view))  # The file has become shorter; the digest tells.
                return
            view, offset = view[read:], offset + read

    def check(self) -> list[str]:
        """Check all bytes that belong to no tensor; return what is wrong, as sentences."""
        length = self._end - self._start
        if length != self.record.size:
            return [f"it has {length:,} bytes of {self.record.size:,}"]
        data = sorted((t.offset, t.nbytes) for t in self.record.tensors if t.offset is not None)
        gaps = gaps_between(data, self._block, self.record.size)
        state = xxhash.xxh3_128()
        skeleton: list[tuple[int, bytes]] = []
        room = _LARGEST_SKELETON
        for start, end in gaps:
            pieces = []
            for place in range(start, end, _PIECE):
                length = min(_PIECE, end - place)
                piece = os.pread(self._descriptor, length, self._start + place)
                state.update(piece)
                if room >= 0:
                    pieces.append(piece)
                room -= length
            skeleton.append((start, b"".join(pieces)))
        if state.hexdigest() != self.record.skeleton_digest:
            return ["the bytes between its tensors have changed"]
        self._skeleton = skeleton if room >= 0 else []
        return []

    def structure(self) -> dict[str, FoundTensor]:
        """Return the tensors that the HDF5 structure names, from the bytes that `check` read.

        Raises:
            UnfamiliarError: it has something that this package does not write.
        """
        if not self._skeleton:
            raise UnfamiliarError("nothing that was read, or too much")
        letters = sum(len(info.path) for info in self.record.tensors)
        return tensors_in(self._skeleton, self._block, letters)


def _runs(infos: Sequence[TensorInfo]) -> Iterator[Run]:
    run: Run = []
    for info in sorted(infos, key=operator.attrgetter("offset")):
        near = run and 0 <= (info.offset or 0) - _end(run[-1]) <= _NEAR
        if run and not (near and _end(info) - (run[0].offset or 0) <= _TOGETHER):
            yield run
            run = []
        run.append(info)
    if run:
        yield run


def _told(runs: Iterable[Run], read: Iterable[_Arrays]) -> Iterator[_Arrays]:
    for run, arrays in zip(runs, read, strict=True):
        advance(_end(run[-1]) - (run[0].offset or 0))
        yield arrays


def _end(info: TensorInfo) -> int:
    return (info.offset or 0) + info.nbytes


def _has_place(info: TensorInfo) -> bool:
    return info.offset is not None and info.nbytes == _nbytes(info)


def _nbytes(info: TensorInfo) -> int:
    return math.prod(info.shape) * numpy_dtype(info.dtype).itemsize


def _empty(info: TensorInfo) -> np.ndarray[Any, Any] | None:
    """Return a tensor that takes no bytes in the file, `None` if it ought to."""
    array = np.empty(info.shape, numpy_dtype(info.dtype))
    return array if digest_of(raw_bytes(array)) == info.digest else None


def _shaped(data: np.ndarray[Any, Any], info: TensorInfo) -> np.ndarray[Any, Any]:
    return data.view(numpy_dtype(info.dtype)).reshape(info.shape)

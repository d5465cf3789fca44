"""Read the tensors of a TensorFlow checkpoint by key, without TensorFlow.

`run/ckpt-3` consists of `run/ckpt-3.index`, a table with the dtype, shape, position and checksum of
each tensor, and `run/ckpt-3.data-00000-of-00001` with the bytes. The files may be untrusted: sizes
are compared with the files before memory is allocated. TensorFlow's own reader is not used, because
some damaged files make it abort the process.

Source: TensorFlow's `tensor_bundle.proto`, `tensor_bundle.h` and `types.proto`.
"""

from __future__ import annotations

import errno
import math
import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np

from keras_ckpt_tools.errors import (
    ArtefactKindError,
    CkptError,
    DamagedArtefactError,
    OverBudgetError,
)
from keras_ckpt_tools.formats.common.dtypes import numpy_dtype
from keras_ckpt_tools.formats.common.extents import aligned_memory
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.common.safe_open import open_regular, read_all
from keras_ckpt_tools.formats.hdf5.window import pread_into
from keras_ckpt_tools.formats.tensorflow.prefixes import damaged, listed, missing
from keras_ckpt_tools.formats.tensorflow.protobuf import fields, read_varint, signed
from keras_ckpt_tools.formats.tensorflow.sstable import mask, read_table
from keras_ckpt_tools.metadata import TensorInfo

# Numbers of `types.proto`.
DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
}
STRING = 7
_LITTLE_ENDIAN = 0
_MOST_DIMENSIONS = 32  # NumPy's before 2.0; TensorFlow's own limit is 254.
_CHUNK = 1 << 24


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of one tensor.

    Attributes:
        dtype: Its number in `types.proto`.
        shape: Its dimensions.
        shard: Which of the data files it is in.
        offset: Where it begins there.
        size: Bytes.
        crc: Their masked CRC-32C.
        sliced: Whether it is in pieces, as variables of TensorFlow 1 that were partitioned are.
    """

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    sliced: bool = False


class Bundle:
    """The tensors of a TensorFlow checkpoint, by key.

    Args:
        prefix: `"run/ckpt-3"`.
        limits: What it may take. Default: what this machine can hold.

    Attributes:
        path: The prefix.
        tensors: Every tensor that is an array, by key.
        entries: What the index says of each, those that are no arrays included.

    Raises:
        ArtefactNotFoundError: there is no such checkpoint; names what there is.
        DamagedArtefactError: it is incomplete.
        OverBudgetError: it takes more than it may.
    """

    def __init__(self, prefix: str, limits: Limits | None = None):
        self.path = prefix
        self._limits = limits or Limits.of()
        try:
            shards, self.entries = _read_index(_whole_index(prefix, self._limits), self._limits)
            self._shards = self._open(shards)
            self._check_extents()
        except CkptError:
            raise
        except ValueError as error:
            raise damaged(prefix, str(error)) from error
        self.tensors = {
            key: TensorInfo(key, e.shape, DTYPES[e.dtype], e.offset, e.size)
            for key, e in self.entries.items()
            if e.dtype in DTYPES
        }

    def _open(self, shards: int) -> list[int]:
        names = [f"{self.path}.data-{n:05d}-of-{shards:05d}" for n in range(shards)]
        descriptors: list[int] = []
        weakref.finalize(self, _close, descriptors)
        gone = []
        for name in names:
            try:
                descriptor = open_regular(name)
            except FileNotFoundError:
                descriptor = None
            except OSError as error:
                raise damaged(self.path, f"{os.path.basename(name)}: {error.strerror}") from error
            if descriptor is None:
                gone.append(os.path.basename(name))
            else:
                descriptors.append(descriptor)
        if gone:
            there = listed(self.path)
            raise DamagedArtefactError(
                "The TensorFlow checkpoint is incomplete: it has an index, but these data files "
                f"are missing: {', '.join(gone)}. The directory contains: {there}.",
                received=f"path={self.path!r}",
                how=f"of its data these files are not there: {', '.join(gone)}",
                remedy="Copy them to the directory of the index; all files that begin "
                f"with {os.path.basename(self.path) + '.'!r} belong together.",
                path=self.path,
            )
        return descriptors

    def _check_extents(self) -> None:
        sizes = [os.fstat(descriptor).st_size for descriptor in self._shards]
        if (needed := sum(e.size for e in self.entries.values())) > self._limits.max_bytes:
            allowed = self._limits.max_bytes
            raise over_budget(self.path, "its tensors take", "max_bytes", needed, allowed)
        end, shard = 0, 0
        for e in sorted(self.entries.values(), key=lambda e: (e.shard, e.offset, e.size)):
            if e.sliced:
                continue
            if e.shard >= len(sizes) or e.offset + e.size > sizes[e.shard]:
                raise ValueError("its data ends before its last tensor does")
            if e.shard == shard and e.offset < end:
                raise ValueError("two of its tensors overlap")
            end, shard = e.offset + e.size, e.shard
            if e.dtype in DTYPES:
                itemsize = numpy_dtype(DTYPES[e.dtype]).itemsize
                # An axis of no length hides what the others multiply to, and NumPy looks at these.
                if math.prod(n for n in e.shape if n) * itemsize >= 1 << 62:
                    raise ValueError("a shape in its index is larger than any array")
                expected = math.prod(e.shape) * itemsize
                if expected != e.size:
                    raise ValueError("a tensor has other bytes than its shape needs")

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by key, each checked.

        Raises:
            DamagedArtefactError: bytes have changed or are missing.
            ArtefactKindError: one is stored in pieces.
        """
        return {key: self._read(key) for key in paths}

    def _read(self, key: str) -> np.ndarray[Any, Any]:
        entry = self.entries[key]
        if entry.sliced:
            raise ArtefactKindError(
                f"The tensor {key!r} is a partitioned variable, stored in pieces; these are "
                "not supported.",
                received=f"path={self.path!r}",
                remedy=f"Read it with `tf.train.load_variable({self.path!r}, {key!r})`, or leave "
                "it out.",
                path=self.path,
                kind="TensorFlow checkpoint",
            )
        memory = aligned_memory(entry.size)
        at = 0
        while at < entry.size:
            part = memoryview(memory.data)[at : at + _CHUNK]
            got = pread_into(self._shards[entry.shard], part, entry.offset + at)
            if not got:
                raise damaged(self.path, f"{key!r} ends before its end")
            at += got
        dtype = numpy_dtype(DTYPES[entry.dtype])
        changed = mask(google_crc32c.value(memory)) != entry.crc
        if changed or (dtype.kind == "b" and memory.size and memory.max() > 1):
            raise damaged(self.path, f"the bytes of {key!r} have changed")
        return memory.view(dtype).reshape(entry.shape)

    def read_text(self, key: str) -> bytes:
        """Return a tensor that is one string.

        Raises:
            DamagedArtefactError: it is none, or its bytes have changed.
        """
        entry = self.entries[key]
        try:
            return self._text(entry)
        except CkptError:
            raise
        except ValueError as error:
            raise damaged(self.path, f"{key!r} cannot be read: {error}") from error

    def _text(self, entry: Entry) -> bytes:
        if entry.dtype != STRING or entry.shape:
            raise ValueError("it is not one string")
        if entry.size > self._limits.json_bytes:
            raise over_budget(
                self.path, "a text in it has", "json_bytes", entry.size, self._limits.json_bytes
            )
        data = os.pread(self._shards[entry.shard], entry.size, entry.offset)
        length, at = read_varint(data, 0)
        if at + 4 + length != len(data):
            raise ValueError("it is cut off")
        # The checksum begins with the length as a number of fixed width.
        width = 4 if length < 1 << 32 else 8
        crc = google_crc32c.value(length.to_bytes(width, "little"))
        crc = google_crc32c.extend(crc, data[at:])
        if mask(crc) != entry.crc:
            raise ValueError("its bytes have changed")
        return data[at + 4 :]

    def problems(self) -> Iterator[str]:
        """Read every tensor, and yield what is wrong, as sentences."""
        for key, entry in self.entries.items():
            if entry.sliced or (entry.dtype not in DTYPES and entry.dtype != STRING):
                continue
            try:
                if entry.dtype in DTYPES:
                    self._read(key)
                elif not entry.shape:
                    self._text(entry)
            except OverBudgetError:
                raise
            except (ValueError, OSError) as error:
                yield str(getattr(error, "what", error))


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _whole_index(prefix: str, limits: Limits) -> bytes:
    name = f"{prefix}.index"
    try:
        descriptor = open_regular(name)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise damaged(prefix, error.strerror or str(error)) from error
        raise missing(prefix) from error
    if descriptor is None:
        raise damaged(prefix, "its index is no regular file")
    data = read_all(descriptor, limits.json_bytes)
    if len(data) > limits.json_bytes:
        raise over_budget(prefix, "its index has", "json_bytes", len(data), limits.json_bytes)
    return data


def _read_index(data: bytes, limits: Limits) -> tuple[int, dict[str, Entry]]:
    table = read_table(data, limits.objects)
    key, header = next(table, (b"-", b""))
    if key:
        raise ValueError("its index has no header")
    said = {number: signed(value) for number, value in fields(header)}
    shards = said.get(1, 0)
    if said.get(2, 0) != _LITTLE_ENDIAN:
        raise ValueError("its numbers have the byte order of another machine")
    if not 0 < shards <= limits.members:
        raise ValueError(f"by its index it has {shards} data files")
    # What begins with a zero byte is a piece of a tensor that has an entry of its own.
    return shards, {k.decode(): _entry(v) for k, v in table if not k.startswith(b"\0")}


def _entry(data: bytes) -> Entry:
    said: dict[int, Any] = dict(fields(data))
    sliced = 7 in said
    numbers = [signed(said.get(n, 0)) for n in (1, 3, 4, 5)]
    shape = tuple(_dimensions(said.get(2, b"")))
    if min(numbers) < 0 or len(shape) > _MOST_DIMENSIONS:
        raise ValueError("an entry of its index has negative numbers, or too many axes")
    dtype, shard, offset, size = numbers
    crc = said.get(6, 0)
    return Entry(dtype, shape, shard, offset, size, crc if isinstance(crc, int) else 0, sliced)


def _dimensions(shape: int | bytes) -> Iterator[int]:
    if isinstance(shape, int):
        raise ValueError("a shape in its index is none")
    for number, value in fields(shape):
        if number == 2 and isinstance(value, bytes):
            size = signed(dict(fields(value)).get(1, 0))
            if size < 0:
                raise ValueError("a shape in its index is not known")
            yield size

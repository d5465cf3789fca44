"""Read and write the index of a TensorFlow checkpoint: a sorted table of keys and values.

It is a LevelDB table: blocks of entries, an index of the blocks, a footer. Each block ends with a
byte for its compression, which TensorFlow does not use here, and a checksum. Sizes are compared
with limits, because a malicious file can declare a key of a megabyte that is repeated half a
million times.

Source: LevelDB's `doc/table_format.md`; TensorFlow's `tensor_bundle.cc` turns compression off.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import google_crc32c

from keras_ckpt_tools.formats.tensorflow.protobuf import read_varint, varint

_FOOTER = 48
_TRAILER = 5
_MAGIC = 0xDB4775248B80FB57
_BLOCK = 1 << 18
_LONGEST_KEY = 1 << 16


def masked_crc(*parts: bytes) -> int:
    """Return the CRC-32C of bytes as these files store it: turned, and with a constant added.

    >>> hex(masked_crc(b"123", b"456789"))
    '0xc78ab0e5'
    """
    value = 0
    for part in parts:
        value = google_crc32c.extend(value, part)
    return mask(value)


def mask(crc: int) -> int:
    """Return a CRC-32C as these files store it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_table(data: bytes, most_entries: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table.

    Raises:
        ValueError: the bytes are none, or are damaged; says how.
    """
    if len(data) < _FOOTER or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise ValueError("the end of its index is not there")
    footer = data[-_FOOTER:]
    _, at = _handle(footer, 0)
    index, _ = _handle(footer, at)
    last: bytes | None = None
    count = letters = size = 0
    for _, value in _entries(_block(data, index)):
        block = _block(data, _handle(value, 0)[0])
        size += len(block) + _TRAILER
        if size > len(data):
            # Many may name one block, and each time it would be read.
            raise ValueError("the parts of its index are longer than it is")
        for key, found in _entries(block):
            if last is not None and key <= last:
                raise ValueError("the keys of its index are not in order")
            last = key
            count += 1
            letters += len(key)
            if count > most_entries or letters > 16 * len(data) + _LONGEST_KEY:
                raise ValueError("its index has more entries than any model's")
            yield key, found


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _block(data: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise ValueError("a part of its index lies outside of it")
    if data[end]:
        raise ValueError("its index is compressed, as TensorFlow never does")
    if int.from_bytes(data[end + 1 : end + _TRAILER], "little") != masked_crc(
        data[offset : end + 1]
    ):
        raise ValueError("the bytes of its index have changed")
    return data[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if len(block) < 4 or end < 0:
        raise ValueError("a part of its index has no end")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or shared + own > _LONGEST_KEY or at + own + length > end:
            raise ValueError("an entry of its index is longer than it can be")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def write_table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a table of entries, which are given in the order of their keys."""
    file = bytearray()
    index: list[tuple[bytes, bytes]] = []
    pending: list[tuple[bytes, bytes]] = []
    size = 0

    def add(block: bytes) -> bytes:
        handle = varint(len(file)) + varint(len(block))
        file.extend(block + b"\0" + struct.pack("<I", masked_crc(block, b"\0")))
        return handle

    for key, value in entries:
        pending.append((key, value))
        size += len(key) + len(value)
        if size >= _BLOCK:
            index.append((key, add(_made_of(pending))))
            pending, size = [], 0
    if pending:
        index.append((pending[-1][0], add(_made_of(pending))))
    handles = add(_made_of([])) + add(_made_of(index))
    return bytes(file) + handles.ljust(_FOOTER - 8, b"\0") + struct.pack("<Q", _MAGIC)


def _made_of(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Return a block; it has complete keys, so reading can begin at every entry."""
    block = bytearray()
    restarts = []
    for key, value in entries:
        restarts.append(len(block))
        block += b"\0" + varint(len(key)) + varint(len(value)) + key + value
    restarts = restarts or [0]
    return bytes(block) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))

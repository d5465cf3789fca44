"""Read and write the record in front of an HDF5 file.

In HDF5, the bytes before the superblock are free (the "user block"; its length is a power of two
from 512 up), and every HDF5 reader skips them. The record is stored there. So a plain Keras weights
file describes its content, with the position and digest of every tensor, and reading this takes
only `json` and `pread`:

    offset  length  what
    0       8       magic: 93 4B 43 54 0D 0A 1A 0A
    8       8       version of this header, 1 (all integers little-endian, unsigned)
    16      8       length of the user block
    24      8       length of the JSON
    32      16      XXH3 (128 bits, canonical byte order) of bytes 0 to 31 and the JSON
    48      ...     the record: one JSON object in UTF-8
    ...     ...     zeros, up to the length of the user block

It is not an HDF5 attribute, because the record must be readable without libhdf5, and is written
last, when all digests are known, without moving anything. Like PNG's, the magic changes if a
transfer converts line ends.

Source: the HDF5 File Format Specification, section II.A (the superblock may begin at 0, 512, 1024,
2048, ... and "the space before it is a user block").
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import xxhash

from keras_ckpt_tools.errors import CkptError, NewerFormatError, damaged
from keras_ckpt_tools.formats.common.bounded_json import loads
from keras_ckpt_tools.formats.record.tensor_table import TensorTable
from keras_ckpt_tools.formats.record.validation import check_types
from keras_ckpt_tools.metadata import FORMAT_VERSION, Record

MAGIC = b"\x93KCT\r\n\x1a\n"
HEADER_VERSION = 1
_NO_TENSORS = b',"tensors":[]'
_HDF5 = b"\x89HDF\r\n\x1a\n"
DIGEST_BYTES = 16

_HEADER = struct.Struct("<8sQQQ")
_START = _HEADER.size + DIGEST_BYTES
_MIN_BLOCK = 512
# A record of 6,000 tensors takes about 1.5 MB; this bounds what a damaged length can ask for.
_MAX_BLOCK = 1 << 28
_MAX_NODES = 20_000_000

T = TypeVar("T")

ReadAt = Callable[[int, int], bytes]
"""`read(offset, length)`: that many bytes of the HDF5 file, or fewer at its end."""


def read_at(data: bytes) -> ReadAt:
    """Return a reader of bytes that are in memory already.

    >>> read_at(b"abcdef")(2, 3)
    b'cde'
    """
    return lambda offset, length: data[offset : offset + length]


def digest_of(*parts: Any) -> str:
    """Return the XXH3 (128 bits) of buffers, taken one after another, in hexadecimal.

    >>> digest_of(b"ab", b"c") == digest_of(b"abc")
    True
    """
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def encode_json(record: Record) -> bytes:
    """Return the JSON of a record, as it stands in the file."""
    table = record.tensors
    if not isinstance(table, TensorTable):
        return _dumps(record)
    # Its JSON is made already, and behind it there are only numbers and a digest.
    front, key, back = _dumps(replace(record, tensors=())).rpartition(_NO_TENSORS)
    return b"".join((front, key.removesuffix(b"[]"), table.json().encode(), back))


def _dumps(record: Record) -> bytes:
    return json.dumps(record.to_json(), separators=(",", ":"), allow_nan=False).encode()


def block_size(json_bytes: int) -> int:
    """Return the length of the user block that holds a JSON of that many bytes.

    >>> block_size(100), block_size(5000)
    (512, 8192)
    """
    size = _MIN_BLOCK
    while size < _START + json_bytes:
        size *= 2
    return size


def encode(record: Record, size: int) -> bytes:
    """Return the user block of `size` bytes with the record in it.

    Raises:
        OverflowError: the record does not fit; lay the file out again with a larger block.
    """
    body = encode_json(record)
    if _START + len(body) > size:
        raise OverflowError(f"a record of {len(body)} bytes does not fit a block of {size}")
    header = _HEADER.pack(MAGIC, HEADER_VERSION, size, len(body))
    digest = xxhash.xxh3_128_digest(header + body)
    return (header + digest + body).ljust(size, b"\0")


def decode(read: ReadAt, path: str) -> tuple[Record, int] | None:
    """Read the record in front of an HDF5 file.

    Args:
        read: Reads bytes of the HDF5 file, counted from its start.
        path: Name of the file, for messages.

    Returns:
        The record and the length of the user block, or `None` if there is no record.

    Raises:
        DamagedArtefactError: there is one, and its bytes have changed.
        NewerFormatError: a later version of the package wrote it.
    """
    found = read_json(read, path)
    return None if found is None else (parse(found[0], path, _parsed), found[1])


def read_json(read: ReadAt, path: str) -> tuple[bytes, int] | None:
    """Read the JSON of a record, checked against its digest, and the length of the user block.

    What it returns and raises is that of `decode`.
    """
    header = read(0, _START)
    if len(header) < _START:
        if header[: len(MAGIC)] != MAGIC:
            return None
        raise damaged(path, f"it ends after {len(header)} bytes, within its record's header")
    magic, version, size, length = _HEADER.unpack_from(header)
    if magic != MAGIC:
        # Treating a file of this package as third-party would skip every check.
        if version == HEADER_VERSION and read(size, len(_HDF5)) == _HDF5:
            raise damaged(path, "the first bytes of its record have changed")
        return None
    if version > HEADER_VERSION:
        raise _newer(path, version, HEADER_VERSION)
    if not _MIN_BLOCK <= size <= _MAX_BLOCK or size & (size - 1) or _START + length > size:
        raise damaged(path, "the lengths in its record's header contradict each other")
    body = read(_START, size - _START)
    if len(body) < size - _START:
        raise damaged(path, f"it ends after {_START + len(body)} of {size} bytes of its record")
    digest = xxhash.xxh3_128_digest(header[: _HEADER.size] + body[:length])
    if digest != header[_HEADER.size :] or not body.endswith(bytes(len(body) - length)):
        raise damaged(path, "the bytes of its record have changed")
    return body[:length], size


def parse(body: bytes, path: str, parser: Callable[[bytes], tuple[int, T | None]]) -> T:
    """Parse the JSON of a record.

    Args:
        body: The JSON.
        path: Name of the file, for messages.
        parser: Returns its format version, and what it says; `None` where the version is a later
            one.

    Raises:
        DamagedArtefactError: it is no record.
        NewerFormatError: a later version of the package wrote it.
    """
    try:
        found, record = parser(body)
    except CkptError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(path, f"its record is invalid ({type(error).__name__}: {error})") from error
    if record is None:
        raise _newer(path, found, FORMAT_VERSION)
    return record


def values_of(body: bytes) -> Any:
    """Return the values in the JSON of a record.

    Raises:
        ValueError: it is no JSON, has a name twice in one object, or too many values.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > _MAX_NODES:
        raise ValueError("it has more values than any model's")
    return loads(body)


@functools.lru_cache(maxsize=2)
def _parsed(body: bytes) -> tuple[int, Record | None]:
    # Who opens a file has looked at it just before, and the record of a large model is long.
    data = values_of(body)
    found = data.get("format_version", 0)
    if found > FORMAT_VERSION:
        return found, None
    record = Record.from_json(data)
    check_types(record)
    return found, record


def _newer(path: str, found: int, supported: int) -> NewerFormatError:
    return NewerFormatError(
        f"The file was written by a later keras_ckpt_tools: its record has version {found}, "
        f"this one reads up to {supported}.",
        received=f"path={path!r}",
        remedy="Run `pip install --upgrade keras_ckpt_tools`.",
        path=path,
        found=found,
        supported=supported,
    )

"""Write a zip of uncompressed members without copying the large one.

`zipfile` computes each checksum with zlib, in one thread, and for a large model this took as long
as writing to the disk; another function cannot be passed. `isal` computes the same checksum five
times as fast. A zip without compression, encryption and several disks consists of three kinds of
records.

Source: the ZIP APPNOTE, sections 4.3.7 (local header), 4.3.12 (table of contents), 4.3.14 to 4.3.16
(the end), 4.5.3 (zip64).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

try:
    from isal.isal_zlib import crc32
except ImportError:  # No wheel for this machine.
    from zlib import crc32

from keras_ckpt_tools.formats.keras_zip.records import (
    ELSEWHERE,
    END,
    END_64,
    END_64_MARK,
    END_MARK,
    ENTRY,
    ENTRY_MARK,
    LOCAL,
    LOCAL_MARK,
    LOCATOR_64,
    LOCATOR_64_MARK,
    MANY,
)

_VERSION, _VERSION_64 = 20, 45
_UNIX = 3
_MODE = 0o600 << 16
_UTF_8 = 0x800
# What does not fit into 32 bits stands in a field apart. Readers of Java's take 31.
_LARGE = 0x7FFFFFFF
_MOST_ENTRIES = 0xFFFE

ALIGNMENT = 4096
"""Where the data of a large member begins is a multiple of this: a page of memory and of a file,
which the operating system copies in one go."""
# The field for this that Android's archives have: its number, its length, the alignment, zeros.
_FIELD = struct.Struct("<3H")
_PADS = 0xD935


@dataclass
class Member:
    """One member, as far as it is written.

    Attributes:
        name: Its name in the archive.
        offset: Where its local header begins.
        start: Where its data begins.
        size: Bytes of its data.
        checksum: CRC-32 of these.
    """

    name: str
    offset: int
    start: int = 0
    size: int = 0
    checksum: int = 0

    @property
    def end(self) -> int:
        """Where its data ends."""
        return self.start + self.size


class StoredZip:
    """An archive that is written from its first byte to its last.

    Args:
        file: An empty file, open for writing. Large buffers are handed to it as they are.

    Example:

    >>> import io, zipfile
    >>> file = io.BytesIO()
    >>> archive = StoredZip(file)
    >>> archive.add("greeting.txt", b"hello")
    >>> archive.finish(b"")
    >>> zipfile.ZipFile(file).read("greeting.txt")
    b'hello'
    """

    def __init__(self, file: BinaryIO | Any):
        self._file = file
        self._members: list[Member] = []
        self._end = 0
        self._moment = _dos_time(time.localtime())

    def add(self, name: str, data: bytes) -> None:
        """Add a member of which all is known."""
        member = Member(name, self._end, 0, len(data), crc32(data))
        header = self._header(member, large=len(data) > _LARGE)
        member.start = self._end + len(header)
        self._file.write(header + data)
        self._members.append(member)
        self._end = member.end

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[Member, Callable[[Any], None]]]:
        """Add a member piece by piece; give it, and what takes its bytes."""
        member = Member(name, self._end)
        header = self._header(member, large=True)
        member.start = self._end + len(header)
        self._file.write(header)

        def write(data: Any) -> None:
            view = memoryview(data).cast("B") if len(data) else memoryview(b"")
            member.checksum = crc32(view, member.checksum)
            member.size += len(view)
            self._file.write(view)

        yield member, write
        self._file.seek(member.offset)
        self._file.write(self._header(member, large=True))
        self._file.seek(member.end)
        self._members.append(member)
        self._end = member.end

    def finish(self, comment: bytes) -> None:
        """Write the table of contents, and the end with a comment."""
        table = b"".join(self._entry(member) for member in self._members)
        count, size, place = len(self._members), len(table), self._end
        end = b""
        if count > _MOST_ENTRIES or place > _LARGE:
            end = END_64.pack(
                END_64_MARK, 44, _VERSION_64, _VERSION_64, 0, 0, count, count, size, place
            )
            end += LOCATOR_64.pack(LOCATOR_64_MARK, 0, place + size, 1)
            count, place = MANY if count > _MOST_ENTRIES else count, ELSEWHERE
        end += END.pack(END_MARK, 0, 0, count, count, size, place, len(comment))
        self._file.write(table + end + comment)

    def _header(self, member: Member, *, large: bool) -> bytes:
        name, flags = _encoded(member.name)
        extra, size = b"", member.size
        if large:
            extra, size = struct.pack("<2H2Q", 1, 16, member.size, member.size), ELSEWHERE
            extra += _padding(member.offset + LOCAL.size + len(name) + len(extra))
        version = _VERSION_64 if large else _VERSION
        head = (LOCAL_MARK, version, flags, 0, *self._moment, member.checksum, size, size)
        return LOCAL.pack(*head, len(name), len(extra)) + name + extra

    def _entry(self, member: Member) -> bytes:
        name, flags = _encoded(member.name)
        size, place = member.size, member.offset
        elsewhere: list[int] = []
        if size > _LARGE:
            elsewhere += [size, size]
            size = ELSEWHERE
        if place > _LARGE:
            elsewhere.append(place)
            place = ELSEWHERE
        extra = b""
        if elsewhere:
            extra = struct.pack(f"<2H{len(elsewhere)}Q", 1, 8 * len(elsewhere), *elsewhere)
        version = _VERSION_64 if extra else _VERSION
        head = (ENTRY_MARK, _UNIX << 8 | version, version, flags, 0, *self._moment)
        sizes = (member.checksum, size, size, len(name), len(extra), 0, 0, 0, _MODE, place)
        return ENTRY.pack(*head, *sizes) + name + extra


def _padding(begin: int) -> bytes:
    """Return a field after which data that would begin behind it is aligned."""
    room = -(begin + _FIELD.size) % ALIGNMENT
    return _FIELD.pack(_PADS, 2 + room, ALIGNMENT) + bytes(room)


def _encoded(name: str) -> tuple[bytes, int]:
    return (name.encode(), 0) if name.isascii() else (name.encode(), _UTF_8)


def _dos_time(moment: time.struct_time) -> tuple[int, int]:
    day = max(moment.tm_year - 1980, 0) << 9 | moment.tm_mon << 5 | moment.tm_mday
    return moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2, day

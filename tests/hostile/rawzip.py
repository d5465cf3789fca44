"""Writes zips in which any field may lie; `zipfile` would not.

Source: the ZIP APPNOTE, sections 4.3.7 (local headers), 4.3.12 (directory) and 4.3.16 (end).
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

STORED, DEFLATED = 0, 8


@dataclass
class Member:
    """One member; what is `None` is what it should be.

    Attributes:
        name: In the directory.
        data: The bytes in the archive, packed already if `method` says so.
        method: How they are packed.
        size: Bytes once unpacked.
        packed: Bytes in the archive.
        crc: Checksum.
        flags: Bit 0 says encrypted.
        mode: Unix type and rights.
        extra: Extra field of the directory.
        local_name: Its name in the local header.
        local_size: Its size there.
        offset: Where the directory says that it is; then nothing is written for it.
    """

    name: bytes
    data: bytes = b""
    method: int = STORED
    size: int | None = None
    packed: int | None = None
    crc: int | None = None
    flags: int = 0
    mode: int = 0o100644
    extra: bytes = b""
    local_name: bytes | None = None
    local_size: int | None = None
    offset: int | None = None

    def facts(self, size: int | None = None) -> tuple[int, int, int]:
        """Return checksum, packed size and size."""
        length = len(self.data)
        real = length if self.size is None else self.size
        return (
            zlib.crc32(self.data) if self.crc is None else self.crc,
            (length if self.packed is None else self.packed) if size is None else size,
            real if size is None else size,
        )


def plain(content: Mapping[str, bytes]) -> list[Member]:
    """Return members that tell the truth."""
    return [Member(name.encode(), data) for name, data in content.items()]


def raw_zip(
    entries: Iterable[Member], count: int | None = None, comment: bytes = b"", base: int = 0
) -> bytes:
    """Return the archive; `base` is what all offsets are too high by."""
    body, entry_bytes, number = bytearray(), bytearray(), 0
    for member in entries:
        place = len(body) + base if member.offset is None else member.offset
        if member.offset is None:
            name = member.name if member.local_name is None else member.local_name
            body += struct.pack("<4sHHHHH", b"PK\x03\x04", 20, member.flags, member.method, 0, 33)
            body += struct.pack("<III", *member.facts(member.local_size))
            body += struct.pack("<HH", len(name), 0) + name + member.data
        entry_bytes += struct.pack("<4sHHHHHH", b"PK\x01\x02", 788, 20, member.flags,
                                   member.method, 0, 33)  # fmt: skip
        entry_bytes += struct.pack("<III", *member.facts())
        sizes = (len(member.name), len(member.extra), 0, 0, 0, member.mode << 16, place)
        entry_bytes += struct.pack("<HHHHHII", *sizes) + member.name + member.extra
        number += 1
    counted = number if count is None else count
    end = (0, 0, counted, counted, len(entry_bytes), len(body) + base, len(comment))
    return bytes(body + entry_bytes) + struct.pack("<4sHHHHIIH", b"PK\x05\x06", *end) + comment


@functools.lru_cache(maxsize=2)
def bomb(megabytes: int, head: bytes = b"", tail: bytes = b"") -> dict[str, Any]:
    """Return the facts of a member that unpacks to that many megabytes of blanks."""
    block = b" " * (1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.compress(tail) + packer.flush()
    crc = zlib.crc32(head)
    for _ in range(megabytes):
        crc = zlib.crc32(block, crc)
    return {
        "data": start + middle * megabytes + end,
        "method": DEFLATED,
        "size": len(head) + (megabytes << 20) + len(tail),
        "crc": zlib.crc32(tail, crc),
    }

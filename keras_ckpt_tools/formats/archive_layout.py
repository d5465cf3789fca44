"""Hold what a zip says in one place against what it says in another: headers -> *contradictions*.

A member has a header in front of it and an entry in the table of contents, and the table has an end
record. Readers differ in which of them they believe, and in where they begin to read; so a file in
which they differ is two files. Nor may there be bytes that no member, header or table covers: a
second archive fits into them, or a program.

Source: the ZIP APPNOTE, sections 4.3.7 (headers), 4.3.9 (data descriptors), 4.3.16 (end record).
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterable

__all__ = ["contradictions"]

_LOCAL = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_END_64 = 56 + 20
_DESCRIPTOR = 24
_UNKNOWN = 0xFFFFFFFF


def contradictions(descriptor: int, archive: zipfile.ZipFile) -> list[str]:
    """Return what is wrong with where things are in an open zip, as sentences."""
    size = os.fstat(descriptor).st_size
    end, last, described = 0, "", False
    problems = []
    for member in sorted(archive.infolist(), key=lambda m: m.header_offset):
        inside = 0 <= member.header_offset < size
        raw = os.pread(descriptor, _LOCAL.size, member.header_offset) if inside else b""
        if len(raw) < _LOCAL.size:
            problems.append(f"its member {member.filename!r} begins outside the file")
            continue
        _, _, flags, method, _, _, crc, packed, length, names, extra = _LOCAL.unpack(raw)
        start = member.header_offset + _LOCAL.size
        name = os.pread(descriptor, names, start)
        if name.decode("utf-8" if flags & 0x800 else "cp437", "replace") != member.orig_filename:
            problems.append(f"its member {member.filename!r} is called otherwise at its place")
        in_table = (member.compress_type, member.CRC, member.compress_size, member.file_size)
        # A writer that cannot go back gives lengths behind the data, and zip64 in a field apart.
        if not flags & 8 and not _agree((method, crc, packed, length), in_table):
            problems.append(f"its member {member.filename!r} is described in two ways that differ")
        if member.header_offset < end:
            problems.append(f"its members {last!r} and {member.filename!r} overlap")
        elif member.header_offset > end + (_DESCRIPTOR if described else 0):
            problems.append(f"there are bytes in front of {member.filename!r} that are no member's")
        stop = start + names + extra + member.compress_size
        if stop > size:
            problems.append(f"its member {member.filename!r} ends outside the file")
        if stop > end:
            end, last, described = stop, member.filename, bool(flags & 8)
    table = archive.start_dir
    if table < end or table > end + (_DESCRIPTOR if described else 0):
        problems.append("there are bytes in front of its table of contents that are no member's")
    return problems + _at_the_end(descriptor, archive, size)


def _agree(here: Iterable[int], there: Iterable[int]) -> bool:
    return all(a in (b, _UNKNOWN) for a, b in zip(here, there, strict=True))


def _at_the_end(descriptor: int, archive: zipfile.ZipFile, size: int) -> list[str]:
    """Hold the end record against the table that it ends, and against the end of the file."""
    place = size - _END.size - len(archive.comment)
    raw = os.pread(descriptor, _END.size, max(place, 0))
    if len(raw) < _END.size or not raw.startswith(b"PK\x05\x06"):
        return ["there are bytes behind its end"]
    _, _, _, _, count, length, _, comment = _END.unpack(raw)
    if comment != len(archive.comment):
        return ["there are bytes behind its end"]
    found = len(archive.infolist())
    if count not in (found, 0xFFFF):
        return [f"it says that it has {count} members, and has {found}"]
    between = place - archive.start_dir - length
    if length != _UNKNOWN and between not in (0, _END_64):
        return ["there are bytes between its table of contents and its end"]
    if b"PK\x05\x06" in archive.comment:
        return ["its comment has a second end of an archive in it"]
    return []

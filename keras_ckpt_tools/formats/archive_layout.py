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
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["EndRecord", "contradictions", "end_record"]

_LOCAL = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_LOCATOR_64 = struct.Struct("<4sIQI")
_RECORD_64 = struct.Struct("<4sQ2H2I4Q")
_END_64 = _RECORD_64.size + _LOCATOR_64.size
_MARK = b"PK\x05\x06"
# Where to look for the end record: within a comment like ours, then within the longest.
_TAILS = (256, _END.size + 0xFFFF)
_DESCRIPTOR = 24
_UNKNOWN = 0xFFFFFFFF
_SHOWN = 100


class EndRecord(NamedTuple):
    """What the records at the end of a zip say of its table of contents.

    Attributes:
        members: How many there are.
        length: Bytes of the table.
        offset: Where it begins.
        comment: What stands behind.
    """

    members: int
    length: int
    offset: int
    comment: bytes


def end_record(descriptor: int) -> EndRecord | None:
    """Return what the end of an open zip says; `None` where no end record is.

    Readers look for its mark from behind, and some take a mark within the record itself for the
    record. So it has to be the one record that ends where the file ends, and the last mark; and
    the second record that large archives have must say the same.

    Raises:
        zipfile.BadZipFile: it can be read in two ways.
    """
    size = os.fstat(descriptor).st_size
    for wanted in _TAILS:
        start = max(size - wanted, 0)
        tail = os.pread(descriptor, size - start, start)
        if (last := tail.rfind(_MARK)) >= 0:
            break
    else:
        return None
    places = [at for at in _places(tail) if _ends_at(tail, at) == len(tail)]
    if not places:
        cut = _ends_at(tail, last) > len(tail) or last > len(tail) - _END.size
        how = f"truncated at {size:,} bytes, within its last ones"
        raise zipfile.BadZipFile(how if cut else "there are bytes behind its end")
    place = places[-1]
    empty = place == len(tail) - _END.size
    if len(places) > 1 or (place != last and not empty):
        raise zipfile.BadZipFile("there are two ends in it")
    *_, count, length, offset, _ = _END.unpack_from(tail, place)
    found = EndRecord(count, length, offset, tail[place + _END.size :])
    at = start + place - _LOCATOR_64.size
    locator = os.pread(descriptor, _LOCATOR_64.size, at) if at >= 0 else b""
    if not locator.startswith(b"PK\x06\x07"):
        return found
    _, disk, there, _ = _LOCATOR_64.unpack(locator)
    record = os.pread(descriptor, _RECORD_64.size, max(at - _RECORD_64.size, 0))
    if disk or there != at - _RECORD_64.size or not record.startswith(b"PK\x06\x06"):
        raise zipfile.BadZipFile("its second end record is not in front of the first")
    *_, here, count, length, offset = _RECORD_64.unpack(record)
    counts = here == count and found.members in (count, 0xFFFF)
    if not counts or not _agree(found[1:3], (length, offset)):
        raise zipfile.BadZipFile("its two end records differ")
    return EndRecord(count, length, offset, found.comment)


def _places(tail: bytes) -> Iterator[int]:
    at = tail.find(_MARK)
    while at >= 0:
        yield at
        at = tail.find(_MARK, at + 1)


def _ends_at(tail: bytes, at: int) -> int:
    if at + _END.size > len(tail):
        return -1
    comment: int = _END.unpack_from(tail, at)[-1]
    return at + _END.size + comment


def contradictions(descriptor: int, archive: zipfile.ZipFile) -> list[str]:
    """Return what is wrong with where things are in an open zip, as sentences."""
    size = os.fstat(descriptor).st_size
    end, last, described = 0, "", False
    problems = []
    for member in sorted(archive.infolist(), key=lambda m: m.header_offset):
        shown = member.filename[:_SHOWN]
        inside = 0 <= member.header_offset < size
        raw = os.pread(descriptor, _LOCAL.size, member.header_offset) if inside else b""
        if len(raw) < _LOCAL.size:
            problems.append(f"its member {shown!r} begins outside the file")
            continue
        _, _, flags, method, _, _, crc, packed, length, names, extra = _LOCAL.unpack(raw)
        if member.header_offset < end:
            problems.append(f"its members {last[:_SHOWN]!r} and {shown!r} overlap")
            continue  # Thousands may name one place, each with a name of 64 kB there.
        if member.header_offset > end + (_DESCRIPTOR if described else 0):
            problems.append(f"there are bytes in front of {shown!r} that are no member's")
        start = member.header_offset + _LOCAL.size
        name = os.pread(descriptor, names, start)
        if name.decode("utf-8" if flags & 0x800 else "cp437", "replace") != member.orig_filename:
            problems.append(f"its member {shown!r} is called otherwise at its place")
        in_table = (member.compress_type, member.CRC, member.compress_size, member.file_size)
        # A writer that cannot go back gives lengths behind the data, and zip64 in a field apart.
        if not flags & 8 and not _agree((method, crc, packed, length), in_table):
            problems.append(f"its member {shown!r} is described in two ways that differ")
        stop = start + names + extra + member.compress_size
        if stop > size:
            problems.append(f"its member {shown!r} ends outside the file")
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

"""Open a zip that somebody else made: descriptor -> *members*, within limits.

A zip says the same thing several times: in its table of contents, before each member, and in the
data itself. Readers differ in what they believe, and a hostile file makes use of that. So the
statements are held against each other before any member is read: names once each and inside the
archive, no links, no two statements about one member that differ (`archive_layout`), nothing that
unpacks to more than it may.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, BinaryIO, NamedTuple

from keras_ckpt_tools.errors import UnsafeArtefactError, damaged
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.keras_zip.seal import WEIGHTS_MEMBER
from keras_ckpt_tools.showing.byte_counts import advance

__all__ = [
    "EndRecord",
    "contradictions",
    "copy_member",
    "end_record",
    "extract",
    "first_bad_member",
    "open_archive",
    "read_member",
]

_CHUNK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SMALL = 1 << 20
_NAME = 255


def open_archive(file: BinaryIO, path: str, limits: Limits) -> zipfile.ZipFile:
    """Open a zip and check all that it says about its members.

    Raises:
        DamagedArtefactError: it contradicts itself.
        UnsafeArtefactError: it has links, or names that lead out of it.
        OverBudgetError: it has too many members, or they unpack to too much.
        zipfile.BadZipFile: it is no zip.
    """
    end = end_record(file.fileno())
    if end is None:
        raise zipfile.BadZipFile("it has no end")
    if end.length > limits.directory_bytes:
        what = "its table of contents takes"
        raise over_budget(path, what, "directory_bytes", end.length, limits.directory_bytes)
    if end.members > limits.members:
        raise over_budget(path, "it has", "members", end.members, limits.members)
    archive = zipfile.ZipFile(file)
    members = archive.infolist()
    if len(members) > limits.members:
        raise over_budget(path, "it has", "members", len(members), limits.members)
    unsafe = [f"{m.filename[:100]!r} {bad}" for m in members if (bad := _unsafe(m))]
    if unsafe:
        raise UnsafeArtefactError(
            f"Refused, because members of the archive lead out of it: {'; '.join(unsafe[:20])}.",
            received=f"path={path!r}",
            remedy="Ask whoever gave it to you for the file as Keras saved it.",
            path=path,
        )
    problems = [*_twins(members), *_wrong(members), *contradictions(file.fileno(), archive)]
    if problems:
        remedy = "Fetch or copy it again, or ask for the file as Keras saved it."
        raise damaged(path, "; ".join(problems[:20]), remedy)
    _hold(members, path, limits)
    return archive


def _unsafe(member: zipfile.ZipInfo) -> str | None:
    # `zipfile` cuts a name off at a zero byte; what stands in the file is in `orig_filename`.
    name = member.orig_filename
    if "\0" in name or "\\" in name or name.startswith("/") or name[1:2] == ":":
        return "has a name that is no path within an archive"
    parts = name.removesuffix("/").split("/")
    if ".." in parts:
        return "names a place outside"
    if "." in parts or "" in parts or not name.isprintable():
        return "has a name that can be read in two ways"
    if any(len(part.encode("utf-8", "replace")) > _NAME for part in parts):
        return "has a name that is too long for a file"
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    return None


def _twins(members: Iterable[zipfile.ZipInfo]) -> list[str]:
    names: set[str] = set()
    twins = []
    for member in members:
        if member.filename in names:
            twins.append(f"two members of the archive have the same name {member.filename[:100]!r}")
        names.add(member.filename)
    return twins


def _wrong(members: Iterable[zipfile.ZipInfo]) -> list[str]:
    problems = []
    for member in members:
        if member.flag_bits & 0x41:
            problems.append(f"its member {member.filename[:100]!r} is encrypted")
        elif member.compress_type not in _METHODS:
            method = member.compress_type
            problems.append(f"its member {member.filename[:100]!r} is packed by method {method}")
        elif not member.compress_type and member.compress_size != member.file_size:
            problems.append(f"its member {member.filename[:100]!r} is stored, and has two lengths")
    return problems


def _hold(members: Iterable[zipfile.ZipInfo], path: str, limits: Limits) -> None:
    total = unpacked = packed = 0
    for member in members:
        total += member.file_size
        # Weights that are all zeros pack as tight as anything can; `max_bytes` bounds them.
        if member.filename == WEIGHTS_MEMBER:
            continue
        allowed = max(member.compress_size * limits.expansion, _SMALL)
        if member.file_size > allowed:
            what = f"its member {member.filename[:100]!r} unpacks to"
            raise over_budget(path, what, "expansion_bytes", member.file_size, allowed)
        unpacked, packed = unpacked + member.file_size, packed + member.compress_size
    # Many small members may expand as far as one large one may not.
    allowed = max(packed * limits.expansion, _SMALL)
    if unpacked > allowed:
        what = "its members beside the weights unpack to"
        raise over_budget(path, what, "expansion_bytes", unpacked, allowed)
    if total > limits.max_bytes:
        raise over_budget(path, "its members unpack to", "max_bytes", total, limits.max_bytes)


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return a member's bytes: no more than it declares, and no more than a limit.

    Raises:
        zipfile.BadZipFile: it has more or fewer, or its checksum is wrong.
    """
    info = archive.getinfo(name)
    if info.file_size > limit:
        raise zipfile.BadZipFile(f"{name} has {info.file_size:,} bytes")
    with archive.open(info) as member:
        data = member.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise zipfile.BadZipFile(f"{name} has not the length that it declares")
    return data


def first_bad_member(archive: zipfile.ZipFile) -> str | None:
    """Return the first member whose checksum is wrong: `testzip`, which also says how far it is."""
    for info in archive.infolist():
        try:
            with archive.open(info) as member:
                while data := member.read(_CHUNK):
                    advance(len(data))
        except zipfile.BadZipFile:
            return info.filename
    return None


def extract(archive: zipfile.ZipFile, names: Iterable[str], directory: str) -> None:
    """Write members into a directory of our own, in pieces.

    Raises:
        zipfile.BadZipFile: a member is not what the archive says.
        OSError: it cannot be written; two names may be one on this file system.
    """
    for name in names:
        place = os.path.join(directory, *name.split("/"))
        if name.endswith("/"):
            os.makedirs(place, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with archive.open(name) as member, open(place, "xb") as file:
            copy_member(member, file)


def copy_member(member: IO[bytes], file: IO[bytes]) -> None:
    """Copy an open member; `zipfile` stops it at the length that it declares."""
    while data := member.read(_CHUNK):
        file.write(data)


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

"""Read an untrusted zip, after strict checks.

A zip contains the same facts several times: in its table of contents, before each member, and in
the data. Readers differ in which they use, and malicious files exploit this. So all are compared
before a member is read: names are unique and stay inside the archive, there are no links, both
descriptions of a member agree, and no member unpacks to more than the limit.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterable
from typing import IO, BinaryIO

from keras_ckpt_tools.errors import UnsafeArtefactError, damaged
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.keras_zip.records import (
    END,
    END_64,
    LOCAL,
    LOCATOR_64,
    EndRecord,
    agree,
    end_record,
)
from keras_ckpt_tools.formats.keras_zip.seal import WEIGHTS_MEMBER
from keras_ckpt_tools.showing.byte_counts import advance

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
            remedy="Get the original file, as Keras saved it, from its source.",
            path=path,
        )
    problems = [*_twins(members), *_wrong(members), *contradictions(file.fileno(), archive, end)]
    if problems:
        remedy = "Fetch or copy it again, or get the original file from its source."
        raise damaged(path, "; ".join(problems[:20]), remedy)
    _hold(members, path, limits)
    return archive


def _unsafe(member: zipfile.ZipInfo) -> str | None:
    # `zipfile` cuts a name off at a zero byte; what stands in the file is in `orig_filename`.
    name = member.orig_filename
    if "\0" in name or "\\" in name or name.startswith("/") or name[1:2] == ":":
        return "has a name that is not a path inside an archive"
    parts = name.removesuffix("/").split("/")
    if ".." in parts:
        return "has a path that leads outside"
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
        what = "its members other than the weights unpack to"
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


_DESCRIPTOR = 24
_SHOWN = 100


def contradictions(descriptor: int, archive: zipfile.ZipFile, stated: EndRecord) -> list[str]:
    """Return what is wrong with where things are in an open zip, as sentences."""
    size = os.fstat(descriptor).st_size
    end, last, described = 0, "", False
    problems = []
    for member in sorted(archive.infolist(), key=lambda m: m.header_offset):
        shown = member.filename[:_SHOWN]
        inside = 0 <= member.header_offset < size
        raw = os.pread(descriptor, LOCAL.size, member.header_offset) if inside else b""
        if len(raw) < LOCAL.size:
            problems.append(f"its member {shown!r} begins outside the file")
            continue
        _, _, flags, method, _, _, crc, packed, length, names, extra = LOCAL.unpack(raw)
        if member.header_offset < end:
            problems.append(f"its members {last[:_SHOWN]!r} and {shown!r} overlap")
            continue  # Thousands may name one place, each with a name of 64 kB there.
        if member.header_offset > end + (_DESCRIPTOR if described else 0):
            problems.append(f"there are bytes in front of {shown!r} that are no member's")
        start = member.header_offset + LOCAL.size
        name = os.pread(descriptor, names, start)
        if name.decode("utf-8" if flags & 0x800 else "cp437", "replace") != member.orig_filename:
            problems.append(f"its member {shown!r} has another name in its local header")
        in_table = (member.compress_type, member.CRC, member.compress_size, member.file_size)
        # A writer that cannot go back gives lengths behind the data, and zip64 in a field apart.
        if not flags & 8 and not agree((method, crc, packed, length), in_table):
            problems.append(f"its member {shown!r} is described in two ways that differ")
        stop = start + names + extra + member.compress_size
        if stop > size:
            problems.append(f"its member {shown!r} ends outside the file")
        if stop > end:
            end, last, described = stop, member.filename, bool(flags & 8)
    table = archive.start_dir
    if table < end or table > end + (_DESCRIPTOR if described else 0):
        problems.append("there are bytes in front of its table of contents that are no member's")
    found = len(archive.infolist())
    if stated.members != found:
        problems.append(f"it says that it has {stated.members} members, and has {found}")
    between = size - END.size - len(stated.comment) - stated.length - table
    if between not in (0, END_64.size + LOCATOR_64.size):
        problems.append("there are bytes between its table of contents and its end")
    return problems

"""Archives whose structure lies: two readers of one such file see two different models."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from hostile.parts import PAYLOAD, hostile, members, node, sequential, weights, written, zipped
from hostile.rawzip import DEFLATED, Member, bomb, plain, raw_zip

_DAMAGED = "damaged"


def _archive(folder: Path, *more: Member, **changes: object) -> Path:
    """Write a good archive with `more` behind its members, and fields of its config changed."""
    entries = plain(members())
    for field, value in changes.items():
        setattr(entries[1], field, value)
    return written(folder / "model.keras", raw_zip([*entries, *more]))


_HARMLESS = ("surplus-members", "two-names-by-case")


def _surplus(name: str, says: str, what: str, member: Member) -> None:
    def make(folder: Path) -> Path:
        return _archive(folder, member)

    loads = name in _HARMLESS
    hostile("zip", says, weights=True, loads=loads, name=name, what=what)(make)


_TWICE = "twice|duplicate|two members|more than once|same name"
_NAME = "name|outside|path"
_BOMB = "expan|bomb|compress|unpack"
for _name, _says, _what, _member in (
    (
        "two-configs",
        _TWICE,
        "Two members called config.json: readers differ on which one counts.",
        Member(b"config.json", b"{}"),
    ),
    ("two-weights", _TWICE, "Two members of weights.", Member(b"model.weights.h5", weights())),
    (
        "two-names-by-case",
        f"{_TWICE}|{_NAME}|member",
        "A second config, told apart by case only: one file on some systems.",
        Member(b"CONFIG.JSON", b"{}"),
    ),
    ("traversal", _NAME, "A member that climbs out of its folder.", Member(b"../marker", b"x")),
    (
        "traversal-in-assets",
        _NAME,
        "The same, from within the assets.",
        Member(b"assets/../../../marker", b"x"),
    ),
    (
        "traversal-by-backslash",
        _NAME,
        "The same with backslashes.",
        Member(b"assets\\..\\..\\marker", b"x"),
    ),
    ("absolute-name", _NAME, "An absolute name.", Member(b"/tmp/kct_hostile_marker", b"x")),
    ("drive-letter", _NAME, "A name with a drive letter.", Member(b"C:\\marker", b"x")),
    (
        "nul-in-name",
        f"{_NAME}|{_DAMAGED}",
        "A name with a NUL in it: checked as one, used as another.",
        Member(b"assets/a\0.txt", b"x"),
    ),
    (
        "control-in-name",
        f"{_NAME}|{_DAMAGED}",
        "A name that rewrites the terminal of the reader of a report.",
        Member(b"assets/\x1b[2J\r.txt", b"x"),
    ),
    ("dots-in-name", _NAME, "A name spelled in a second way.", Member(b"assets/./x", b"x")),
    (
        "very-long-name",
        f"{_NAME}|{_DAMAGED}|long",
        "A name of 60,000 letters.",
        Member(b"assets/" + b"a" * 60000, b"x"),
    ),
    (
        "symlink",
        "link",
        "A member that is a symbolic link to /etc/passwd.",
        Member(b"assets/vocabulary.txt", b"/etc/passwd", mode=0o120777),
    ),
    (
        "symlinked-folder",
        "link",
        "The assets folder as a link to /etc.",
        Member(b"assets", b"/etc", mode=0o120777),
    ),
    (
        "device",
        "device|special|regular|link",
        "A member that is a character device.",
        Member(b"assets/zero", b"", mode=0o020666),
    ),
    (
        "bomb-in-assets",
        f"{_BOMB}|asset",
        "An asset of 1 GB, in a megabyte.",
        Member(b"assets/a.txt", **bomb(1024)),
    ),
    (
        "bomb-beside",
        f"{_BOMB}|member",
        "A member that nothing needs, of 1 GB in a megabyte.",
        Member(b"notes.txt", **bomb(1024)),
    ),
    (
        "surplus-members",
        "member|not part|surplus|unexpected",
        "A Python module beside the members that Keras writes.",
        Member(b"model.py", b"import os"),
    ),
):
    _surplus(_name, _says, _what, _member)


@hostile("zip", _BOMB, weights=True)
def bomb_in_config(folder: Path) -> Path:
    """A config of 1 GB, in a megabyte."""
    head = b'{"class_name": "Model", "config": {}, "pad": "'
    entries = [Member(b"config.json", **bomb(1024, head, b'"}')), *plain(members())[2:]]
    return written(folder / "model.keras", raw_zip(entries))


@hostile("zip", _BOMB, weights=True)
def bomb_in_weights(folder: Path) -> Path:
    """Weights of 1 GB, in a megabyte."""
    entries = [*plain(members())[:2], Member(b"model.weights.h5", **bomb(1024, weights()))]
    return written(folder / "model.keras", raw_zip(entries))


@hostile("zip", f"overlap|{_BOMB}|members", weights=True)
def overlapping_bomb(folder: Path) -> Path:
    """A thousand members that share one body (D. Fifield's bomb)."""
    entries = plain(members())
    place = len(raw_zip(entries, 0)) - sum(46 + len(m.name) for m in entries) - 22
    first = Member(b"assets/0", **bomb(1))
    facts = {"method": DEFLATED, "size": first.size, "packed": len(first.data), "crc": first.crc}
    more = [Member(f"assets/{i}".encode(), offset=place, **facts) for i in range(1, 1000)]
    return written(folder / "model.keras", raw_zip([*entries, first, *more]))


@hostile("zip", f"overlap|header|differ|{_DAMAGED}", weights=True)
def overlapping_members(folder: Path) -> Path:
    """The entry of a member points at the bytes of another."""
    return _archive(folder, Member(b"assets/a.txt", offset=0, size=10, packed=10))


@hostile("zip", f"overlap|{_DAMAGED}", weights=True)
def member_inside_another(folder: Path) -> Path:
    """A member that lies, header and all, within the bytes of another."""
    inner = raw_zip([Member(b"assets/a.txt", b"word")])
    outer = Member(b"assets/b.bin", inner)
    entries = [outer, *plain(members())]
    within = 30 + len(outer.name)
    hidden = Member(b"assets/a.txt", offset=within, size=4, packed=4, crc=zlib.crc32(b"word"))
    return written(folder / "model.keras", raw_zip([*entries, hidden]))


@hostile("zip", "encrypt", weights=True)
def encrypted(folder: Path) -> Path:
    """Members marked as encrypted, so that a scanner cannot look."""
    entries = [Member(m.name, m.data, flags=1) for m in plain(members())]
    return written(folder / "model.keras", raw_zip(entries))


@hostile("zip", f"header|differ|disagree|{_DAMAGED}", weights=True)
def local_name_differs(folder: Path) -> Path:
    """The local header names the config otherwise than the directory does."""
    return _archive(folder, local_name=b"c0nfig.json")


@hostile("zip", f"header|differ|disagree|{_DAMAGED}", weights=True)
def local_size_differs(folder: Path) -> Path:
    """The local header states another size than the directory does."""
    return _archive(folder, local_size=5)


@hostile("zip", f"zip64|beyond|outside|size|{_DAMAGED}", weights=True)
def zip64_lie(folder: Path) -> Path:
    """A zip64 field that claims 2**60 bytes."""
    extra = struct.pack("<HHQQ", 1, 16, 1 << 60, 1 << 60)
    return _archive(folder, size=0xFFFFFFFF, packed=0xFFFFFFFF, extra=extra)


@hostile("zip", f"beyond|outside|size|{_DAMAGED}", weights=True)
def size_beyond_the_file(folder: Path) -> Path:
    """2 GB are claimed for a member of a small file."""
    return _archive(folder, size=2**31 - 2, packed=2**31 - 2)


@hostile("zip", f"beyond|outside|offset|{_DAMAGED}", weights=True)
def offset_beyond_the_file(folder: Path) -> Path:
    """A member that begins behind the end of the file."""
    return _archive(folder, Member(b"assets/a.txt", offset=1 << 30, size=4, packed=4))


@hostile("zip", f"front|before|begin|not a Keras file|{_DAMAGED}", weights=True)
def program_in_front(folder: Path) -> Path:
    """A program in front of the archive: one file, two meanings."""
    return written(folder / "model.keras", b"#!/bin/sh\ntouch marker\n" + zipped(members()))


@hostile("zip", f"front|before|begin|bytes|{_DAMAGED}", weights=True)
def archive_in_front(folder: Path) -> Path:
    """A whole archive in front of another: readers from the front see the first."""
    hidden = zipped(members(sequential(node("Scale", PAYLOAD))))
    return written(folder / "model.keras", hidden + zipped(members()))


@hostile("zip", f"behind|after|trailing|bytes|{_DAMAGED}", weights=True)
def bytes_behind(folder: Path) -> Path:
    """Bytes behind the archive's end."""
    return written(folder / "model.keras", zipped(members()) + bytes(100) + b"payload")


@hostile("zip", f"comment|end record|{_DAMAGED}", weights=True)
def end_record_in_comment(folder: Path) -> Path:
    """A second end record inside the comment, with a directory of its own."""
    fake = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    return written(folder / "model.keras", raw_zip(plain(members()), comment=fake))


@hostile("zip", f"members|count|{_DAMAGED}", weights=True)
def count_lies(folder: Path) -> Path:
    """The end record counts other members than the directory has."""
    return written(folder / "model.keras", raw_zip(plain(members()), count=1))


@hostile("zip", "members", weights=True)
def many_members(folder: Path) -> Path:
    """Sixty thousand empty members."""
    many = [Member(f"assets/{index}".encode()) for index in range(60000)]
    return written(folder / "model.keras", raw_zip([*plain(members()), *many]))


@hostile("zip", f"compress|method|cannot be read|{_DAMAGED}", weights=True)
def unknown_compression(folder: Path) -> Path:
    """An unknown compression method."""
    return _archive(folder, method=99)


@hostile("zip", f"checksum|CRC|{_DAMAGED}", weights=True)
def wrong_checksum(folder: Path) -> Path:
    """A byte of the config has changed since its checksum was taken."""
    return _archive(folder, crc=1)


@hostile("zip", "truncated", weights=True)
def truncated(folder: Path) -> Path:
    """The first half of an archive."""
    data = zipped(members())
    return written(folder / "model.keras", data[: len(data) // 2])


@hostile("zip", f"seal|record|{_DAMAGED}", weights=True)
def seal_without_record(folder: Path) -> Path:
    """A comment that claims the seal of this package, on an archive without its record."""
    comment = b"keras_ckpt_tools:1:" + b"0" * 32
    return written(folder / "model.keras", raw_zip(plain(members()), comment=comment))


def _with_zip64(edit: Callable[[list[int], list[int]], None]) -> Callable[[Path], Path]:
    """Return a function that writes an archive with both end records, changed as `edit` does."""

    def make(folder: Path) -> Path:
        data = raw_zip(plain(members()))
        body, (_, _, _, _, count, length, offset, _) = data[:-22], _END.unpack(data[-22:])
        large, small = [count, count, length, offset], [0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF]
        edit(large, small)
        record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, *large)
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body), 1)
        end = _END.pack(b"PK\5\6", 0, 0, *small, 0)
        return written(folder / "model.keras", body + record + locator + end)

    return make


_END = struct.Struct("<4s4H2IH")


def _mark_within(large: list[int], small: list[int]) -> None:
    small[2] = int.from_bytes(b"PK\5\6", "little")


def _other_table(large: list[int], small: list[int]) -> None:
    small[:] = [1, 1, 60, 0]


def _endless_table(large: list[int], small: list[int]) -> None:
    large[2] = 1 << 40


for _name, _what, _edit in (
    ("zip64-mark-in-the-end", "An end record with the mark of an end in it.", _mark_within),
    ("zip64-other-table", "Two end records that name two tables of contents.", _other_table),
    ("zip64-endless-table", "A table of contents of a terabyte, by the large end record.",
     _endless_table),
):  # fmt: skip
    hostile("zip", f"end|table|{_DAMAGED}", weights=True, name=_name, what=_what)(
        _with_zip64(_edit)
    )


@hostile("zip", _BOMB, loads=True)
def many_bombs_in_assets(folder: Path) -> Path:
    """A thousand assets that no layer asks for, each of which unpacks to a thousand times."""
    packed = bomb(1)
    names = [f"assets/{index}.txt".encode() for index in range(1000)]
    return _archive(folder, *(Member(name, **packed) for name in names))

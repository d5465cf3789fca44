"""The records of a zip: the header of a member, its entry in the table of contents, and the end.

Source: the ZIP APPNOTE, sections 4.3.7 (local header), 4.3.12 (table of contents), 4.3.14 to 4.3.16
(the end), 4.5.3 (zip64).
"""

from __future__ import annotations

import os
import re
import struct
import zipfile
from collections.abc import Iterable
from typing import NamedTuple

LOCAL = struct.Struct("<4s5H3I2H")
ENTRY = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
LOCATOR_64 = struct.Struct("<4sIQI")
END_64 = struct.Struct("<4sQ2H2I4Q")

LOCAL_MARK, ENTRY_MARK, END_MARK = b"PK\3\4", b"PK\1\2", b"PK\5\6"
LOCATOR_64_MARK, END_64_MARK = b"PK\6\7", b"PK\6\6"

ELSEWHERE = 0xFFFFFFFF
"""Stands for a number that needs 64 bits, and is in a field or record apart."""

MANY = 0xFFFF
"""The same for the number of members."""

# Where to look for the end record: within a comment like ours, then within the longest.
_TAILS = (256, END.size + 0xFFFF)


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
        if (last := tail.rfind(END_MARK)) >= 0:
            break
    else:
        return None
    marks = (found.start() for found in re.finditer(re.escape(END_MARK), tail))
    places = [at for at in marks if _ends_at(tail, at) == len(tail)]
    if not places:
        cut = _ends_at(tail, last) > len(tail) or last > len(tail) - END.size
        how = f"truncated at {size:,} bytes, within its last ones"
        raise zipfile.BadZipFile(how if cut else "there are bytes behind its end")
    place = places[-1]
    empty = place == len(tail) - END.size
    if len(places) > 1 or (place != last and not empty):
        raise zipfile.BadZipFile("there are two ends in it")
    *_, count, length, offset, _ = END.unpack_from(tail, place)
    found = EndRecord(count, length, offset, tail[place + END.size :])
    at = start + place - LOCATOR_64.size
    locator = os.pread(descriptor, LOCATOR_64.size, at) if at >= 0 else b""
    if not locator.startswith(LOCATOR_64_MARK):
        return found
    _, disk, there, _ = LOCATOR_64.unpack(locator)
    record = os.pread(descriptor, END_64.size, max(at - END_64.size, 0))
    if disk or there != at - END_64.size or not record.startswith(END_64_MARK):
        raise zipfile.BadZipFile("its second end record is not in front of the first")
    *_, here, count, length, offset = END_64.unpack(record)
    counts = here == count and found.members in (count, MANY)
    if not counts or not agree(found[1:3], (length, offset)):
        raise zipfile.BadZipFile("its two end records differ")
    return EndRecord(count, length, offset, found.comment)


def _ends_at(tail: bytes, at: int) -> int:
    if at + END.size > len(tail):
        return -1
    comment: int = END.unpack_from(tail, at)[-1]
    return at + END.size + comment


def agree(here: Iterable[int], there: Iterable[int]) -> bool:
    """Return whether numbers are the same, those apart that stand elsewhere."""
    return all(a in (b, ELSEWHERE) for a, b in zip(here, there, strict=True))


def data_of(descriptor: int, header: int) -> int | None:
    """Return where the data of a member begins; `None` if its header is outside of the file."""
    raw = os.pread(descriptor, LOCAL.size, header)
    return None if len(raw) < LOCAL.size else header + LOCAL.size + sum(LOCAL.unpack(raw)[-2:])


def in_64_bits(packed: int, place: int, extra: bytes) -> tuple[int, int]:
    """Return the packed length and the place of a member, which the field `extra` may have."""
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        if tag == 1:
            numbers = [n for (n,) in struct.iter_unpack("<Q", extra[4 : 4 + length // 8 * 8])]
            # Each is there only where the entry has no room for it: both lengths, then the place.
            if packed == ELSEWHERE and len(numbers) > 1:
                packed, numbers = numbers[1], numbers[2:]
            if place == ELSEWHERE and numbers:
                place = numbers[0]
        extra = extra[4 + length :]
    return packed, place

"""Read the start of a file to detect who wrote it and whether it is visibly damaged.

`kinds` detects the type of any file, but may have to read all of it in a separate process. That is
too slow for a list of ten thousand files. One or two short reads here detect files written by this
package and visible damage: a file that is truncated, too long or empty, or a damaged record.
`verify` checks the tensors.

Sources: the ZIP APPNOTE (4.3.7, 4.3.12, 4.3.16), the HDF5 File Format Specification (II.A).
"""

from __future__ import annotations

import os
import re
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools.errors import DamagedArtefactError, NewerFormatError
from keras_ckpt_tools.formats.common.bounded_json import loads
from keras_ckpt_tools.formats.containers import HDF5_MAGIC
from keras_ckpt_tools.formats.keras_zip.records import (
    ENTRY,
    LOCAL_MARK,
    data_of,
    end_record,
    in_64_bits,
)
from keras_ckpt_tools.formats.keras_zip.seal import WEIGHTS_MEMBER, seal_comment, sealed_digest
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.record.userblock import MAGIC, ReadAt, parse, read_json, values_of
from keras_ckpt_tools.formats.record.validation import check_types
from keras_ckpt_tools.metadata import FORMAT_VERSION, Record

NO_RECORD = "not written by this package"
_NO_MODEL = "not recognized as a model by its first bytes"
# Notes of files that contain no record.
WITHOUT_RECORD = (NO_RECORD, _NO_MODEL)

OPENING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_FIRST = 1 << 13
_KINDS = {"model": Kind.H5_MODEL, "weights": Kind.H5_WEIGHTS, "checkpoint": Kind.CHECKPOINT}
_LARGEST_TABLE = 1 << 20


@dataclass(frozen=True)
class Glimpse:
    """The visible state of a file.

    Attributes:
        kind: Type of the file; for third-party files, as far as the first bytes show it.
        head: Its record without tensors, if this package wrote it.
        damage: Visible damage, or an empty string.
        note: A further remark on the file.
    """

    kind: Kind
    head: Record | None = None
    damage: str = ""
    note: str = ""


def glimpse(descriptor: int, path: str) -> Glimpse:
    """Return the visible state of an open file.

    Args:
        descriptor: Descriptor of a regular file.
        path: Its name, for messages.
    """
    size = os.fstat(descriptor).st_size
    if not size:
        return Glimpse(Kind.EMPTY, damage="empty: it has no bytes")
    first = os.pread(descriptor, _FIRST, 0)
    if first.startswith(LOCAL_MARK):
        return _archive(descriptor, size, path)
    if first.startswith(HDF5_MAGIC):
        return Glimpse(Kind.H5_WEIGHTS, damage=_cut_off(first, size), note=NO_RECORD)
    read = _windowed(descriptor, 0, size, first)
    found = _ours(read, size, path)
    return found or Glimpse(Kind.UNKNOWN, note=_NO_MODEL)


def glimpse_of_run(descriptor: int, path: str, data_size: int) -> Glimpse | None:
    """Return the state of a TensorFlow checkpoint; `None` if this package did not write it.

    Args:
        descriptor: Descriptor of the open record file.
        path: Its prefix, for messages.
        data_size: Size of its data file in bytes.
    """
    size = os.fstat(descriptor).st_size
    first = os.pread(descriptor, _FIRST, 0)
    read = _windowed(descriptor, 0, size, first)
    return _ours(read, data_size, path, Kind.TF_CHECKPOINT)


def reader_of(descriptor: int, path: str) -> ReadAt | None:
    """Return a reader of the HDF5 part of an open file of this package, or `None`."""
    size = os.fstat(descriptor).st_size
    first = os.pread(descriptor, len(MAGIC), 0)
    if first == MAGIC:
        return _windowed(descriptor, 0, size, first)
    span = _weights_of(descriptor, size)[0]
    return _windowed(descriptor, *span, b"") if span else None


def _windowed(descriptor: int, start: int, length: int, first: bytes) -> ReadAt:
    def read(offset: int, wanted: int) -> bytes:
        wanted = min(wanted, length - offset)
        if wanted <= 0:
            return b""
        if offset + wanted <= len(first):
            return first[offset : offset + wanted]
        return os.pread(descriptor, wanted, start + offset)

    return read


def _ours(read: ReadAt, size: int, path: str, kind: Kind | None = None) -> Glimpse | None:
    try:
        head = read_head(read, path)
    except NewerFormatError as error:
        return Glimpse(kind or Kind.CHECKPOINT, note=error.what)
    except DamagedArtefactError as error:
        return Glimpse(kind or Kind.CHECKPOINT, damage=error.how)
    if head is None:
        return None
    damage = ""
    if head.size > size:
        damage = f"truncated at {size:,} of {head.size:,} bytes"
    elif head.size < size:
        damage = f"{size - head.size:,} bytes too long: it should have {head.size:,}"
    return Glimpse(kind or _KINDS.get(head.kind, Kind.CHECKPOINT), head, damage)


def _cut_off(first: bytes, size: int) -> str:
    """Return the damage of an HDF5 file that is shorter than its superblock states."""
    version = first[len(HDF5_MAGIC)] if len(first) > len(HDF5_MAGIC) else 255
    # Positions in the superblock of the size of offsets and of the end of the file.
    width_at, end_at = {0: (13, 40), 1: (13, 44), 2: (9, 28), 3: (9, 28)}.get(version, (0, 0))
    if not end_at or len(first) < end_at + 8 or first[width_at] != 8:
        return "" if end_at and len(first) >= end_at + 8 else "truncated within its first bytes"
    end: int = struct.unpack_from("<Q", first, end_at)[0]
    return f"truncated at {size:,} of {end:,} bytes" if end > size else ""


def _archive(descriptor: int, size: int, path: str) -> Glimpse:
    span, sealed, damage = _weights_of(descriptor, size)
    if damage:
        return Glimpse(Kind.KERAS, damage=damage)
    if not sealed:
        return Glimpse(Kind.KERAS, note=NO_RECORD)
    if span is None:
        return Glimpse(Kind.KERAS, damage="its weights have moved within the file")
    start, length = span
    first = os.pread(descriptor, min(_FIRST, length), start)
    read = _windowed(descriptor, start, length, first)
    found = _ours(read, length, path, Kind.KERAS)
    return found or Glimpse(Kind.KERAS, damage="its record has moved within the file")


def _weights_of(descriptor: int, size: int) -> tuple[tuple[int, int] | None, bool, str]:
    """Return where the weights of an archive are, whether this package wrote it, and its damage."""
    try:
        end = end_record(descriptor)
    except zipfile.BadZipFile as error:
        return None, False, str(error)
    if end is None:
        return None, False, f"truncated at {size:,} bytes, before its end"
    told, (count, extent, begin) = end.comment, end[:3]
    if sealed_digest(told) is None:
        # Only this package writes an archive comment that starts like this.
        changed = "the digest at its end has changed" if told.startswith(seal_comment("")) else ""
        return None, False, changed
    if extent > _LARGEST_TABLE or not 0 <= begin <= size - extent:
        return None, True, ""
    table = os.pread(descriptor, extent, begin)
    offset = 0
    for _ in range(count):
        if offset + ENTRY.size > len(table):
            break
        _, *_, packed, _, names, extra, comment, _, _, _, at = ENTRY.unpack_from(table, offset)
        name = table[offset + ENTRY.size : offset + ENTRY.size + names]
        if name == WEIGHTS_MEMBER.encode():
            extras = table[offset + ENTRY.size + names :][:extra]
            packed, at = in_64_bits(packed, at, extras)
            start = data_of(descriptor, at) if at < size else None
            if start is None:
                break
            return (start, min(packed, max(size - start, 0))), True, ""
        offset += ENTRY.size + names + extra + comment
    return None, True, ""


# JSON escapes quotes inside strings, so these match keys only.
_HISTORY = b',"history":{'
_EPOCHS = b'},"history_epochs":{'
_BEST = re.compile(rb',"best":(?:\{|null)')
_TENSORS = b',"tensors":['
_TAIL = re.compile(rb'\],"skeleton_digest":"[0-9a-f]*","size":\d{1,19},"format_version":\d{1,9}\}')
_LONGEST_TAIL = 160
# All characters except those of the JSON structure.
_NO_STRUCTURE = bytes({*range(256)} - set(b'{}[]"\\'))
_SERIES = re.compile(rb'(?:""\[\])*\}""\{(?:""\[\])*\}')
_ROW = b'{""""' + b'""[]' + b'""""' + b'""' + b'""' + b'""""}'
# Marks a removed part; no record contains this text.
_CUT = b'"\\u007f cut out \\u007f"'
_CUT_TEXT = "\x7f cut out \x7f"


def read_head(read: ReadAt, path: str) -> Record | None:
    """Read the record at the start of an HDF5 file, without its tensors and history.

    Args:
        read: Reads bytes of the HDF5 file, counted from its start.
        path: Name of the file, for messages.

    Returns:
        The record without tensors, their names and the logs of earlier epochs; `None` if this
        package did not write the file.

    Raises:
        DamagedArtefactError: the record is damaged.
        NewerFormatError: a later version of this package wrote it.
    """
    found = read_json(read, path)
    return None if found is None else parse(found[0], path, _head)


def _head(body: bytes) -> tuple[int, Record | None]:
    data = _cut(body)
    if data is None:
        data = values_of(body)
    found = data.get("format_version", 0)
    if found > FORMAT_VERSION:
        return found, None
    progress = {**(data.get("progress") or {}), "history": {}, "history_epochs": {}}
    long: dict[str, Any] = {"names": {}, "optimizers": {}, "objects": (), "tensors": ()}
    record = Record.from_json({**data, **long, "progress": progress})
    check_types(record)
    return found, record


def _cut(body: bytes) -> dict[str, Any] | None:
    """Parse the JSON without history and tensors; `None` if it has another layout."""
    history = body.find(_HISTORY)
    best = _BEST.search(body, history) if history >= 0 else None
    tensors = body.rfind(_TENSORS)
    tail = _TAIL.search(body, max(tensors, len(body) - _LONGEST_TAIL))
    if best is None or tail is None or tail.end() != len(body) or tensors < best.start():
        return None
    series = body[history + len(_HISTORY) : best.start()]
    table = body[tensors + len(_TENSORS) : tail.start()]
    if not _is_series(series) or not _is_table(table) or b"cut out" in body:
        return None
    kept = (
        body[:history],
        b',"history":', _CUT, b',"history_epochs":', _CUT,
        body[best.start() : tensors + len(_TENSORS)],
        body[tail.start() :],
    )  # fmt: skip
    data = loads(b"".join(kept))
    progress = data.get("progress") if isinstance(data, dict) else None
    if not isinstance(progress, dict) or progress.get("history") != _CUT_TEXT:
        return None  # The match was not the history of the record.
    return dict(data)


def _is_series(text: bytes) -> bool:
    """Return whether this is the text after `"history":{`, up to the end of `history_epochs`."""
    for word in (b'"NaN"', b'"Infinity"', b'"-Infinity"'):
        text = text.replace(word, b"") if word in text else text
    structure = text.translate(None, _NO_STRUCTURE)
    return text.count(_EPOCHS) == 1 and _SERIES.fullmatch(structure) is not None


def _is_table(text: bytes) -> bool:
    """Return whether the text consists of the rows of a table of tensors only."""
    structure = text.translate(None, _NO_STRUCTURE)
    return structure == _ROW * (len(structure) // len(_ROW))

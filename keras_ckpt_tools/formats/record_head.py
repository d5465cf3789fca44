"""The small part of a record: record -> *head* -> list of a run's checkpoints.

Most of a record is its table of tensors and, late in a run, the logs of every epoch so far. A list
of ten thousand checkpoints needs neither, and parsing them takes most of the time. So both are cut
out before the JSON is parsed, and the rest goes through the one parser that every reader of a
record uses.

A cut must not change what the rest means. Each cut is therefore proved by the brackets and quotes
in what is cut out: these show that it is a flat list of objects, or an object of flat lists, which
ends where the cut ends. So it can hold no other key of the record. What has other brackets, or any
backslash, is parsed whole. Its digest is checked in both cases: reading the bytes is cheap.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from keras_ckpt_tools.formats.record_check import check_progress
from keras_ckpt_tools.formats.strict_json import loads
from keras_ckpt_tools.formats.userblock import ReadAt, parse, read_json, values_of
from keras_ckpt_tools.metadata import FORMAT_VERSION, TrainingProgress

__all__ = ["Head", "read_head"]

# In a string of JSON a quote has a backslash before it, so these are found as keys only.
_HISTORY = b',"history":{'
_EPOCHS = b'},"history_epochs":{'
_BEST = re.compile(rb',"best":(?:\{|null)')
_TENSORS = b',"tensors":['
_TAIL = re.compile(rb'\],"skeleton_digest":"[0-9a-f]*","size":\d{1,19},"format_version":\d{1,9}\}')
_LONGEST_TAIL = 160
# All but what structure is made of.
_NO_STRUCTURE = bytes({*range(256)} - set(b'{}[]"\\'))
_SERIES = re.compile(rb'(?:""\[\])*\}""\{(?:""\[\])*\}')
_ROW = b'{""""' + b'""[]' + b'""""' + b'""' + b'""' + b'""""}'
# Stands where something was cut out; no record contains it.
_CUT = b'"\\u007f cut out \\u007f"'
_CUT_TEXT = "\x7f cut out \x7f"


@dataclasses.dataclass(frozen=True)
class Head:
    """What a record says, without its tensors and without the logs of earlier epochs.

    Attributes:
        kind: `"model"`, `"weights"` or `"checkpoint"`.
        versions: Versions of Python and the packages that wrote the file.
        progress: Where training was; its `history` is empty.
        tracked: For a checkpoint, the kind of each tracked object by its name.
        state: Further JSON state, by the name of what it belongs to.
        size: Length of the HDF5 file in bytes.
        finite: Whether its weights are numbers; also where nobody has looked.
    """

    kind: str
    versions: Mapping[str, str]
    progress: TrainingProgress
    tracked: Mapping[str, str]
    state: Mapping[str, Any]
    size: int
    finite: bool = True

    @property
    def holds(self) -> frozenset[str]:
        """Names of what it holds beside tracked objects."""
        return frozenset(name for name, kind in self.tracked.items() if kind == "run")


def read_head(read: ReadAt, path: str) -> Head | None:
    """Read the head of the record in front of an HDF5 file.

    Args:
        read: Reads bytes of the HDF5 file, counted from its start.
        path: Name of the file, for messages.

    Returns:
        The head, or `None` where there is no record of ours.

    Raises:
        DamagedArtefactError: there is one, and its bytes have changed.
        NewerFormatError: a later version of the package wrote it.
    """
    found = read_json(read, path)
    return None if found is None else parse(found[0], path, _head)


def _head(body: bytes) -> tuple[int, Head | None]:
    data = _cut(body)
    if data is None:
        data = values_of(body)
    found = data.get("format_version", 0)
    if found > FORMAT_VERSION:
        return found, None
    told = {**(data.get("progress") or {}), "history": {}, "history_epochs": {}}
    progress = TrainingProgress.from_json(told)
    check_progress(progress)
    state, versions = data.get("state") or {}, data.get("versions") or {}
    tracked = {name: one["kind"] for name, one in (data.get("tracked") or {}).items()}
    kind, size = data.get("kind", ""), data.get("size", 0)
    texts = (kind, *tracked.values(), *versions.values())
    if not all(isinstance(text, str) for text in texts) or not isinstance(state, dict):
        raise TypeError("its kinds or versions are no texts, or its state is of another type")
    if not isinstance(size, int) or size < 0:
        raise TypeError("its size is no number")
    return found, Head(kind, versions, progress, tracked, state, size, not data.get("not_finite"))


def _cut(body: bytes) -> dict[str, Any] | None:
    """Parse the JSON without history and tensors; `None` where it is laid out in another way."""
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
        return None  # That was the history of something else.
    return dict(data)


def _is_series(text: bytes) -> bool:
    """Return whether this is what follows `"history":{`, up to the end of `history_epochs`."""
    for word in (b'"NaN"', b'"Infinity"', b'"-Infinity"'):
        text = text.replace(word, b"") if word in text else text
    structure = text.translate(None, _NO_STRUCTURE)
    return text.count(_EPOCHS) == 1 and _SERIES.fullmatch(structure) is not None


def _is_table(text: bytes) -> bool:
    """Return whether these are the rows of a table of tensors, and nothing else."""
    structure = text.translate(None, _NO_STRUCTURE)
    return structure == _ROW * (len(structure) // len(_ROW))

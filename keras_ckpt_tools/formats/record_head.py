"""The small part of a record: record -> *head* -> list of a run's checkpoints.

Most of a record is its table of tensors and, late in a run, the logs of every epoch so far. A list
of ten thousand checkpoints needs neither. Both stand at known places in what we write, so they are
cut out before the JSON is parsed; a record that is laid out in another way is parsed whole. Its
digest is checked in both cases: reading the bytes is cheap, parsing them is not.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from keras_ckpt_tools.formats.userblock import ReadAt, parse, read_json
from keras_ckpt_tools.metadata import FORMAT_VERSION, TrainingProgress

__all__ = ["Head", "read_head"]

# In a string of JSON a quote has a backslash before it, so these are found as keys only; and in
# `history` every value is a list.
_HISTORY = b',"history":{'
_BEST = re.compile(rb',"best":(?:\{|null)')
_TENSORS = b',"tensors":['
_TAIL = re.compile(rb'"skeleton_digest":"[0-9a-f]*","size":(\d{1,19}),"format_version":(\d{1,9})\}')
_LONGEST_TAIL = 160


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
        data = json.loads(body)
    found = data.get("format_version", 0)
    if found > FORMAT_VERSION:
        return found, None
    told = {**(data.get("progress") or {}), "history": {}, "history_epochs": {}}
    progress = TrainingProgress.from_json(told)
    state, versions, kind = (
        data.get("state") or {},
        data.get("versions") or {},
        data.get("kind", ""),
    )
    tracked = {name: one["kind"] for name, one in (data.get("tracked") or {}).items()}
    best, size = progress.best, data.get("size", 0)
    counts = (progress.epochs_completed, progress.batches_completed, progress.step, size)
    times = (progress.started_at, progress.saved_at, progress.elapsed_s)
    texts = [kind, progress.run_id, *tracked.values(), *versions.values()]
    numbers = [*times, *progress.logs.values()]
    if best is not None:
        texts += (best.monitor, best.mode)
        numbers += (best.value or 0, best.epoch or 0)
    _check(counts, int)
    _check(texts, str)
    _check(numbers, (int, float))
    if min(counts) < 0 or not isinstance(state, dict):
        raise TypeError("its counts are no numbers, or its state is of another type")
    return found, Head(kind, versions, progress, tracked, state, size, not data.get("not_finite"))


def _check(values: Iterable[Any], kind: type | tuple[type, ...]) -> None:
    for value in values:
        if not isinstance(value, kind):
            raise TypeError(f"{type(value).__name__} where there is none")


def _cut(body: bytes) -> dict[str, Any] | None:
    """Parse the JSON without history and tensors; `None` where it is laid out in another way."""
    history = body.find(_HISTORY)
    best = _BEST.search(body, history) if history >= 0 else None
    tensors = body.rfind(_TENSORS)
    tail = _TAIL.search(body, max(tensors, len(body) - _LONGEST_TAIL))
    if best is None or tail is None or tail.end() != len(body) or tensors < best.start():
        return None
    try:
        data = json.loads(body[:history] + body[best.start() : tensors] + b"}")
    except ValueError:
        return None
    if not isinstance(data, dict) or "progress" not in data:
        return None
    return {**data, "size": int(tail[1]), "format_version": int(tail[2])}

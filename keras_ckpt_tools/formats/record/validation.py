"""Check that a record agrees with its file.

Digests find accidental changes, but anybody can write a false record with correct digests. So
before a record is used, each tensor must be inside the file, must not overlap with others, and must
have the length of its shape and dtype. So no memory is allocated for data that the file does not
contain.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from keras_ckpt_tools.errors import damaged
from keras_ckpt_tools.metadata import Record, TensorInfo, TrainingProgress

_LARGEST = 1 << 62
# Seconds since 1970: what `datetime` can show, clocks that were wrong included.
_EARLIEST, _LATEST = 10**9, 250 * 10**9
_TYPES = re.compile(
    r"(?P<one>bool|u?int[248]|float[468]_\w+)|\|?S(?P<text>[0-9]{1,18})|bfloat(?P<brain>16)"
    r"|(?:u?int|float|complex)(?P<bits>16|32|64|128)"
)


def check_types(record: Record) -> None:
    """Refuse a record whose values are not what others go by.

    Raises:
        TypeError: one is something else; the message says which.
    """
    check_progress(record.progress)
    progress = record.progress
    series = (*progress.history.values(), *progress.history_epochs.values())
    objects = [(o.registered_name, o.module or "", o.qualname or "") for o in record.objects]
    tests = {
        "kind, skeleton_digest or versions": (
            (record.kind, record.skeleton_digest, *record.versions.values()),
            str,
        ),
        "size": ((record.size, record.format_version), int),
        "history": ([n for values in series for n in values], int | float),
        "restarts": ([n for one in progress.restarts for n in one], int | float),
        "saves": ([n for one in progress.saves for n in one], int),
        "objects": ([text for names in objects for text in names], str),
        "versions of objects": ([o.version for o in record.objects], int),
        "names": ([*record.names, *record.names.values()], str),
        "optimizers": (
            [t for one in record.optimizers.values() for t in (one.class_name, *one.built_on)],
            str,
        ),
        "tracked": ([tracked.kind for tracked in record.tracked.values()], str),
        "state": ((record.state,), Mapping),
    }
    _check(tests)
    if record.size < 0:
        raise TypeError("its size is negative")
    _check_times(one[3] for one in progress.restarts if len(one) == 4)
    if {*map(len, progress.restarts)} - {4} or {*map(len, progress.saves)} - {3, 7}:
        raise TypeError("its restarts or saves are not as long as they should be")


def check_progress(progress: TrainingProgress) -> None:
    """Refuse progress whose values are not what others go by; histories are not looked at.

    Raises:
        TypeError: one is something else; the message says which.
    """
    best = progress.best
    times = (progress.started_at, progress.saved_at, progress.elapsed_s)
    counts = (progress.epochs_completed, progress.batches_completed, progress.step)
    judged = () if best is None else (best.value or 0, best.epoch or 0)
    tests: dict[str, tuple[Iterable[Any], Any]] = {
        "run_id": ((progress.run_id,), str),
        "counts": (counts, int),
        "times, logs or best": ((*times, *progress.logs.values(), *judged), int | float),
        "best": (() if best is None else (best.monitor, best.mode), str),
    }
    _check(tests)
    _check_times(times)
    if min(counts) < 0:
        raise TypeError("its counts are negative")


def _check(tests: Mapping[str, tuple[Iterable[Any], Any]]) -> None:
    for name, (values, kind) in tests.items():
        for value in values:
            if not isinstance(value, kind):
                raise TypeError(f"its {name} are of another type")
            # A number of thousands of digits is an `int` as well, and is no float any more.
            if isinstance(value, int) and not -_LARGEST < value < _LARGEST:
                raise TypeError(f"its {name} are larger than any count")


def _check_times(times: Iterable[float]) -> None:
    if not all(-_EARLIEST <= time <= _LATEST for time in times):
        raise TypeError("its times are invalid")


def check_record(record: Record, block: int, length: int, path: str) -> None:
    """Refuse a record that contradicts itself.

    Args:
        record: The record.
        block: Length of the user block that it stands in.
        length: Length of the HDF5 file.
        path: Name of the file, for messages.

    Raises:
        DamagedArtefactError: it does.
    """
    counts = (record.size, record.progress.epochs_completed, record.progress.batches_completed)
    placed = [info for info in record.tensors if info.offset is not None]
    if not all(isinstance(n, int) and n >= 0 for n in (*counts, record.progress.step)):
        raise damaged(path, "its counts are not numbers")
    for info in record.tensors:
        if not _is_sound(info):
            raise damaged(path, f"its record contradicts itself about {str(info.path)[:100]!r}")
    end = min(length, record.size)
    places = sorted((info.offset or 0, info.nbytes) for info in placed if info.nbytes)
    if places and (places[0][0] < block or max(o + n for o, n in places) > end):
        # A truncated file is reported by the caller, which compares lengths.
        if record.size <= length:
            raise damaged(path, "its record names tensors outside the file")
    for (offset, nbytes), (following, _) in pairwise(places):
        if offset + nbytes > following:
            raise damaged(path, "its record names tensors that overlap")


def _is_sound(info: TensorInfo) -> bool:
    if not isinstance(info.path, str) or not isinstance(info.digest, str):
        return False
    for n in (*info.shape, info.nbytes):
        if not isinstance(n, int) or n < 0:
            return False
    if not isinstance(info.offset, int | None) or (info.offset or 0) < 0:
        return False
    if info.offset is None and info.nbytes:
        return False
    size = _itemsize(info.dtype) if isinstance(info.dtype, str) else None
    return size is not None and size * math.prod(info.shape) == info.nbytes


@functools.lru_cache(maxsize=256)
def _itemsize(dtype: str) -> int | None:
    """Return the length of one element, `None` if the dtype is not supported.

    >>> _itemsize("bfloat16"), _itemsize("int4"), _itemsize("|S7"), _itemsize("object")
    (2, 1, 7, None)
    """
    match = _TYPES.fullmatch(dtype)
    if match is None:
        return None
    if match["one"]:
        return 1
    if match["text"]:
        return int(match["text"])
    return int(match["brain"] or match["bits"]) // 8

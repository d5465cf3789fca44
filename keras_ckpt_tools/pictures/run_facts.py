"""Read the contents of the newest file of a run, for a report page.

Only the record and the config are read, and no name in them is imported. Missing facts are left
out. If the file is deleted or changed in the meantime, only this part of the page is missing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.tensor_source import ModelSource
from keras_ckpt_tools.metadata import CustomObject, Record, TensorInfo
from keras_ckpt_tools.pictures.run_summary import Story
from keras_ckpt_tools.showing.tables import size_of

_MOST_TENSORS = 500
_MOST_SETTINGS = 60
_LONGEST = 120
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RunFacts:
    """What a run is made of, as text.

    Attributes:
        name: The file that says so.
        parts: Part, kind, tensors, numbers and size of each part of it.
        tensors: Path, shape, type and size of each tensor.
        more_tensors: Whether there are more than these.
        objects: Name, module, version and package of each custom object.
        settings: What it was compiled and trained with, as far as it says.
        versions: What it was written with.
        note: Why nothing of this is known; empty otherwise.
    """

    name: str = ""
    parts: tuple[tuple[str, ...], ...] = ()
    tensors: tuple[tuple[str, ...], ...] = ()
    more_tensors: bool = False
    objects: tuple[tuple[str, ...], ...] = ()
    settings: Pairs = ()
    versions: Pairs = ()
    note: str = ""


def moment(seconds: float) -> str:
    """Return a time in UTC.

    >>> moment(0.0), moment(1e300)
    ('1970-01-01 00:00 UTC', '?')
    """
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "?"


def duration(seconds: float) -> str:
    """Return a length of time in two units.

    >>> duration(0.4), duration(75), duration(7380), duration(200_000)
    ('under 1 s', '1 min 15 s', '2 h 3 min', '2 d 7 h')
    """
    if not 0 <= seconds < 1e12:
        return "?"
    if seconds < 1:
        return "under 1 s"
    found: list[str] = []
    left = int(seconds)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or found:
            found.append(f"{count} {unit}" if count else "")
        if len(found) == 2:
            break
    return " ".join(part for part in found if part)


def facts_of(story: Story) -> RunFacts:
    """Return what the newest file of a run says."""
    newest = story.run.newest if story.run else None
    if newest is None:
        return RunFacts(note="There is no file that could say what the run is made of.")
    try:
        with open_source(newest.path) as source:
            record = source.record or Record()
            settings = tuple(_settings(source, record))
    except CkptError as error:
        return RunFacts(note=f"{newest.name} could not be read: {error.what}")
    infos = record.tensors
    return RunFacts(
        newest.name,
        tuple(_parts(record)),
        tuple(_tensor(info) for info in infos[:_MOST_TENSORS]),
        len(infos) > _MOST_TENSORS,
        tuple(_object(one) for one in record.objects),
        settings[:_MOST_SETTINGS],
        tuple(record.versions.items()),
    )


def _parts(record: Record) -> Iterator[tuple[str, ...]]:
    groups: dict[str, list[TensorInfo]] = {}
    for info in record.tensors:
        groups.setdefault(info.path.partition("/")[0], []).append(info)
    kept_by_run = [name for name, tracked in record.tracked.items() if tracked.kind == "run"]
    if kept_by_run:
        # Extra run state is of no use to the reader: one line for all of it.
        infos = [info for name in kept_by_run for info in groups.pop(name, [])]
        groups[_OF_RUN] = infos
    for name in {**dict.fromkeys(record.objects_tracked), **groups}:
        infos = groups.get(name, [])
        tracked = record.tracked.get(name)
        kind = tracked.kind if tracked else name
        numbers = sum(math.prod(info.shape) for info in infos)
        size = size_of(sum(info.nbytes for info in infos))
        yield name, _KINDS.get(kind, kind), f"{len(infos):,}", f"{numbers:,}", size


_OF_RUN = "state of the run"
_KINDS = {
    "keras": "layer or metric",
    "layers": "weights",
    "model_weights": "weights",
    "optimizer_weights": "optimizer",
    "random_state": "random generators",
    "state": "object with state",
    _OF_RUN: "",
}


def _tensor(info: TensorInfo) -> tuple[str, ...]:
    shape = ", ".join(map(str, info.shape)) or "scalar"
    return info.path, shape, info.dtype, size_of(info.nbytes)


def _object(one: CustomObject) -> tuple[str, ...]:
    where = ".".join(part for part in (one.module, one.qualname) if part)
    return one.registered_name, where, str(one.version), one.package_version or ""


def _settings(source: ModelSource, record: Record) -> Iterator[tuple[str, str]]:
    config: Any = source.config or {}
    compiled = config.get("compile_config") or (source.training_config or {})
    yield from _flat("", compiled if isinstance(compiled, Mapping) else {})
    fit = record.tracked.get("_fit")
    data = fit.state.get("data") if fit and isinstance(fit.state, Mapping) else None
    yield from _flat("data", data if isinstance(data, Mapping) else {})


def _flat(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield what a config says, one line for each setting that is set."""
    if isinstance(value, Mapping) and "class_name" in value:
        inner = value.get("config")
        yield name, str(value.get("registered_name") or value["class_name"])[:_LONGEST]
        yield from _flat(name, inner if isinstance(inner, Mapping) else {}, depth + 1)
    elif isinstance(value, Mapping) and depth < 4:
        for key, item in value.items():
            if key != "name":
                yield from _flat(f"{name}, {key}" if name else str(key), item, depth + 1)
    elif isinstance(value, (list, tuple)) and value:
        yield name, ", ".join(_words(value))[:_LONGEST]
    elif value not in (None, "", False) and not isinstance(value, (Mapping, list, tuple)):
        yield name, (f"{value:.6g}" if isinstance(value, float) else str(value))[:_LONGEST]


def _words(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _words(value)
        elif isinstance(value, Mapping):
            yield str(value.get("registered_name") or value.get("class_name") or "...")
        elif value is not None:
            yield str(value)

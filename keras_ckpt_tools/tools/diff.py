"""Compare two files, or folders of runs, tensor by tensor: `keras-ckpt diff`.

No model is built, so neither Keras nor TensorFlow is needed (TensorFlow only for its own
checkpoints). Tensors are read a few at a time, and large ones in pieces, so little memory is used.

This is not public: programs use `kct.compare`, and the command line shows how far values have
moved.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.formats.layer_names import variable_names
from keras_ckpt_tools.formats.tensor_source import ModelSource, TensorSource, names_of
from keras_ckpt_tools.inspection.inspect import examine
from keras_ckpt_tools.loading.open_tensors import open_tensors
from keras_ckpt_tools.loading.tensor_selection import matcher, places_at_root
from keras_ckpt_tools.matching.suggestions import nearest
from keras_ckpt_tools.metadata import TensorInfo
from keras_ckpt_tools.tools.chunks import TOGETHER, in_batches, nbytes_of, pieces
from keras_ckpt_tools.tools.config_changes import ConfigChange, config_changes
from keras_ckpt_tools.tools.diff_report import (
    Difference,
    Side,
    TensorChange,
    Verdict,
    objects_changed,
)
from keras_ckpt_tools.tools.distance import Distance, Meter

_MOST_CHANGES = 100
# The search for renames compares each path with each; above this it would take too long.
_MOST_PAIRS = 20_000
_ELEMENTS = 1 << 20

Pair = tuple[str, TensorInfo, TensorInfo]


def diff(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    which: tuple[str | int, str | int] = ("latest", "latest"),
    only: Iterable[str] = (),
    tolerance: float = 0.0,
    values: bool = True,
) -> Difference:
    """Return how two files differ: in structure, and how far their values have moved.

    Args:
        first: A file with tensors, a folder of a run, or the prefix of a TensorFlow checkpoint.
        second: Likewise.
        which: Of folders, which file: `"latest"`, `"best"` or a zero-based epoch, for each side.
        only: Patterns of paths; where there are any, nothing but these tensors is compared.
        tolerance: The largest difference of one number that still counts as none.
        values: Whether to read values. If not, files of this package are compared by digests.

    Returns:
        The report; it is true if nothing differs.

    Raises:
        ArtefactError: one of them cannot be read, or is damaged; says what is wrong with it.
        ArgumentError: `tolerance` is negative, or no file of a folder answers to `which`.

    Example:

    >>> import os, tempfile
    >>> import h5py
    >>> folder = tempfile.mkdtemp()
    >>> for name, value in (("a", 1.0), ("b", 1.5)):
    ...     with h5py.File(os.path.join(folder, f"{name}.weights.h5"), "w") as file:
    ...         file["layers/dense/vars/0"] = [value, 0.0]
    >>> report = diff(f"{folder}/a.weights.h5", f"{folder}/b.weights.h5")
    >>> [(change.name, change.distance.l2) for change in report.tensors]
    [('layers/dense/vars/0', 0.5)]
    """
    if not 0 <= tolerance < math.inf:
        raise ArgumentError(
            "`tolerance` must not be negative.",
            received=f"tolerance={tolerance!r}",
            remedy="Pass 0 for equality, or 1e-6, for example.",
        )
    with open_tensors(first, which[0]) as one, open_tensors(second, which[1]) as other:
        only = tuple(only)
        tensors = _compared(one, other, only, _meter(values, tolerance))
        ours, theirs = _side(one), _side(other)
        config, more = ([], False) if only else _configs(one, other)
        return Difference(
            first=ours,
            second=theirs,
            tensors=tuple(tensors),
            config=tuple(config),
            more_config=more,
            objects=() if only else tuple(objects_changed(ours.objects, theirs.objects)),
            tolerance=tolerance,
        )


def _side(opened: ModelSource) -> Side:
    return Side(
        path=opened.path,
        kind=opened.kind,
        size=opened.size,
        versions=opened.versions,
        progress=opened.progress,
        objects=_objects(opened),
        has_config=opened.config is not None,
    )


def _objects(opened: ModelSource) -> dict[str, str]:
    if opened.record is not None:
        return {
            one.registered_name: ", ".join(
                [f"version {one.version}"]
                + ([f"package {one.package_version}"] if one.package_version else [])
            )
            for one in opened.record.objects
        }
    needs = examine(opened)
    return {need.name: "version 1" for need in needs if not need.of_keras and not need.optional}


def _configs(one: ModelSource, other: ModelSource) -> tuple[list[ConfigChange], bool]:
    sides = [
        {"": source.config, "training_config": source.training_config}
        for source in (one, other)
        if source.config is not None
    ]
    if len(sides) < 2:
        return [], False
    found, more = config_changes(sides[0][""], sides[1][""], _MOST_CHANGES)
    trained, more_of_it = config_changes(
        {"training_config": sides[0]["training_config"]},
        {"training_config": sides[1]["training_config"]},
        _MOST_CHANGES,
    )
    return [*found, *trained], more or more_of_it


Judge = Callable[[TensorSource, TensorSource, list[Pair]], Iterator[tuple[Verdict, Any]]]


def _meter(values: bool, tolerance: float) -> Judge:
    if not values:
        return _by_digest

    def judge(
        one: TensorSource, other: TensorSource, pairs: list[Pair]
    ) -> Iterator[tuple[Verdict, Distance]]:
        for distance in _distances(one, other, pairs):
            alike = not distance.changed or (
                distance.largest is not None
                and distance.largest <= tolerance
                and not distance.not_finite
            )
            yield "equal" if alike else "changed", distance

    return judge


def _by_digest(
    one: TensorSource, other: TensorSource, pairs: list[Pair]
) -> Iterator[tuple[Verdict, None]]:
    for _, first, second in pairs:
        known = bool(first.digest and second.digest) and first.dtype == second.dtype
        alike: Verdict = "equal" if first.digest == second.digest else "changed"
        yield alike if known else "not compared", None


def _compared(
    one: ModelSource, other: ModelSource, only: tuple[str, ...], judge: Judge
) -> list[TensorChange]:
    wanted = matcher(only)
    names = [_named(one, other, wanted), _named(other, one, wanted)]
    if not any(names) and only:
        raise ArgumentError(
            "No tensor of either side has such a path.",
            received=f"only={', '.join(only)!r}",
            remedy="Patterns are paths with `*`; `keras-ckpt inspect --json` lists the tensors.",
        )
    ours, theirs = names
    pairs = [
        (name, info, theirs[name])
        for name, info in ours.items()
        if name in theirs and info.shape == theirs[name].shape
    ]
    judged = dict(zip([pair[0] for pair in pairs], judge(one, other, pairs), strict=True))
    near = _nearest(ours, theirs)
    called = [variable_names(side.tensors, names_of(side)) for side in (one, other)]
    changes = []
    for name in dict.fromkeys((*ours, *theirs)):
        first, second = ours.get(name), theirs.get(name)
        variable = called[1].get(second.path, "") if second else ""
        variable = called[0].get(first.path, variable) if first else variable
        if first is None or second is None:
            verdict: Verdict = "new" if first is None else "gone"
            maybe = near.get(name, "")
            changes.append(TensorChange(name, verdict, first, second, None, maybe, variable))
        elif name not in judged:
            changes.append(TensorChange(name, "shape", first, second, variable=variable))
        else:
            verdict, distance = judged[name]
            if first.dtype != second.dtype:
                verdict = "dtype"
            changes.append(TensorChange(name, verdict, first, second, distance, "", variable))
    return changes


def _named(side: ModelSource, other: ModelSource, wanted: Any) -> dict[str, TensorInfo]:
    tensors = side.tensors
    places = places_at_root(side.record, tensors)
    tracked = side.record.tracked if side.record else {}
    if tracked and not (other.record and other.record.tracked):
        # A file that is no run's checkpoint has no place for the state of the run itself.
        of_run = tuple(f"{name}/" for name, one in tracked.items() if one.kind == "run")
        places = {name: place for name, place in places.items() if not place.startswith(of_run)}
    return {
        name: tensors[place]
        for name, place in places.items()
        if wanted is None or wanted.match(name) or wanted.match(place)
    }


def _nearest(ours: dict[str, TensorInfo], theirs: dict[str, TensorInfo]) -> dict[str, str]:
    gone = {name: info.shape for name, info in ours.items() if name not in theirs}
    new = {name: info.shape for name, info in theirs.items() if name not in ours}
    if len(gone) * len(new) > _MOST_PAIRS:
        return {}
    found = nearest(gone, new)
    return {**found, **{there: here for here, there in found.items()}}


def _distances(one: TensorSource, other: TensorSource, pairs: list[Pair]) -> Iterator[Distance]:
    sizes = {
        name: TensorInfo(name, (), "", nbytes=max(nbytes_of(first), nbytes_of(second)))
        for name, first, second in pairs
    }
    known = {name: (first, second) for name, first, second in pairs}
    for batch in in_batches(sizes, known):
        if len(batch) == 1 and sizes[batch[0]].nbytes > TOGETHER:
            yield _in_pieces(one, other, *known[batch[0]])
            continue
        ours = one.read_all([known[name][0].path for name in batch])
        theirs = other.read_all([known[name][1].path for name in batch])
        for name in batch:
            first, second = known[name]
            meter = Meter()
            _add(meter, ours.pop(first.path), theirs.pop(second.path))
            yield meter.distance


def _add(meter: Meter, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> None:
    first, second = first.reshape(-1), second.reshape(-1)
    for start in range(0, first.size, _ELEMENTS):
        meter.add(first[start : start + _ELEMENTS], second[start : start + _ELEMENTS])


def _in_pieces(
    one: TensorSource, other: TensorSource, first: TensorInfo, second: TensorInfo
) -> Distance:
    meter = Meter()
    ours, theirs = pieces(one, first.path, _ELEMENTS), pieces(other, second.path, _ELEMENTS)
    for a, b in zip(ours, theirs, strict=True):
        meter.add(a, b)
    return meter.distance

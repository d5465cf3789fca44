"""Single objects, or several, out of a run's checkpoint: source -> compare -> *fill*.

A manager's checkpoint has a group for each object that was tracked, by its name. Whoever wants some
of them (an optimizer, two of five models, a list of variables) names them alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools.errors import ArtefactKindError, NotBuiltError
from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.formats.targets import Part, Target
from keras_ckpt_tools.formats.tensor_source import Relabelled, TensorSource
from keras_ckpt_tools.loading.former_weights import has_migrated
from keras_ckpt_tools.loading.remedies import only_one_model
from keras_ckpt_tools.metadata import Record, TrackedObject


class _Groups(Relabelled):
    """Some groups of a source, under names of their own."""

    def __init__(self, source: Source, groups: Iterable[tuple[str, str]]):
        self._checked = source
        places = {
            f"{ours}{path.removeprefix(theirs)}": path
            for theirs, ours in groups
            for path in source.tensors
            if path.startswith(theirs)
        }
        super().__init__(source, places)

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        paths = list(paths)
        self._checked.check_others(self._paths[path] for path in paths)
        return super().read_all(paths)


def open_tracked(source: Source, target: Any, *, build: bool = True) -> tuple[Target, TensorSource]:
    """Match a run's checkpoint with live objects.

    Args:
        source: The checkpoint.
        target: An optimizer, module or variable that it has one of; or a list or dict of objects by
            the names that they were tracked by.
        build: Whether optimizers without state are built on what they were built on.

    Raises:
        NotBuiltError: something has no variables yet.
        ArgumentError: the target has something that cannot be restored.
        ArtefactKindError: the file does not say what its groups are, or has several that may be
            meant.
    """
    parts = Target(target)
    tracked = source.record.objects_tracked if source.record else {}
    if not tracked:
        raise only_one_model(source.kind, source.path, target)
    if parts.is_container:
        names = {part.name: part.name for part in parts.parts}
        found = names if names.keys() <= tracked.keys() else {name: name for name in tracked}
        groups = [(f"{name}/", f"{name}/") for name in found]
    else:
        names = {"": _only(source, parts.parts[0], tracked)}
        groups = [(f"{names['']}/", "")]
    if build:
        for part in parts.parts:
            if part.is_optimizer and not part.target.built:
                _build(part, tracked.get(names[part.name]), parts, source.record)
    return parts, _Groups(source, groups)


def _only(source: Source, part: Part, tracked: dict[str, TrackedObject]) -> str:
    kind = "optimizer" if part.is_optimizer else "keras" if part.is_keras else ""
    if isinstance(part.target, keras.Model):
        kind = "model"
    kinds = {kind} if kind else {"variable", "module", "container", "keras"}
    names = [name for name, one in tracked.items() if one.kind in kinds]
    shapes = {path: info.shape for path, info in part.captured().infos().items()}
    fitting = [name for name in names if _shapes(source, name) == shapes] or names
    if len(fitting) == 1:
        return fitting[0]
    held = ", ".join(f"{name} ({one.kind})" for name, one in tracked.items())
    raise ArtefactKindError(
        f"The checkpoint holds {len(fitting)} objects that may be meant; it has {held}.",
        received=f"path={source.path!r}, target={part.target!r}",
        remedy=f'Say which: `kct.load_weights({{"{next(iter(tracked))}": ...}}, {source.path!r})`.',
        path=source.path,
        kind=str(source.kind),
    )


def _shapes(source: Source, name: str) -> dict[str, tuple[int, ...]]:
    start = len(name) + 1
    return {p[start:]: i.shape for p, i in source.tensors.items() if p.startswith(f"{name}/")}


def _build(
    part: Part, described: TrackedObject | None, target: Target, record: Record | None
) -> None:
    if described is None or not described.built_on:
        return
    live = target.captured().values
    if all(path in live for path in described.built_on):
        part.target.build([live[path] for path in described.built_on])
        return
    for other in target.parts:
        all_of_it = all(path.startswith(f"{other.name}/") for path in described.built_on)
        if other.is_keras and all_of_it and has_migrated(other.target, record):
            part.target.build(other.target.trainable_variables)
            return
    lacking = [path for path in described.built_on if path not in live]
    raise NotBuiltError(
        f"The optimizer {part.name or 'target'!r} is not built, and was built on variables that "
        f"are not given here: {', '.join(lacking)}.",
        received=f"{part.name or 'target'}={part.target!r}",
        remedy="Call its `build(model.trainable_variables)`, or pass the model as well: "
        '`kct.load_weights({"model": model, "optimizer": optimizer}, path)`.',
        name=part.name,
    )

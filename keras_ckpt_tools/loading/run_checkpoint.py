"""The one model in a checkpoint that may hold several objects: source -> *view* -> compare, fill.

A run's checkpoint has each object under its name, and the optimizer of a compiled model beside it.
Seen from here it is what a file of weights is: the model's tensors, and `optimizer/...`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools.errors import ArtefactKindError, NotBuiltError
from keras_ckpt_tools.formats.common.file_objects import folder_of
from keras_ckpt_tools.formats.keras2.translate import is_keras_2
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.formats.tensor_source import Relabelled, TensorSource
from keras_ckpt_tools.inspection.wrong_kind import only_one_model
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.foreign.keras2_archive import in_places_of_keras_3, weights_of_keras_2
from keras_ckpt_tools.live.foreign.keras2_h5 import legacy_weights
from keras_ckpt_tools.live.target import Part, Target
from keras_ckpt_tools.loading.migrations import has_migrated
from keras_ckpt_tools.matching import compare as comparison
from keras_ckpt_tools.metadata import Record, TrackedObject

__all__ = ["LEGACY", "build_config", "build_parts", "built_on_in", "weights_in"]

LEGACY = (Kind.H5_MODEL, Kind.H5_WEIGHTS_LEGACY)


def weights_in(source: Source, model: Any, *, by_name: bool = False) -> TensorSource:
    """Return the tensors of the one model in a source, under the paths that Keras gives them.

    Args:
        source: What was opened.
        model: The model that they are for, built.
        by_name: Whether a file of Keras 1 or 2 is matched by the names of layers alone.
    """
    if source.kind in LEGACY:
        return legacy_weights(source, model, by_name=by_name)
    if is_keras_2(source.metadata.get("keras_version")):
        return in_places_of_keras_3(source, model)
    if (moved := weights_of_keras_2(source, model)) is not None:
        return moved
    name = _model_name(source)
    if name is None or not any(path.startswith(f"{name}/") for path in source.tensors):
        return source
    return _WithOptimizer(source, name, _optimizer_group(source, name, model))


class _WithOptimizer(Relabelled):
    """A model in a checkpoint, with the optimizer that a manager tracks beside it."""

    def __init__(self, source: Source, name: str, optimizer: str | None):
        groups = [(f"{name}/", "")]
        if optimizer is not None:
            groups.append((f"{optimizer}/", comparison.OPTIMIZER_GROUP))
        self._checked = source
        super().__init__(
            source,
            {
                f"{ours}{path.removeprefix(theirs)}": path
                for theirs, ours in groups
                for path in source.tensors
                if path.startswith(theirs)
            },
        )

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        paths = list(paths)
        self._checked.check_others(self._paths[path] for path in paths)
        return super().read_all(paths)


def _optimizer_group(source: Source, name: str, model: Any) -> str | None:
    """Return the tracked optimizer of this model's variables, best in the same order."""
    if source.record is None or getattr(model, "optimizer", None) is None:
        return None
    paths = {id(value): path for path, value in state.capture(model).values.items()}
    trained = tuple(f"{name}/{paths.get(id(v))}" for v in model.trainable_variables)
    own: list[str] = []
    for other, tracked in source.record.tracked.items():
        if tracked.kind == "optimizer" and tracked.built_on:
            if tracked.built_on == trained:
                return other
            if all(path.startswith(f"{name}/") for path in tracked.built_on):
                own.append(other)
    # Of variables that the model had then: the comparison says what has changed.
    if len(own) == 1:
        return own[0]
    return None


def _model_name(source: Source) -> str | None:
    if source.record is None or not source.record.tracked:
        return None
    tracked = source.record.objects_tracked
    models = [name for name, one in tracked.items() if one.kind == "model"]
    if "model" in models:
        return "model"
    if len(models) == 1:
        return models[0]
    held = ", ".join(f"{name} ({one.kind})" for name, one in tracked.items())
    arguments = ", ".join(f"{name}={name}" for name in tracked)
    folder = folder_of(source.path)
    number = f"{len(models)} models" if models else "no model"
    raise ArtefactKindError(
        f"The checkpoint holds {number}, so there is not one that is meant; it has {held}.",
        received=f"path={source.path!r}",
        remedy="Say which one is meant, as in "
        f"`kct.load_weights({{{next(iter(models or tracked))!r}: ...}}, {source.path!r})`, or "
        "restore all of it with "
        f"`kct.CheckpointManager({folder!r}, {arguments}).restore_or_initialize()`.",
        path=source.path,
        kind=str(source.kind),
    )


def build_parts(source: Source) -> dict[str, Any]:
    """Return what the layers of the one model in a source were built with, by group."""
    name = _model_name(source)
    tracked = source.record.tracked.get(name) if source.record and name else None
    return dict(tracked.parts) if tracked else {}


def built_on_in(source: Source, group: str) -> list[str]:
    """Return the paths, in the one model, of what an optimizer in it was built on."""
    if source.record is None:
        return []
    name = _model_name(source)
    prefix = f"{name}/" if name else ""
    found = source.record.optimizers.get(f"{prefix}{group}")
    return [path.removeprefix(prefix) for path in found.built_on] if found else []


def build_config(source: Source) -> dict[str, Any] | None:
    """Return what the one model in a source was built with; `None` where it does not say."""
    if source.config is not None:
        config = source.config.get("build_config")
    else:
        name = _model_name(source)
        tracked = source.record.tracked.get(name) if source.record and name else None
        config = tracked.build_config if tracked else None
    return dict(config) if config else None


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

"""Find the model in a file that may hold several objects.

A run's checkpoint has a group for each object, and the optimizer of a compiled model in its own
group. This module returns them as in a file of weights: the model's tensors, and `optimizer/...`.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_ckpt_tools.errors import ArtefactKindError
from keras_ckpt_tools.formats.common.file_objects import folder_of
from keras_ckpt_tools.formats.keras2.translate import is_keras_2
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.orbax import OrbaxCheckpoint
from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.formats.tensor_source import ModelSource, SourceView, TensorSource
from keras_ckpt_tools.inspection.wrong_kind import only_one_model
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.adapters import Adapter
from keras_ckpt_tools.live.foreign.keras2_archive import in_places_of_keras_3, weights_of_keras_2
from keras_ckpt_tools.live.foreign.keras2_h5 import legacy_weights
from keras_ckpt_tools.live.foreign.orbax import match_orbax
from keras_ckpt_tools.live.migration import has_migrated
from keras_ckpt_tools.live.target import Target
from keras_ckpt_tools.matching import compare as comparison
from keras_ckpt_tools.metadata import Record, TrackedObject

LEGACY = (Kind.H5_MODEL, Kind.H5_WEIGHTS_LEGACY)


def weights_in(source: ModelSource, model: Any, *, by_name: bool = False) -> TensorSource:
    """Return the tensors of the only model in a source, under the paths of Keras.

    Args:
        source: The open file.
        model: The model to load them into, built.
        by_name: Whether a file of Keras 1 or 2 is matched by the names of layers only.
    """
    if isinstance(source, OrbaxCheckpoint):
        return match_orbax(source, model)
    if isinstance(source, Source) and source.kind in LEGACY:
        return legacy_weights(source, model, by_name=by_name)
    if is_keras_2(source.metadata.get("keras_version")):
        return in_places_of_keras_3(source, model)
    if (moved := weights_of_keras_2(source, model)) is not None:
        return moved
    name = _model_name(source)
    if name is None or not any(path.startswith(f"{name}/") for path in source.tensors):
        return source
    groups = {f"{name}/": ""}
    if (optimizer := _optimizer_group(source, name, model)) is not None:
        groups[f"{optimizer}/"] = comparison.OPTIMIZER_GROUP
    return SourceView(source, groups, checked=True)


def _optimizer_group(source: ModelSource, name: str, model: Any) -> str | None:
    """Return the tracked optimizer of this model's variables, preferably in the same order."""
    if source.record is None or getattr(model, "optimizer", None) is None:
        return None
    paths = {id(value): path for path, value in state.capture(model).values.items()}
    trained = tuple(f"{name}/{paths.get(id(v))}" for v in model.trainable_variables)
    own = source.record.optimizers_of(name)
    same = [one for one in own if source.record.tracked[one].built_on == trained]
    # The variables of the model at the save; the comparison finds what has changed.
    found = same[:1] or own
    return found[0] if len(found) == 1 else None


def _model_name(source: ModelSource) -> str | None:
    if source.record is None or not source.record.tracked:
        return None
    if (model := source.record.model) is not None:
        return model
    tracked = source.record.objects_tracked
    models = [name for name, one in tracked.items() if one.kind == "model"]
    held = ", ".join(f"{name} ({one.kind})" for name, one in tracked.items())
    arguments = ", ".join(f"{name}={name}" for name in tracked)
    folder = folder_of(source.path)
    number = f"{len(models)} models" if models else "no model"
    raise ArtefactKindError(
        f"The checkpoint holds {number}, so the model to load is not clear; it has {held}.",
        received=f"path={source.path!r}",
        remedy="Name it, as in "
        f"`kct.load_weights({{{next(iter(models or tracked))!r}: ...}}, {source.path!r})`, or "
        "restore all of it with "
        f"`kct.CheckpointManager({folder!r}, {arguments}).restore_or_initialize()`.",
        path=source.path,
        kind=str(source.kind),
    )


def build_parts(source: ModelSource) -> dict[str, Any]:
    """Return the build configs of the layers of the only model in a source, by group."""
    name = _model_name(source)
    tracked = source.record.tracked.get(name) if source.record and name else None
    return dict(tracked.parts) if tracked else {}


def built_on_in(source: ModelSource, group: str) -> list[str]:
    """Return the paths, in the only model, of the variables an optimizer in it was built on."""
    if source.record is None:
        return []
    name = _model_name(source)
    prefix = f"{name}/" if name else ""
    found = source.record.optimizers.get(f"{prefix}{group}")
    return [path.removeprefix(prefix) for path in found.built_on] if found else []


def build_config(source: ModelSource) -> dict[str, Any] | None:
    """Return the build config of the only model in a source, or `None`."""
    if source.config is not None:
        config = source.config.get("build_config")
    else:
        name = _model_name(source)
        tracked = source.record.tracked.get(name) if source.record and name else None
        config = tracked.build_config if tracked else None
    return dict(config) if config else None


def open_tracked(
    source: ModelSource, target: Any, *, build: bool = True
) -> tuple[Target, TensorSource]:
    """Match a run's checkpoint with live objects.

    Args:
        source: The checkpoint.
        target: An optimizer, module or variable of which it has only one; or a list or dict of
            objects, by the names that they were tracked with.
        build: Whether optimizers without state are built on the variables in the record.

    Raises:
            NotBuiltError: an object has no variables yet.
            ArgumentError: the target contains an object that cannot be restored.
            ArtefactKindError: the file does not describe its groups, or several groups match.
    """
    parts = Target(target)
    tracked = source.record.objects_tracked if source.record else {}
    if not tracked:
        raise only_one_model(source.kind, source.path, target)
    if parts.is_container:
        names = {part.name: part.name for part in parts.parts}
        found = names if names.keys() <= tracked.keys() else {name: name for name in tracked}
        groups = {f"{name}/": f"{name}/" for name in found}
    else:
        names = {"": _only(source, parts.parts[0], tracked)}
        groups = {f"{names['']}/": ""}
    if build:
        for part in parts.parts:
            if part.is_optimizer and not part.target.built:
                _build(part, tracked.get(names[part.name]), parts, source.record)
    return parts, SourceView(source, groups, checked=True)


def _only(source: ModelSource, part: Adapter, tracked: dict[str, TrackedObject]) -> str:
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
        f"The checkpoint holds {len(fitting)} objects of this kind; it has {held}.",
        received=f"path={source.path!r}, target={part.target!r}",
        remedy=f'Name it: `kct.load_weights({{"{next(iter(tracked))}": ...}}, {source.path!r})`.',
        path=source.path,
        kind=str(source.kind),
    )


def _shapes(source: ModelSource, name: str) -> dict[str, tuple[int, ...]]:
    start = len(name) + 1
    return {p[start:]: i.shape for p, i in source.tensors.items() if p.startswith(f"{name}/")}


def _build(
    part: Adapter, described: TrackedObject | None, target: Target, record: Record | None
) -> None:
    if described is None or not described.built_on:
        return
    live = target.captured().values
    if not all(path in live for path in described.built_on):
        for other in target.parts:
            all_of_it = all(path.startswith(f"{other.name}/") for path in described.built_on)
            if other.is_keras and all_of_it and has_migrated(other.target, record):
                part.target.build(other.target.trainable_variables)
                return
    part.prepare(described, live)

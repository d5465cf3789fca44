"""Fill weights into a model that is there: source -> compare -> *fill*.

All or nothing when strict. From a run's checkpoint, which may hold several objects, the model is
taken by its name; a directory of checkpoints stands for its newest whole one.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_ckpt_tools.errors import ArgumentError, ArtefactKindError, DamagedArtefactError
from keras_ckpt_tools.formats import comparison, state
from keras_ckpt_tools.formats.attached import attach_progress
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.limits import Limits
from keras_ckpt_tools.formats.orbax_checkpoint import OrbaxCheckpoint
from keras_ckpt_tools.formats.orbax_match import has_optimizer, match_orbax
from keras_ckpt_tools.formats.report import RestoreReport
from keras_ckpt_tools.formats.source import Source, open_source
from keras_ckpt_tools.formats.tensor_source import TensorSource, read_from
from keras_ckpt_tools.loading import directories
from keras_ckpt_tools.loading.allocation import counted_variables
from keras_ckpt_tools.loading.build import with_fresh_optimizer
from keras_ckpt_tools.loading.former_weights import (
    as_they_are_now,
    former_optimizer,
    with_lost_state,
)
from keras_ckpt_tools.loading.orbax import with_step
from keras_ckpt_tools.loading.remedies import damaged, wrong_kind

__all__ = ["load_weights", "open_weights", "require_model", "weights_in"]

_WEIGHTS = (Kind.KERAS, Kind.KERAS_DIR, Kind.H5_WEIGHTS, Kind.CHECKPOINT)


def load_weights(
    model: Any,
    path: str | os.PathLike[str],
    *,
    strict: bool = True,
    max_bytes: int | None = None,
) -> RestoreReport:
    """Load weights into a model, all or nothing.

    Reach for it where the model is built by your code and the file has its weights. A compiled
    model gets the optimizer's state as well, where the file has it.

    Args:
        model: A Keras model. One that is not built yet is built where the file says for what shape.
        path: A `.weights.h5`, a `.keras` archive or directory, a checkpoint of a
            `kct.CheckpointManager`, or its directory (the newest whole checkpoint is taken). A
            TensorFlow checkpoint of one model, as `save_weights("cp.ckpt")` of Keras 2 and
            `tf.train.Checkpoint(model=model)` write: its prefix or its directory. What
            `keras.callbacks.OrbaxCheckpoint` wrote: all of it (the newest whole step is taken) or
            one step.
        strict: Whether everything has to match. If not, what matches is loaded, and the report
            says what did not.
        max_bytes: What the tensors in the file, and a model that is built for the shape that the
            file gives, may take. Default: the memory that this machine has left.

    Returns:
        The report; it is true if everything matched.

    Raises:
        RestoreError: something does not match and `strict`; nothing was changed. Its `report` says
            what.
        NotBuiltError: the model has no variables yet, and the file does not say for what shape.
        ArtefactNotFoundError: nothing is at the path.
        ArtefactKindError: it holds no weights that could be read; says which call opens it.
        DamagedArtefactError: it is empty, truncated, or bytes have changed.
        UnsafeArtefactError: it has links, data in other files, or names that lead out of it.
        OverBudgetError: it would take more than it may.
        ArgumentError: an argument cannot work.

    Example:

    >>> import os, tempfile
    >>> import keras
    >>> import keras_ckpt_tools as kct
    >>> path = os.path.join(tempfile.mkdtemp(), "model.weights.h5")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.save_weights(path)
    >>> print(kct.load_weights(model, path).summary)
    2 matched
    """
    require_model(model)
    if not isinstance(strict, bool):
        raise ArgumentError(
            "`strict` is True or False.",
            received=f"strict={strict!r}",
            remedy="Pass True to load all or nothing, False to load what fits.",
        )
    bad: list[str] = []
    limits = Limits.of(max_bytes)
    for artefact in weights_at(path, bad, limits):
        try:
            report = _load(model, artefact, strict, limits)
        except DamagedArtefactError as error:
            if artefact.path == str(path):
                raise
            bad.append(f"{os.path.basename(artefact.path)}: {error.what}")
            continue
        if bad:
            warnings.warn(
                f"Loaded {artefact.path!r}; passed over damaged checkpoints: {'; '.join(bad)}.",
                UserWarning,
                stacklevel=2,
            )
        return report
    raise DamagedArtefactError(
        f"No checkpoint of the directory can be loaded: {'; '.join(bad)}.",
        received=f"path={str(path)!r}",
        remedy="Restore one from a copy, or train anew.",
        path=str(path),
    )


def _load(model: Any, artefact: Artefact, strict: bool, limits: Limits) -> RestoreReport:
    if artefact.kind is Kind.TF_CHECKPOINT:
        return state.fill(model, tensorflow_weights(artefact, model), strict=strict)
    if artefact.kind is Kind.ORBAX:
        return with_step(artefact, "latest", limits, lambda step: _fill_orbax(step, model, strict))
    with open_weights(artefact, limits) as source:
        held = sum(info.nbytes for info in source.tensors.values())
        with counted_variables(source.path, held, limits.max_bytes):
            state.build_like(model, _build_config(source), "model")
        weights = weights_in(source, model)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and _has_optimizer(weights):
            state.build_optimizer(optimizer, model.trainable_variables)
        weights = as_they_are_now(weights, source.record, model, group=model_group(source))
        report = state.fill(model, with_fresh_optimizer(weights, model), strict=strict)
        report = with_lost_state(report, weights)
        source.check_unchanged()
        if report and source.record is not None:
            attach_progress(model, source.record.progress)
    return dataclasses.replace(report, not_finite=tuple(source.not_finite))


def _fill_orbax(step: OrbaxCheckpoint, model: Any, strict: bool) -> RestoreReport:
    weights = orbax_weights(step, model)
    report = state.fill(model, with_fresh_optimizer(weights, model), strict=strict)
    if report:
        attach_progress(model, step.progress)
    return dataclasses.replace(report, not_finite=tuple(step.not_finite))


def orbax_weights(step: OrbaxCheckpoint, model: Any) -> TensorSource:
    """Return the tensors of an Orbax checkpoint under the paths of a model.

    Args:
        step: The checkpoint.
        model: The model that they are for. It is built if the checkpoint has its config, its
            optimizer if the checkpoint has one.
    """
    held = sum(info.nbytes for info in step.tensors.values())
    with counted_variables(step.path, held, step.limits.max_bytes):
        state.build_like(model, (step.config or {}).get("build_config"), "model")
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and has_optimizer(step):
        state.build_optimizer(optimizer, model.trainable_variables)
    return match_orbax(step, model)


def tensorflow_weights(artefact: Artefact, model: Any) -> TensorSource:
    """Return the tensors of a TensorFlow checkpoint under the paths of a Keras 3 model.

    Args:
        artefact: A prefix, one of its files, or a directory.
        model: The model that they are for. Its optimizer is built if the checkpoint has one.

    Raises:
        ArtefactNotFoundError: the checkpoint that is named is not there.
        DamagedArtefactError: it cannot be read.
    """
    from keras_ckpt_tools.formats.tf_checkpoint import TfCheckpoint, prefix_of
    from keras_ckpt_tools.formats.tf_objects import match_model

    state.build_like(model, None, "model")
    checkpoint = TfCheckpoint(prefix_of(artefact.path))
    # `save_weights` of Keras 2 saves the model, `tf.train.Checkpoint(model=...)` an object with it.
    node = checkpoint.root.children.get("model", checkpoint.root)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and "optimizer" in node.children:
        state.build_optimizer(optimizer, model.trainable_variables)
    return match_model(checkpoint, node, model, optimizer)


def _has_optimizer(weights: TensorSource) -> bool:
    return any(path.startswith(comparison.OPTIMIZER_GROUP) for path in weights.tensors)


def weights_at(
    path: str | os.PathLike[str], bad: list[str], limits: Limits | None = None
) -> Iterator[Artefact]:
    """Yield what is at a path, or the checkpoints of a directory, the newest first.

    Args:
        path: Where to look.
        bad: Takes what is visibly damaged, as sentences.
        limits: What it may take.
    """
    artefact = tell(path, limits)
    if artefact.kind is not Kind.CHECKPOINT_DIR:
        yield artefact
        return
    found = directories.look_into(artefact.path, {Kind.CHECKPOINT})
    bad.extend(f"{one.name}: {one.damage}" for one in found if one.damage)
    for one in directories.latest_first(found):
        yield tell(one.path, limits)


@contextmanager
def open_weights(artefact: Artefact, limits: Limits | None = None) -> Iterator[Source]:
    """Open what holds weights in Keras 3's layout, or say what it is instead."""
    if artefact.refusal is not None:
        raise artefact.refusal
    if artefact.kind not in _WEIGHTS:
        raise wrong_kind(artefact, "weights")
    if artefact.damage:
        raise damaged(artefact)
    with open_source(artefact.path, artefact, limits) as source:
        yield source


def weights_in(source: Source, model: Any) -> TensorSource:
    """Return the tensors of the one model in a source, under the paths that Keras gives them.

    Args:
        source: What was opened.
        model: The model that they are for, built.
    """
    name = model_group(source)
    if name is None or not any(path.startswith(f"{name}/") for path in source.tensors):
        return source
    return _WithOptimizer(source, name, _optimizer_group(source, name, model))


class _WithOptimizer:
    """A model in a checkpoint, with the optimizer that a manager tracks beside it."""

    def __init__(self, source: Source, name: str, optimizer: str | None):
        self.path = source.path
        self._source = source
        groups = [(f"{name}/", "")]
        if optimizer is not None:
            groups.append((f"{optimizer}/", comparison.OPTIMIZER_GROUP))
        self._places = {
            f"{ours}{path.removeprefix(theirs)}": path
            for theirs, ours in groups
            for path in source.tensors
            if path.startswith(theirs)
        }
        self.tensors = {path: source.tensors[place] for path, place in self._places.items()}

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        places = {path: self._places[path] for path in paths}
        self._source.check_others(places.values())
        return read_from(self._source, places)


def _optimizer_group(source: Source, name: str, model: Any) -> str | None:
    """Return the tracked optimizer that was built on this model's variables, in their order."""
    if source.record is None or getattr(model, "optimizer", None) is None:
        return None
    paths = {id(value): path for path, value in state.capture(model).values.items()}
    trained = tuple(f"{name}/{paths.get(id(v))}" for v in model.trainable_variables)
    for other, tracked in source.record.tracked.items():
        if tracked.kind == "optimizer" and tracked.built_on == trained:
            return other
    return former_optimizer(source.record, name, model)


def model_group(source: Source) -> str | None:
    """Return the group of the one model in a checkpoint; `None` where it is at the root."""
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
    folder = os.path.dirname(source.path) or "."
    number = f"{len(models)} models" if models else "no model"
    raise ArtefactKindError(
        f"The checkpoint holds {number}, so there is not one that is meant; it has {held}.",
        received=f"path={source.path!r}",
        remedy="Restore all of it with "
        f"`kct.CheckpointManager({folder!r}, {arguments}).restore_or_initialize()`.",
        path=source.path,
        kind=str(source.kind),
    )


def _build_config(source: Source) -> dict[str, Any] | None:
    if source.config is not None:
        config = source.config.get("build_config")
    else:
        name = model_group(source)
        tracked = source.record.tracked.get(name) if source.record and name else None
        config = tracked.build_config if tracked else None
    return dict(config) if config else None


def require_model(model: Any) -> None:
    """Refuse what has no variables to restore into.

    Raises:
        ArgumentError: it is no Keras object.
    """
    if not hasattr(model, "variables") or isinstance(model, type):
        raise ArgumentError(
            "The first argument is a Keras model, the second a path.",
            received=f"model={model!r}",
            remedy="Call `kct.load_weights(model, path)`.",
        )

"""Answer "where is training?": model, path or manager -> *progress*.

One function, one record, and never an AttributeError. It answers what people reached for in the
private `model._ckpt_saved_epoch`.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.formats.attached import attached_progress
from keras_ckpt_tools.formats.checkpoint_dir import list_checkpoints
from keras_ckpt_tools.formats.glimpse import glimpse
from keras_ckpt_tools.formats.handles import open_regular
from keras_ckpt_tools.formats.kinds import Kind, plain_path, tell
from keras_ckpt_tools.formats.limits import Limits
from keras_ckpt_tools.formats.orbax_checkpoint import OrbaxCheckpoint, steps_in
from keras_ckpt_tools.formats.source import open_source
from keras_ckpt_tools.formats.tf_run import is_prefix, record_of
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.training.stock_backups import progress_of_stock


def training_progress(source: Any) -> TrainingProgress:
    """Return where the training of a model, a file, a directory or a manager is.

    Reach for it instead of counting epochs yourself: `epochs_completed` is the `initial_epoch` to
    go on with.

    Args:
        source: A Keras model; the path of a file or of a directory of checkpoints (the newest
            counts), of Keras' own backups or of its `OrbaxCheckpoint`; or a `CheckpointManager`.

    Returns:
        The record. For a model that was never trained, and for a file that says nothing about its
        training, that is the zero record.

    Raises:
        ArgumentError: `source` is none of these.
        ArtefactNotFoundError: there is nothing at the path.
        DamagedArtefactError: there is, and its record is damaged.

    Example:

    >>> import keras
    >>> import keras_ckpt_tools as kct
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> kct.training_progress(model).epochs_completed
    0
    """
    if isinstance(source, (str, os.PathLike)):
        return _of_path(plain_path(source))
    progress = getattr(source, "progress", None)
    if isinstance(progress, TrainingProgress):
        return progress
    if hasattr(source, "variables") and hasattr(source, "layers"):
        return _of_model(source)
    raise ArgumentError(
        "Training progress is known of a Keras model, a path, or a `CheckpointManager`.",
        received=f"source={source!r}",
        remedy="Pass one of these.",
    )


def _of_path(path: str) -> TrainingProgress:
    if os.path.isdir(path):
        saved, _ = list_checkpoints(path)
        if saved:
            return saved[-1].progress
        in_newest = _newest_of(path)
        if in_newest is not None:
            return in_newest
        stock = progress_of_stock(path)
        if stock is not None:
            return stock
    if is_prefix(path):
        return record_of(path)[0].progress
    artefact = tell(path)
    if artefact.kind is Kind.ORBAX:
        steps = steps_in(path)
        newest = os.path.join(path, str(steps[-1])) if steps else path
        with OrbaxCheckpoint(newest, Limits.of()) as step:
            return step.progress
    with open_source(path, artefact) as opened:
        return opened.record.progress if opened.record else TrainingProgress()


def _newest_of(directory: str) -> TrainingProgress | None:
    """Return what the newest file of ours says in a directory of a `ModelCheckpoint`."""
    found = []
    for entry in os.scandir(directory):
        descriptor = open_regular(entry.path) if entry.is_file(follow_symlinks=False) else None
        if descriptor is None:
            continue
        with open(descriptor, "rb") as file:
            seen = glimpse(file.fileno(), entry.path)
        if seen.head is not None and not seen.damage:
            found.append((seen.head.progress.saved_at, entry.path))
    return _of_path(max(found)[1]) if found else None


def _of_model(model: Any) -> TrainingProgress:
    from keras_ckpt_tools.training.run import known_run, optimizer_step

    run = known_run(model)
    optimizer = getattr(model, "optimizer", None)
    if run is not None:
        return run.progress(optimizer)
    attached = attached_progress(model)
    if attached is not None:
        return attached
    return dataclasses.replace(TrainingProgress(), step=optimizer_step(optimizer) or 0)

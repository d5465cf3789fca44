"""Return the training progress of a model, a path or a manager.

It replaces the private `model._ckpt_saved_epoch`, which programs read for this purpose, and never
raises an AttributeError.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Kind, plain_path, tell
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.inspection.orbax_steps import with_step
from keras_ckpt_tools.live.attached_progress import attached_progress
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.listing import entries_in
from keras_ckpt_tools.runs.stock_backups import progress_of_stock

_ITERATIONS = f"{OPTIMIZER_GROUP}vars/0"


def training_progress(source: Any) -> TrainingProgress:
    """Return the training progress of a model, a file, a directory or a manager.

    Use it instead of counting epochs: `epochs_completed` is the `initial_epoch` to resume with.

    Args:
        source: A Keras model; the path of a file, of a directory of checkpoints (the last save
            counts), of Keras' own backups or of its `OrbaxCheckpoint`; or a `CheckpointManager`.

    Returns:
        The progress. For a model that was never trained, and for a file without a record, all
        values are zero, except `step`, which is that of the optimizer in the file, if any.

    Raises:
        ArgumentError: `source` is none of these.
        ArtefactNotFoundError: the path does not exist.
        DamagedArtefactError: the record of the file is damaged.

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
        "`source` must be a Keras model, a path, or a `CheckpointManager`.",
        received=f"source={source!r}",
        remedy="Pass one of these.",
    )


def _of_path(path: str) -> TrainingProgress:
    if os.path.isdir(path):
        newest = next((one for one in entries_in(path) if one.ours), None)
        if newest is not None:
            return newest.progress_with_history()
        stock = progress_of_stock(path)
        if stock is not None:
            return stock
    artefact = tell(path)
    if artefact.kind is Kind.ORBAX:
        return with_step(artefact, "latest", Limits.of(), lambda step: step.progress)
    with open_source(path, artefact) as opened:
        if opened.record is not None or opened.kind is Kind.TF_CHECKPOINT:
            return opened.progress
        return TrainingProgress(step=_step_of(opened))


def _step_of(source: TensorSource) -> int:
    """Return the number of updates from the state of an optimizer, which comes first."""
    info = source.tensors.get(_ITERATIONS)
    if info is None or info.shape or "int" not in info.dtype:
        return 0
    return max(int(source.read_all([_ITERATIONS])[_ITERATIONS]), 0)


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

"""The ways of this package to save a model."""

from __future__ import annotations

from pathlib import Path

import keras

import keras_ckpt_tools as kct
from benchmarks.peers import Saver, callback_saver


def model_checkpoint(
    model: keras.Model, folder: Path, suffix: str = ".keras", *, background: bool = False
) -> Saver:
    """Return `ModelCheckpoint`."""
    callback = kct.ModelCheckpoint(
        folder / f"ours{background}{suffix}",
        save_weights_only=suffix == ".weights.h5",
        background=background,
    )
    how = f"{suffix}, in the background" if background else suffix
    name = f"**ours** `ModelCheckpoint` ({how})"
    return callback_saver(name, model, callback, callback.on_train_end)


def manager(model: keras.Model, folder: Path, *, background: bool = False) -> Saver:
    """Return `CheckpointManager`."""
    made = kct.CheckpointManager(
        folder / f"manager{background}", model=model, max_to_keep=1, background=background
    )
    how = " (in the background)" if background else ""
    return Saver(f"**ours** `CheckpointManager`{how}", made.save, made.wait)

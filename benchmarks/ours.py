"""The ways of this package to save a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

import keras_ckpt_tools as kct
from benchmarks.peers import Saver, callback_saver


def model_checkpoint(
    model: keras.Model, folder: Path, suffix: str = ".keras", *, background: bool = False
) -> Saver:
    """Return `ModelCheckpoint`."""
    path = folder / f"ours{background}{suffix}"
    callback = kct.ModelCheckpoint(
        path,
        save_weights_only=suffix == ".weights.h5",
        background=background,
    )
    how = f"{suffix}, in the background" if background else suffix
    name = f"**ours** `ModelCheckpoint` ({how})"
    saver = callback_saver(name, model, callback, callback.on_train_end)
    return _watched(saver, lambda: _version_of(path)) if background else saver


def manager(model: keras.Model, folder: Path, *, background: bool = False) -> Saver:
    """Return `CheckpointManager`."""
    made = kct.CheckpointManager(
        folder / f"manager{background}", model=model, max_to_keep=1, background=background
    )
    how = " (in the background)" if background else ""
    saver = Saver(f"**ours** `CheckpointManager`{how}", made.save, made.wait)
    return _watched(saver, lambda: made.latest_checkpoint) if background else saver


def waited_for(saver: Saver) -> Saver:
    """Return a saver in the background for which a thread waits while training goes on."""
    return dataclasses.replace(saver, name=f"{saver.name}, somebody waits", busy=None)


def _watched(saver: Saver, newest: Callable[[], Any]) -> Saver:
    """Return a saver that is busy until there is something newer than when it began."""
    before: list[Any] = []

    def save() -> None:
        before[:] = [newest()]
        saver.save()

    return dataclasses.replace(saver, save=save, busy=lambda: [newest()] == before)


def _version_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns

"""Small models, and callbacks that are driven by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.retention import Policy
from keras_ckpt_tools.training.checkpoints import Checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Any]:
    """A function that makes a `ModelCheckpoint` in the test's directory, on a model of ones."""
    from programs import constant_model

    import keras_ckpt_tools as kct

    def make(name: str = "model.keras", model: Any = None, **arguments: Any) -> Any:
        callback = kct.ModelCheckpoint(tmp_path / name, **arguments)
        callback.set_model(constant_model(1.0) if model is None else model)
        return callback

    return make


@pytest.fixture
def end_epoch() -> Callable[..., None]:
    """A function that lets an epoch begin and end, with logs."""

    def end(callback: Any, epoch: int, **logs: Any) -> None:
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, logs)

    return end


@pytest.fixture
def save_and_restore(tmp_path: Path) -> Callable[..., None]:
    """A function that saves an object under the name `it`, and restores another from that."""

    def do(saved: Any, restored: Any) -> None:
        path = Checkpoints(str(tmp_path), {"it": saved}, Policy()).save(TrainingProgress())
        Checkpoints(str(tmp_path), {"it": restored}, Policy()).restore(path)

    return do


@pytest.fixture
def manager(tmp_path: Path) -> Callable[..., Any]:
    """A function that makes a manager in the test's directory, of one variable if of nothing."""
    import tensorflow as tf

    import keras_ckpt_tools as kct

    settings = {
        "background",
        "keep",
        "max_to_keep",
        "mode",
        "monitor",
        "resume",
        "save_freq",
        "tensorboard",
        "verbose",
    }

    def make(**arguments: Any) -> Any:
        if not set(arguments) - settings:
            arguments["variable"] = tf.Variable(0.0)
        return kct.CheckpointManager(tmp_path, **arguments)

    return make

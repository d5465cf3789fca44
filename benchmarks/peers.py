"""The peers: what else saves and loads Keras models, each in the way its documentation shows.

One that is not installed is left out and named in the results.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import floors

OPTIONAL = {"safetensors": "safetensors", "orbax.checkpoint": "orbax-checkpoint"}


def missing() -> list[str]:
    """Return the optional peers that are not installed."""
    return [name for module, name in OPTIONAL.items() if not _installed(module)]


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module.split(".", maxsplit=1)[0]) is not None


@dataclass(frozen=True)
class Saver:
    """One way to save a model.

    Attributes:
        name: What it is called in the results.
        save: Saves it, or begins to.
        wait: Returns when what was begun is on disk.
        busy: Whether what was begun is still under way; `None` where that is only known by waiting.
    """

    name: str
    save: Callable[[], Any]
    wait: Callable[[], Any] = lambda: None
    busy: Callable[[], bool] | None = None


class _Epochs:
    """Calls a callback as `fit()` does at the end of one epoch after another.

    Several take turns with one model, and an epoch that is begun again would be another run.
    """

    _numbers = itertools.count()

    def __init__(self, callback: keras.callbacks.Callback, model: keras.Model):
        self._callback = callback
        callback.set_model(model)
        # Peers that resume look for an earlier run now.
        callback.on_train_begin()

    def __call__(self) -> None:
        epoch = next(self._numbers)
        self._callback.on_epoch_begin(epoch)
        self._callback.on_epoch_end(epoch, {"loss": 1.0})


def callback_saver(
    name: str, model: keras.Model, callback: Any, wait: Callable[[], Any] = lambda: None
) -> Saver:
    """Return a saver that is a callback, called as at the end of epochs."""
    return Saver(name, _Epochs(callback, model), wait)


def keras_savers(model: keras.Model, folder: Path) -> list[Saver]:
    """Return Keras' own ways."""
    callbacks = keras.callbacks
    return [
        Saver("Keras `model.save` (.keras)", lambda: model.save(folder / "stock.keras")),
        Saver("Keras `save_weights`", lambda: model.save_weights(folder / "stock.weights.h5")),
        callback_saver(
            "Keras `ModelCheckpoint` (.keras)",
            model,
            callbacks.ModelCheckpoint(folder / "checkpoint.keras"),
        ),
        callback_saver(
            "Keras `BackupAndRestore`",
            model,
            callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False),
        ),
    ]


def orbax_saver(model: keras.Model, folder: Path) -> list[Saver]:
    """Return Keras' `OrbaxCheckpoint`, which saves in the background."""
    if not _installed("orbax.checkpoint") or not hasattr(keras.callbacks, "OrbaxCheckpoint"):
        return []
    callback = keras.callbacks.OrbaxCheckpoint(str(folder / "orbax"), max_to_keep=1)
    name = "Keras `OrbaxCheckpoint`"
    return [callback_saver(name, model, callback, callback.wait_until_finished)]


def tensorflow_checkpoint(model: keras.Model) -> tf.train.Checkpoint:
    """Return a checkpoint of a model's variables.

    Of the variables that Keras' own stand for: given Keras' own, the second save in the background
    fails (Keras 3.15.1 makes new variables inside the function that copies them).
    """
    return tf.train.Checkpoint(variables=floors.variables_of(model))


def tensorflow_saver(model: keras.Model, folder: Path, *, background: bool) -> Saver:
    """Return `tf.train.CheckpointManager`."""
    checkpoint = tensorflow_checkpoint(model)
    manager = tf.train.CheckpointManager(checkpoint, str(folder / f"tf{background}"), max_to_keep=1)
    options = tf.train.CheckpointOptions(enable_async=background)
    name = "`tf.train.CheckpointManager`" + (", `enable_async`" if background else "")
    return Saver(
        name,
        lambda: manager.save(options=options),
        checkpoint.sync if background else lambda: None,
    )


def safetensors_saver(model: keras.Model, folder: Path) -> list[Saver]:
    """Return safetensors, of all variables."""
    if not _installed("safetensors"):
        return []
    from safetensors.numpy import save_file

    variables = (*model.variables, *model.optimizer.variables)
    path = str(folder / "model.safetensors")

    def save() -> None:
        # safetensors takes no scalars of NumPy.
        save_file({v.path: np.asarray(v.numpy()) for v in variables}, path)

    return [Saver("safetensors", save)]


def safetensors_loader(model: keras.Model, folder: Path) -> Callable[[], None] | None:
    """Return what loads what `safetensors_saver` wrote."""
    if not _installed("safetensors"):
        return None
    from safetensors.numpy import load_file

    variables = (*model.variables, *model.optimizer.variables)
    path = str(folder / "model.safetensors")

    def load() -> None:
        tensors = load_file(path)
        for variable in variables:
            variable.value.assign(tensors[variable.path])

    return load

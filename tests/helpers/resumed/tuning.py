"""A search by KerasTuner with both callbacks, to be run in a process of its own and killed."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_ckpt_tools as kct

X = np.random.default_rng(0).random((32, 4), dtype="float32")
Y = X.sum(1, keepdims=True)


class Killed(keras.callbacks.Callback):
    """Ends the process at a batch of the whole search."""

    batches = 0

    def __init__(self, last: int):
        super().__init__()
        self.last = last

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the batches of all trials: a tuner copies its callbacks for each."""
        Killed.batches += 1
        if Killed.batches == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def build(hp: Any) -> keras.Model:
    """Return the model of a trial; its first weights are the same each time it is tried."""
    keras.utils.set_random_seed(1)
    units = hp.Int("units", 2, 8)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(hp.Choice("rate", [0.1, 0.03, 0.01])), "mse")
    return model


def search(directory: str, kind: str, last: int = 0) -> list[Any]:
    """Search, or go on with a search; return the trials with their hyperparameters and scores.

    Args:
        directory: Of the tuner, the backups and the best model.
        kind: `"RandomSearch"` or `"Hyperband"`.
        last: The batch of the whole search at which the process is killed; 0 for none.
    """
    import keras_tuner

    folder = Path(directory)
    common = {"seed": 3, "directory": folder / "tuner", "project_name": "search"}
    if kind == "Hyperband":
        tuner = keras_tuner.Hyperband(build, "val_loss", max_epochs=4, factor=2, **common)
    else:
        tuner = keras_tuner.RandomSearch(build, "val_loss", max_trials=3, **common)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Each trial is told that the others had another model.
        tuner.search(
            kct.data.ArrayDataset(X, Y, batch_size=8, shuffle=True, seed=5),
            validation_data=(X, Y),
            epochs=4,
            verbose=0,
            callbacks=[
                kct.ModelCheckpoint(folder / "best.keras", "val_loss", save_best_only=True),
                kct.BackupAndRestore(folder / "backup", save_freq=2),
                Killed(last),
            ],
        )
    trials = sorted(tuner.oracle.trials.values(), key=lambda trial: trial.trial_id)
    return [[t.trial_id, t.status, t.hyperparameters.values, t.score] for t in trials]

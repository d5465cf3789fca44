"""Grain's datasets: in `fit()` by passing over batches, in a loop by the iterator's own state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct

grain = pytest.importorskip("grain")

X = np.arange(64, dtype="float32").reshape(16, 4) / 64


def make_data() -> Any:
    """Return four batches in a shuffled order."""
    pairs = [(row, row.sum(keepdims=True)) for row in X]
    return grain.MapDataset.source(pairs).shuffle(seed=3).batch(4)


class Interrupted(Exception):
    """The end of a process, to a run."""


def takes_grain() -> bool:
    """Return whether this Keras takes Grain's datasets in `fit()`."""
    from keras.src.trainers import data_adapters

    return hasattr(data_adapters, "GrainDatasetAdapter")


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.skipif(not takes_grain(), reason="Keras before 3.13 takes no Grain dataset in fit()")
def test_fit_goes_on_inside_an_epoch(tmp_path: Path) -> None:
    """Keras begins the dataset anew in each epoch, in the same order."""

    def run(directory: Path, stop: int = 0) -> Any:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")

        def interrupt(batch: int, logs: Any) -> None:
            if int(model.optimizer.iterations) == stop:
                raise Interrupted

        callbacks = [
            kct.BackupAndRestore(directory, save_freq=1),
            keras.callbacks.LambdaCallback(on_train_batch_end=interrupt),
        ]
        data = make_data()
        return model.fit(data, epochs=3, shuffle=False, verbose=0, callbacks=callbacks).history

    with pytest.raises(Interrupted):
        run(tmp_path / "cut", stop=6)
    assert run(tmp_path / "cut") == run(tmp_path / "whole")


def test_an_iterator_is_tracked(tmp_path: Path) -> None:
    """By what it says of itself."""

    def run(path: Path, until: int) -> list[Any]:
        iterator = iter(make_data().repeat().to_iter_dataset())
        manager = kct.CheckpointManager(path, save_freq=2, data=iterator, weight=tf.Variable(0.0))
        return [next(iterator)[0].tolist() for _ in manager.steps(until)]

    whole = run(tmp_path / "whole", 10)
    assert run(tmp_path / "cut", 5) + run(tmp_path / "cut", 10) == whole

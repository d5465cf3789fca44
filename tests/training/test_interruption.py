"""Signals and exceptions during training, with real signals to real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.training.interruption import ExceptionWatch, SignalWatch


def _model() -> Any:
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


X, Y = np.ones((12, 2), "float32"), np.ones((12, 1), "float32")


class Interrupt(keras.callbacks.Callback):
    """Sends a signal to this process within a batch."""

    def __init__(self, at: int, number: int = signal.SIGINT):
        super().__init__()
        self.at, self.number, self.seen = at, number, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), self.number)


def test_ctrl_c_saves_the_state_and_then_interrupts(tmp_path: Path) -> None:
    """The batch under way is finished and saved; KeyboardInterrupt comes after that."""
    backup = kct.BackupAndRestore(tmp_path, save_on_signal=True)
    with pytest.raises(KeyboardInterrupt):
        _model().fit(X, Y, batch_size=4, epochs=3, verbose=0, callbacks=[Interrupt(5), backup])
    progress = kct.training_progress(tmp_path)
    assert (progress.epochs_completed, progress.batches_completed, progress.step) == (1, 2, 5)


def test_sigterm_goes_to_whoever_had_it_before(tmp_path: Path) -> None:
    """A handler of the user's is called after the save, and is in place again."""
    calls = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    mine = signal.getsignal(signal.SIGTERM)
    try:
        backup = kct.BackupAndRestore(tmp_path, save_on_signal=True, delete_checkpoint=False)
        _model().fit(
            X,
            Y,
            batch_size=4,
            verbose=0,
            callbacks=[Interrupt(2, signal.SIGTERM), backup],
        )
        assert calls == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_are_given_back_when_training_ends(tmp_path: Path) -> None:
    """After `fit()`, Ctrl-C does what it did before."""
    before = signal.getsignal(signal.SIGINT)
    backup = kct.BackupAndRestore(tmp_path, save_on_signal=True)
    _model().fit(X, Y, verbose=0, callbacks=[backup])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_after_training_failed_is_not_swallowed() -> None:
    """Keras does not say that `fit()` was left by an exception; the watch finds out."""
    watch = SignalWatch()
    before = signal.getsignal(signal.SIGINT)

    def train() -> None:
        watch.begin()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_is_handed_on_at_once() -> None:
    """Somebody who presses Ctrl-C twice is in a hurry."""
    watch = SignalWatch()
    watch.begin()
    signal.raise_signal(signal.SIGINT)
    assert watch.received
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_manual_loop_saves_on_a_signal_too(tmp_path: Path) -> None:
    """And goes on with the batch that comes next."""
    import tensorflow as tf

    total = tf.Variable(0)
    manager = kct.CheckpointManager(tmp_path, save_on_signal=True, total=total)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the loop is what is tested)
        for _ in manager.epochs(2):
            for number in manager.batches(range(5)):
                total.assign_add(number)
                if number == 2:
                    os.kill(os.getpid(), signal.SIGINT)
    assert int(total) == 3
    other = tf.Variable(0)
    manager = kct.CheckpointManager(tmp_path, total=other)
    for _ in manager.epochs(2):
        for number in manager.batches(range(5)):
            other.assign_add(number)
    assert int(other) == 20


class Failing(keras.Model):
    """A model whose third step fails."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.steps = 0

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        self.steps += 1
        if self.steps == 3:
            raise ZeroDivisionError("bad batch")
        return super().train_step(data)


def test_an_exception_in_a_step_saves_the_model_beside(tmp_path: Path) -> None:
    """The regular file is not touched, and the exception goes on."""
    model = Failing()
    model.compile("sgd", "mse", run_eagerly=True)
    path = tmp_path / "m.weights.h5"
    callback = kct.ModelCheckpoint(path, save_weights_only=True, save_on_exception=True)
    with pytest.raises(ZeroDivisionError, match="bad batch"):
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[callback])
    assert [p.name for p in tmp_path.iterdir()] == ["m-interrupted.weights.h5"]
    assert kct.training_progress(tmp_path / "m-interrupted.weights.h5").batches_completed == 2


def test_the_end_of_a_dataset_is_no_exception(tmp_path: Path) -> None:
    """`fit()` finds out by an exception that there are no more batches."""
    import tensorflow as tf

    callback = kct.ModelCheckpoint(tmp_path / "m.keras", save_on_exception=True)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    _model().fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]


def test_a_save_that_fails_does_not_hide_the_exception() -> None:
    """The first exception goes on, with a note about the second."""

    class Model:
        def train_function(self) -> None:
            raise ZeroDivisionError("bad batch")

    def save() -> None:
        raise OSError("disk full")

    model = Model()
    watch = ExceptionWatch(save)

    def fit() -> None:
        watch.begin(model)
        model.train_function()

    with pytest.raises(ZeroDivisionError, match="bad batch") as caught:
        fit()
    assert "disk full" in caught.value.__notes__[0]

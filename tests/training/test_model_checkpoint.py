"""`ModelCheckpoint`: what is saved, when, and what is said about it."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import (
    constant_model,
    names_in,
    small_data,
    small_model,
    state_of,
)

import keras_ckpt_tools as kct

Make = Callable[..., Any]
End = Callable[..., None]


# Formats.


@pytest.mark.parametrize("name", ["a.keras", "a.h5", "a.weights.h5"])
def test_stock_keras_opens_what_is_saved(name: str, checkpoint: Make) -> None:
    """Weights, momenta and all, in each format."""
    model = small_model()
    weights_only = name.endswith(".weights.h5")
    callback = checkpoint(name, model, save_weights_only=weights_only)
    model.fit(*small_data(), batch_size=4, verbose=0, callbacks=[callback])
    if weights_only:
        other = small_model()
        other.optimizer.build(other.trainable_variables)
        other.load_weights(callback.filepath)
    else:
        other = keras.models.load_model(callback.filepath)
    if name != "a.h5":  # Stock Keras does not read momenta back from its older format.
        assert state_of(other) == state_of(model)
    assert [np.asarray(w).tobytes() for w in other.weights] == [
        np.asarray(w).tobytes() for w in model.weights
    ]


def test_it_is_a_callback_of_keras(checkpoint: Make) -> None:
    """For programs that look for one."""
    assert isinstance(checkpoint(), keras.callbacks.ModelCheckpoint)


# When.


def test_a_pattern_is_filled_in_at_each_epoch(checkpoint: Make, tmp_path: Path) -> None:
    """One-based epochs, as in Keras."""
    model = small_model()
    callback = checkpoint("{epoch:02d}.keras", model)
    model.fit(*small_data(), epochs=3, verbose=0, callbacks=[callback])
    assert names_in(tmp_path) == ["01.keras", "02.keras", "03.keras"]
    assert kct.training_progress(tmp_path / "02.keras").epochs_completed == 2


@pytest.mark.parametrize(
    ("steps_per_execution", "expected"),
    [(1, ["1-3", "2-2", "3-1", "3-4"]), (2, ["1-4", "2-4", "3-4"])],
)
def test_batches_are_counted_in_fit(
    steps_per_execution: int, expected: list[str], checkpoint: Make, tmp_path: Path
) -> None:
    """Every third of them; with `steps_per_execution=2` only each second is reported."""
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    model = small_model()
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    callback = checkpoint("{epoch}-{batch}.keras", model, save_freq=3)
    model.fit(*small_data(), batch_size=4, epochs=3, verbose=0, callbacks=[callback, watch])
    if seen[0] != steps_per_execution - 1:
        pytest.skip(f"Keras {keras.__version__} reports the first batch of an execution")
    assert names_in(tmp_path) == [f"{name}.keras" for name in expected]
    progress = kct.training_progress(tmp_path / f"{expected[1]}.keras")
    assert progress.batches_completed == int(expected[1][2])
    assert progress.step == 4 + int(expected[1][2])


def test_a_run_too_short_for_its_save_freq_says_so(checkpoint: Make, tmp_path: Path) -> None:
    """Both numbers, once, when training ends with nothing saved."""
    model = small_model()
    callback = checkpoint("a.keras", model, save_freq=10_000)
    with pytest.warns(UserWarning, match=r"after 8 batches, and `save_freq=10000`") as told:
        model.fit(*small_data(), batch_size=4, epochs=2, verbose=0, callbacks=[callback])
    assert len(told) == 1
    assert names_in(tmp_path) == []


def test_a_run_that_saved_ends_in_silence(checkpoint: Make, tmp_path: Path) -> None:
    """Also one of no batch at all."""
    model = small_model()
    model.fit(
        *small_data(),
        batch_size=4,
        verbose=0,
        callbacks=[checkpoint("a.keras", model, save_freq=4)],
    )
    assert names_in(tmp_path) == ["a.keras"]
    callback = checkpoint("b.keras", model, save_freq=4)
    callback.on_train_begin()
    callback.on_train_end()


def test_a_clock_saves(checkpoint: Make, tmp_path: Path) -> None:
    """So short a time has passed at each batch."""
    model = small_model()
    callback = checkpoint("{batch}.keras", model, save_freq=datetime.timedelta(microseconds=1))
    model.fit(*small_data(), batch_size=4, verbose=0, callbacks=[callback])
    assert names_in(tmp_path) == ["1.keras", "2.keras", "3.keras", "4.keras"]


def test_a_loop_over_train_on_batch_saves(checkpoint: Make, tmp_path: Path) -> None:
    """By calling the hooks, with logs that hold tensors and arrays."""
    model = small_model()
    x, y = small_data(2)
    callback = checkpoint("{epoch}-{loss:.3f}.keras", model, monitor="loss", save_best_only=True)
    for epoch in range(2):
        for batch in range(2):
            rows = slice(4 * batch, 4 * batch + 4)
            loss = model.train_on_batch(x[rows], y[rows])
            callback.on_train_batch_end(batch, {"loss": loss})
        callback.on_epoch_end(epoch, {"loss": tf.constant(1.0 - epoch / 4)})
    assert names_in(tmp_path) == ["1-1.000.keras", "2-0.750.keras"]
    assert kct.training_progress(tmp_path / "2-0.750.keras").step == 4


def test_a_callback_list_drives_it(checkpoint: Make, tmp_path: Path) -> None:
    """`keras.callbacks.CallbackList`, as people write loops."""
    model = small_model()
    callbacks = keras.callbacks.CallbackList([checkpoint("{epoch}.keras", model)], model=model)
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_train_batch_begin(0)
        callbacks.on_train_batch_end(0, {"loss": model.train_on_batch(*small_data(1))})
        callbacks.on_epoch_end(epoch, {})
    callbacks.on_train_end()
    assert names_in(tmp_path) == ["1.keras", "2.keras"]


# What stays.


def test_a_pattern_leaves_so_many_files(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """The newest, and the best by the monitored metric."""
    callback = checkpoint("{epoch}.keras", monitor="loss", max_to_keep=2)
    for epoch, loss in enumerate((0.5, 0.1, 0.4, 0.3, 0.2)):
        end_epoch(callback, epoch, loss=loss)
    assert names_in(tmp_path) == ["2.keras", "4.keras", "5.keras"]


def test_a_resumed_run_counts_the_files_before_it(checkpoint: Make, tmp_path: Path) -> None:
    """With `BackupAndRestore`, the run is the same one; files of others stay."""
    stranger = tmp_path / "99.keras"
    constant_model(1.0).save(stranger)
    backups = tmp_path / "backups"
    for epochs, resume in ((3, "auto"), (5, "must")):
        model = small_model()
        backup = kct.BackupAndRestore(backups, delete_checkpoint=False, resume=resume)
        keep = checkpoint("{epoch}.keras", model, monitor="none", max_to_keep=2)
        model.fit(*small_data(), epochs=epochs, verbose=0, callbacks=[keep, backup])
    assert names_in(tmp_path) == ["4.keras", "5.keras", "99.keras", "backups"]


def test_another_run_leaves_the_files_of_this_one(
    checkpoint: Make, end_epoch: End, tmp_path: Path
) -> None:
    """It only deletes what it wrote."""
    for epochs in ((0, 1), (5, 6, 7)):
        callback = checkpoint("{epoch}.keras", constant_model(1.0), max_to_keep=1)
        for epoch in epochs:
            end_epoch(callback, epoch)
    assert names_in(tmp_path) == ["2.keras", "8.keras"]


def test_a_policy_keeps(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """Instead of a number."""
    callback = checkpoint("{epoch}.keras", keep=kct.KeepLast(1) | kct.KeepEvery(3))
    for epoch in range(7):
        end_epoch(callback, epoch)
    assert names_in(tmp_path) == ["3.keras", "6.keras", "7.keras"]


# What is said.


@pytest.mark.filterwarnings("ignore:.*from another run")
def test_what_is_saved_is_said(
    checkpoint: Make, end_epoch: End, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Keras' own words, where `verbose=1`."""
    callback = checkpoint("a.keras", monitor="loss", save_best_only=True, verbose=1)
    path = callback.filepath
    for epoch, loss in enumerate((0.5, 0.25, 0.3)):
        end_epoch(callback, epoch, loss=loss)
    end_epoch(checkpoint("a.keras", monitor="loss", save_best_only=True, verbose=1), 3, loss=0.3)
    assert [line for line in capsys.readouterr().out.splitlines() if line] == [
        f"Epoch 1: loss improved from None to 0.50000, saving model to {path}",
        f"Epoch 1: finished saving model to {path}",
        f"Epoch 2: loss improved from 0.50000 to 0.25000, saving model to {path}",
        f"Epoch 2: finished saving model to {path}",
        "Epoch 3: loss did not improve from 0.25000",
        "best loss before the restart: 0.25000",
        "Epoch 4: loss did not improve from 0.25000",
    ]


def test_nothing_is_said_unless_asked(
    checkpoint: Make, end_epoch: End, capsys: pytest.CaptureFixture[str]
) -> None:
    """`verbose=0` is the default."""
    end_epoch(checkpoint("a.keras"), 0)
    assert capsys.readouterr().out == ""


def test_two_that_monitor_the_same_metric_judge_each_for_itself(tmp_path: Path) -> None:
    """What one has found is not what the other has saved."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    paths = [tmp_path / "every.keras", tmp_path / "best.keras", tmp_path / "also.weights.h5"]
    savers = [
        kct.ModelCheckpoint(paths[0], monitor="loss"),
        kct.ModelCheckpoint(paths[1], monitor="loss", save_best_only=True),
        kct.ModelCheckpoint(paths[2], monitor="loss", save_best_only=True, save_weights_only=True),
    ]
    for epoch, loss in enumerate((0.5, 0.4, 0.6)):
        for saver in savers:
            if epoch == 0:
                saver.set_model(model)
                saver.on_train_begin()
            saver.on_epoch_begin(epoch)
        for saver in savers:
            saver.on_epoch_end(epoch, {"loss": loss})
    assert [kct.training_progress(path).logs["loss"] for path in paths] == [0.6, 0.4, 0.4]

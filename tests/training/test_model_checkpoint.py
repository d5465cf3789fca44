"""`ModelCheckpoint`: what is saved, when, and what is said about it."""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import constant_model, constant_of, set_constant, small_data, small_model, state_of

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArgumentError,
    CommitError,
    FilepathKeyError,
    MonitorError,
    NotBuiltError,
    PathInUseError,
)

Make = Callable[..., Any]
End = Callable[..., None]


def names(directory: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in directory.iterdir())


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
    assert names(tmp_path) == ["01.keras", "02.keras", "03.keras"]
    assert kct.training_progress(tmp_path / "02.keras").epochs_completed == 2


@pytest.mark.parametrize(
    ("steps_per_execution", "expected"),
    [(1, ["1-3", "2-2", "3-1", "3-4"]), (2, ["1-4", "2-4", "3-4"])],
)
def test_batches_are_counted_in_fit(
    steps_per_execution: int, expected: list[str], checkpoint: Make, tmp_path: Path
) -> None:
    """Every third of them; with `steps_per_execution=2` only each second is reported."""
    model = small_model()
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    callback = checkpoint("{epoch}-{batch}.keras", model, save_freq=3)
    model.fit(*small_data(), batch_size=4, epochs=3, verbose=0, callbacks=[callback])
    assert names(tmp_path) == [f"{name}.keras" for name in expected]
    progress = kct.training_progress(tmp_path / f"{expected[1]}.keras")
    assert progress.batches_completed == int(expected[1][2])
    assert progress.step == 4 + int(expected[1][2])


def test_a_clock_saves(checkpoint: Make, tmp_path: Path) -> None:
    """So short a time has passed at each batch."""
    model = small_model()
    callback = checkpoint("{batch}.keras", model, save_freq=datetime.timedelta(microseconds=1))
    model.fit(*small_data(), batch_size=4, verbose=0, callbacks=[callback])
    assert names(tmp_path) == ["1.keras", "2.keras", "3.keras", "4.keras"]


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
    assert names(tmp_path) == ["1-1.000.keras", "2-0.750.keras"]
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
    assert names(tmp_path) == ["1.keras", "2.keras"]


# The best.


def test_only_what_is_better_is_saved(checkpoint: Make, end_epoch: End) -> None:
    """And the file says how good, and when."""
    callback = checkpoint("a.keras", monitor="accuracy", mode="max", save_best_only=True)
    for epoch, accuracy in enumerate((0.5, 0.8, 0.7)):
        set_constant(callback.model, epoch)
        end_epoch(callback, epoch, accuracy=accuracy)
    assert constant_of(keras.models.load_model(callback.filepath)) == 1.0
    best = kct.training_progress(callback.filepath).best
    assert best is not None
    assert (best.monitor, best.mode, best.value, best.epoch) == ("accuracy", "max", 0.8, 1)


@pytest.mark.parametrize(
    ("name", "threshold", "saves"),
    [
        ("a.keras", None, [0.3]),
        ("a.h5", None, [0.3]),
        ("{epoch}-{val_loss:.2f}.keras", None, [0.3]),
        ("run-{epoch}/a.keras", None, [0.3]),
        ("a.keras", 0.35, [0.3]),
        ("a.keras", 0.2, []),
        ("a.keras", 9.0, [0.3]),
    ],
)
def test_the_best_is_recalled_from_the_file(
    name: str, threshold: float | None, saves: list[float], checkpoint: Make, end_epoch: End
) -> None:
    """After a restart, also from files that a pattern named; a threshold may ask for more."""
    first = checkpoint(name, save_best_only=True)
    end_epoch(first, 0, val_loss=0.4)
    again = checkpoint(name, save_best_only=True, initial_value_threshold=threshold)
    saved = []
    for epoch, value in enumerate((0.5, 0.3), 1):
        before = again.best
        end_epoch(again, epoch, val_loss=value)
        if again.best == value != before:
            saved.append(value)
    assert saved == saves


def test_another_metric_is_not_mixed_up_with_the_recalled(checkpoint: Make, end_epoch: End) -> None:
    """A file that was the best by one metric says nothing about another."""
    end_epoch(checkpoint(monitor="loss", save_best_only=True), 0, loss=0.1)
    again = checkpoint(monitor="val_loss", save_best_only=True)
    end_epoch(again, 1, val_loss=0.5)
    assert again.best == 0.5


def test_a_direction_that_cannot_be_told_is_refused(checkpoint: Make, end_epoch: End) -> None:
    """With the argument to pass."""
    callback = checkpoint(monitor="wobble", save_best_only=True)
    with pytest.raises(MonitorError, match="mode='max'"):
        end_epoch(callback, 0, wobble=0.5)


@pytest.mark.parametrize("mode", ["warn", "error", "save"])
def test_a_missing_metric_is_told(
    mode: str, checkpoint: Make, end_epoch: End, tmp_path: Path
) -> None:
    """Once, with the metrics that there are; saved is only where that is asked for."""
    callback = checkpoint("a.keras", save_best_only=True, on_missing_metric=mode)
    if mode == "error":
        with pytest.raises(MonitorError, match="accuracy, loss") as caught:
            end_epoch(callback, 0, loss=0.5, accuracy=0.9)
        assert caught.value.available == ("accuracy", "loss")
    else:
        with pytest.warns(UserWarning, match="Metrics in the logs: accuracy, loss"):
            end_epoch(callback, 0, loss=0.5, accuracy=0.9)
        end_epoch(callback, 1, loss=0.4, accuracy=0.9)
    assert names(tmp_path) == (["a.keras"] if mode == "save" else [])


def test_a_metric_that_never_came_is_told_at_the_end(checkpoint: Make) -> None:
    """With the path to which nothing was saved."""
    model = small_model()
    callback = checkpoint("a.keras", model, save_best_only=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(*small_data(), epochs=2, verbose=0, callbacks=[callback])
    ours = [str(one.message) for one in told if "val_loss" in str(one.message)]
    assert len(ours) == 2
    assert callback.filepath in ours[1]
    assert "never" in ours[1]


def test_a_metric_that_is_no_number_is_not_the_best(
    checkpoint: Make, end_epoch: End, tmp_path: Path
) -> None:
    """Nothing is saved, and it is said why."""
    callback = checkpoint("a.keras", save_best_only=True)
    with pytest.warns(UserWarning, match="scalar"):
        end_epoch(callback, 0, val_loss=np.array([0.5, 0.6]))
    assert names(tmp_path) == []


def test_nan_is_told_once_and_never_saved(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """Nor is infinity."""
    callback = checkpoint("a.keras", save_best_only=True)
    with pytest.warns(UserWarning, match="nan, which is never the best"):
        end_epoch(callback, 0, val_loss=float("nan"))
    end_epoch(callback, 1, val_loss=float("nan"))
    with pytest.warns(UserWarning, match="inf, which is never the best"):
        end_epoch(callback, 2, val_loss=float("-inf"))
    assert names(tmp_path) == []


# What stays.


def test_a_pattern_leaves_so_many_files(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """The newest, and the best by the monitored metric."""
    callback = checkpoint("{epoch}.keras", monitor="loss", max_to_keep=2)
    for epoch, loss in enumerate((0.5, 0.1, 0.4, 0.3, 0.2)):
        end_epoch(callback, epoch, loss=loss)
    assert names(tmp_path) == ["2.keras", "4.keras", "5.keras"]


def test_a_resumed_run_counts_the_files_before_it(checkpoint: Make, tmp_path: Path) -> None:
    """With `BackupAndRestore`, the run is the same one; files of others stay."""
    stranger = tmp_path / "99.keras"
    constant_model(1.0).save(stranger)
    backups = tmp_path / "backups"
    for epochs in (3, 5):
        model = small_model()
        backup = kct.BackupAndRestore(backups, delete_checkpoint=False)
        keep = checkpoint("{epoch}.keras", model, monitor="none", max_to_keep=2)
        model.fit(*small_data(), epochs=epochs, verbose=0, callbacks=[keep, backup])
    assert names(tmp_path) == ["4.keras", "5.keras", "99.keras", "backups"]


def test_another_run_leaves_the_files_of_this_one(
    checkpoint: Make, end_epoch: End, tmp_path: Path
) -> None:
    """It only deletes what it wrote."""
    for epochs in ((0, 1), (5, 6, 7)):
        callback = checkpoint("{epoch}.keras", constant_model(1.0), max_to_keep=1)
        for epoch in epochs:
            end_epoch(callback, epoch)
    assert names(tmp_path) == ["2.keras", "8.keras"]


def test_a_policy_keeps(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """Instead of a number."""
    callback = checkpoint("{epoch}.keras", keep=kct.KeepLast(1) | kct.KeepEvery(3))
    for epoch in range(7):
        end_epoch(callback, epoch)
    assert names(tmp_path) == ["3.keras", "6.keras", "7.keras"]


# What is said.


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


# Bad input.


@pytest.mark.parametrize(
    "arguments",
    [
        {"save_freq": 0},
        {"save_freq": False},
        {"save_freq": 2.5},
        {"save_freq": "batch"},
        {"max_to_keep": -1},
        {"max_to_keep": 0},
        {"max_to_keep": True},
        {"keep": 3},
        {"on_missing_metric": "ignore"},
    ],
    ids=str,
)
def test_an_argument_that_cannot_work_is_refused(
    arguments: dict[str, Any], checkpoint: Make
) -> None:
    """When the callback is made, with the value."""
    with pytest.raises(ArgumentError) as caught:
        checkpoint("a.keras", **arguments)
    name, value = next(iter(arguments.items()))
    assert f"{name}={value!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "weights_only", "remedy"),
    [
        ("a.ckpt", False, "a.keras"),
        ("a", False, "a.keras"),
        ("a.weights.h5", False, "save_weights_only=True"),
        ("a.h5", True, "a.weights.h5"),
        ("a.keras", True, "a.weights.h5"),
        ("a.tf", True, "a.weights.h5"),
    ],
)
def test_an_unknown_extension_is_refused(
    name: str, weights_only: bool, remedy: str, checkpoint: Make
) -> None:
    """When the callback is made, with the name to pass."""
    with pytest.raises(ArgumentError) as caught:
        checkpoint(name, save_weights_only=weights_only)
    assert remedy in str(caught.value)


def test_a_directory_where_a_file_is_meant_is_refused(
    checkpoint: Make, end_epoch: End, tmp_path: Path
) -> None:
    """At once; and at the save, where a pattern names one."""
    (tmp_path / "1.keras").mkdir()
    with pytest.raises(ArgumentError, match="is a directory"):
        checkpoint("1.keras")
    with pytest.raises(ArgumentError, match="existing directory"):
        end_epoch(checkpoint("{epoch}.keras"), 0)
    assert names(tmp_path / "1.keras") == []


def test_a_file_where_a_directory_is_meant_is_refused(checkpoint: Make, tmp_path: Path) -> None:
    """At once, and it is left as it is."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CommitError, match="is a file"):
        checkpoint("file/a.keras")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_key_that_the_logs_lack_is_told(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """At the first save, with the keys that there are; nothing is written."""
    with pytest.raises(FilepathKeyError, match="epoch, loss"):
        end_epoch(checkpoint("{epoch}-{val_loss:.2f}.keras"), 0, loss=0.5)
    assert names(tmp_path) == []


@pytest.mark.parametrize("in_fit", [True, False])
def test_two_callbacks_on_one_path_are_refused(
    in_fit: bool, checkpoint: Make, tmp_path: Path
) -> None:
    """Before the first batch, however they are driven."""
    model = small_model()
    callbacks = [checkpoint("a.keras", model), checkpoint("a.keras", model, save_best_only=True)]
    driver = keras.callbacks.CallbackList(callbacks, model=model, epochs=3)
    with pytest.raises(PathInUseError, match=r"a\.keras"):
        model.fit(*small_data(), callbacks=callbacks) if in_fit else driver.on_train_begin()
    assert names(tmp_path) == []


def test_an_unbuilt_model_is_refused(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """It has nothing that could be saved."""
    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(NotBuiltError, match="batch of data"):
        end_epoch(checkpoint("a.keras", model), 0)
    assert names(tmp_path) == []


def test_a_callback_without_a_model_says_so(tmp_path: Path) -> None:
    """With the call that gives it one."""
    with pytest.raises(ArgumentError, match="set_model"):
        kct.ModelCheckpoint(tmp_path / "a.keras").on_epoch_end(0, {})


def test_a_failed_save_leaves_the_old_file(checkpoint: Make, end_epoch: End) -> None:
    """A layer that cannot be saved: byte for byte, and no litter."""

    class Broken(keras.layers.Dense):
        broken = False

        def save_own_variables(self, store: Any) -> None:
            if self.broken:
                raise RuntimeError("broken")
            super().save_own_variables(store)

    layer = Broken(2)
    callback = checkpoint(
        "a.weights.h5", keras.Sequential([keras.Input((2,)), layer]), save_weights_only=True
    )
    end_epoch(callback, 0)
    before = Path(callback.filepath).read_bytes()
    layer.broken = True
    with pytest.raises(RuntimeError, match="broken"):
        end_epoch(callback, 1)
    assert Path(callback.filepath).read_bytes() == before
    assert os.listdir(os.path.dirname(callback.filepath)) == ["a.weights.h5"]

"""Input that cannot work: a clear error at the earliest moment, and nothing overwritten.

What takes another process (a full disk, no permission) is in `test_kills_and_refusals`, what is
`BackupAndRestore`'s own in its tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from programs import names_in, small_data, small_model

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


# `ModelCheckpoint`.


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
def test_an_argument_of_a_checkpoint_that_cannot_work_is_refused(
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
    assert names_in(tmp_path / "1.keras") == []


def test_a_file_where_a_checkpoint_needs_a_directory_is_refused(
    checkpoint: Make, tmp_path: Path
) -> None:
    """At once, and it is left as it is."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CommitError, match="is a file"):
        checkpoint("file/a.keras")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_key_that_the_logs_lack_is_told(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """At the first save, with the keys that there are; nothing is written."""
    with pytest.raises(FilepathKeyError, match="epoch, loss"):
        end_epoch(checkpoint("{epoch}-{val_loss:.2f}.keras"), 0, loss=0.5)
    assert names_in(tmp_path) == []


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
    assert names_in(tmp_path) == []


def test_an_unbuilt_model_is_refused(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """It has nothing that could be saved."""
    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(NotBuiltError, match="batch of data"):
        end_epoch(checkpoint("a.keras", model), 0)
    assert names_in(tmp_path) == []


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


# `CheckpointManager`.


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_to_keep": -1}, ArgumentError),
        ({"max_to_keep": 0}, ArgumentError),
        ({"max_to_keep": 2.5}, ArgumentError),
        ({"max_to_keep": 1, "keep": kct.KeepLast(1)}, ArgumentError),
        ({"save_freq": 0}, ArgumentError),
        ({"save_freq": False}, ArgumentError),
        ({"save_freq": 1.5}, ArgumentError),
        ({"resume": "maybe"}, ArgumentError),
        ({"mode": "best"}, ArgumentError),
        ({"monitor": "wobble"}, MonitorError),
    ],
    ids=str,
)
def test_an_argument_of_a_manager_that_cannot_work_is_refused(
    arguments: dict[str, Any], error: type[Exception], manager: Make, tmp_path: Path
) -> None:
    """Before anything is written."""
    with pytest.raises(error) as caught:
        manager(**arguments)
    name, value = next(iter(arguments.items()))
    assert f"{name}={value!r}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("total", [-1, 2.0, True, None])
def test_a_number_of_epochs_that_is_none_is_refused(total: Any, manager: Make) -> None:
    """With the value that was received."""
    for loop in (manager().epochs, manager().steps):
        with pytest.raises(ArgumentError, match=str(total)):
            list(loop(total))


@pytest.mark.parametrize("directory", ["", None, 3])
def test_a_directory_that_is_no_path_is_refused(directory: Any) -> None:
    """With the value that was received."""
    with pytest.raises(ArgumentError, match="path of a directory"):
        kct.CheckpointManager(directory, v=tf.Variable(1.0))


def test_a_file_where_a_manager_needs_a_directory_is_told(tmp_path: Path) -> None:
    """At once, and it is left as it is."""
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CommitError, match="is a file"):
            kct.CheckpointManager(path, v=tf.Variable(1.0))
    assert (tmp_path / "file").read_text() == "mine"

"""Which value is the best, and what is said and done about it, through `ModelCheckpoint`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from programs import constant_of, names_in, set_constant, small_data, small_model

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    MonitorError,
)

Make = Callable[..., Any]
End = Callable[..., None]


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


@pytest.mark.filterwarnings("ignore:.*from another run")
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


def test_a_best_of_another_run_is_told(checkpoint: Make, end_epoch: End) -> None:
    """It is kept from being overwritten by a worse one, which may not be what was meant."""
    end_epoch(checkpoint("a.keras", save_best_only=True), 0, val_loss=0.4)
    with pytest.warns(UserWarning, match=r"contains a model with val_loss=0.40000 from ano"):
        end_epoch(checkpoint("a.keras", save_best_only=True), 1, val_loss=0.5)


def test_it_is_not_called_the_best_before_a_restart(
    checkpoint: Make, end_epoch: End, capsys: pytest.CaptureFixture[str]
) -> None:
    """There was none."""
    end_epoch(checkpoint("a.keras", save_best_only=True), 0, val_loss=0.4)
    with pytest.warns(UserWarning, match="from another run"):
        end_epoch(checkpoint("a.keras", save_best_only=True, verbose=1), 1, val_loss=0.5)
    said = capsys.readouterr().out
    assert "best val_loss of an earlier run: 0.4" in said
    assert "restart" not in said


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
    assert names_in(tmp_path) == (["a.keras"] if mode == "save" else [])


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
    assert names_in(tmp_path) == []


def test_nan_is_told_once_and_never_saved(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """Nor is infinity."""
    callback = checkpoint("a.keras", save_best_only=True)
    with pytest.warns(UserWarning, match="nan, which is never the best"):
        end_epoch(callback, 0, val_loss=float("nan"))
    end_epoch(callback, 1, val_loss=float("nan"))
    with pytest.warns(UserWarning, match="inf, which is never the best"):
        end_epoch(callback, 2, val_loss=float("-inf"))
    assert names_in(tmp_path) == []

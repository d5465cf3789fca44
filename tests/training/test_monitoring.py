"""Whether higher or lower is better, by name."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.errors import ArgumentError, MonitorError
from keras_ckpt_tools.training.best_metric import direction, direction_of


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [
        ("val_loss", "min"),
        ("mean_absolute_error", "min"),
        ("val_MSE", "min"),
        ("accuracy", "max"),
        ("val_sparse_categorical_accuracy", "max"),
        ("AUC", "max"),
        ("val_f1_score", "max"),
        (None, "min"),
    ],
)
def test_the_name_of_a_metric_tells(monitor: str | None, expected: str) -> None:
    """With `mode="auto"`."""
    assert direction(monitor, "auto") == expected


@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_the_user_says_counts(mode: str) -> None:
    """Whatever the name is."""
    assert direction("accuracy", mode) == mode


def test_a_name_that_does_not_tell_is_refused() -> None:
    """Rather than guessed, as keeping the worst for the best would be noticed late."""
    with pytest.raises(MonitorError, match="mode='max'") as caught:
        direction("wobble", "auto")
    assert caught.value.monitor == "wobble"


def test_a_mode_that_is_none_is_refused() -> None:
    """With the modes there are."""
    with pytest.raises(ArgumentError, match="'auto', 'min' or 'max'"):
        direction("val_loss", "lowest")


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [
        ("val_mape_accuracy", "max"),
        ("mse_head_auc", "max"),
        ("error_f1", "max"),
        ("val_mae_precision", "max"),
        ("val_rmse_acc", "max"),
        ("precision_mae", "min"),
        ("accuracy_loss", "min"),
        ("loss_iou", "min"),
        ("f1_error", "min"),
        ("brier_score", "min"),
        ("val_score", "max"),
    ],
)
def test_the_metric_stands_last_in_a_name(monitor: str, expected: str) -> None:
    """What is in front of it is the name of an output, which may be that of an error."""
    assert direction(monitor, "auto") == expected


def test_a_negative_of_an_error_is_asked_for() -> None:
    """It may be better when it is higher, and nothing tells."""
    with pytest.raises(MonitorError):
        direction("neg_mean_squared_error", "auto")


def test_an_output_in_front_of_a_metric_does_not_hide_it() -> None:
    """A compiled metric knows, also where its name is not the whole name in the logs."""
    import keras
    import numpy as np

    inputs = keras.Input((2,))
    outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("loss_a", "b")}
    model = keras.Model(inputs, outputs)
    metric = keras.metrics.MeanSquaredError(name="odd")
    metric._direction = "up"
    model.compile("sgd", "mse", metrics={"loss_a": [metric], "b": []})
    model.train_on_batch(np.ones((2, 2)), {name: np.ones((2, 1)) for name in outputs})
    assert direction_of(model, "val_loss_a_odd", "auto") == "max"

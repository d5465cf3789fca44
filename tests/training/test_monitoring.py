"""Whether higher or lower is better, by name."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.errors import ArgumentError, MonitorError
from keras_ckpt_tools.training.monitoring import direction


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

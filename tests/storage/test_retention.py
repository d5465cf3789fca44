"""Which checkpoints stay, by tables."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.storage.retention import (
    KeepBest,
    KeepEvery,
    KeepLast,
    Policy,
    Saved,
    best_of,
    policy_from,
    to_delete,
)

LOSSES = [0.9, 0.5, 0.7, float("nan"), 0.6, 0.8]
SAVED = [
    Saved(str(n), n, TrainingProgress(epochs_completed=n, logs={"val_loss": loss}))
    for n, loss in enumerate(LOSSES, 1)
]


@pytest.mark.parametrize(
    ("policy", "stays"),
    [
        (KeepLast(1), "6"),
        (KeepLast(3), "456"),
        (KeepLast(99), "123456"),
        (KeepBest(1, "val_loss", "min"), "2"),
        (KeepBest(2, "val_loss", "max"), "16"),
        (KeepBest(9, "val_loss", "min"), "12356"),
        (KeepBest(1, "accuracy", "max"), "123456"),
        (KeepEvery(2), "246"),
        (KeepEvery(4), "4"),
        (KeepLast(1) | KeepBest(1), "26"),
        (KeepLast(1) | KeepBest(1) | KeepEvery(3), "236"),
        (Policy(), "123456"),
    ],
)
def test_a_policy_keeps(policy: Policy, stays: str) -> None:
    """Each policy, and their union, over six epochs of which one has no loss."""
    assert policy.keeps(SAVED) == set(stays)


def test_the_newest_and_the_best_always_stay() -> None:
    """Whatever a policy says."""

    class Nothing(Policy):
        def keeps(self, saved: object) -> set[str]:
            return set()

    gone = to_delete(SAVED, Nothing(), best="2", pinned=["1"])
    assert [item.path for item in gone] == ["3", "4", "5"]


def test_nothing_there_is_nothing_to_delete() -> None:
    """An empty directory is no error."""
    assert to_delete([], KeepLast(1)) == []


def test_a_half_done_epoch_is_no_nth_epoch() -> None:
    """`KeepEvery` counts epochs that have ended."""
    half = Saved("h", 7, TrainingProgress(epochs_completed=2, batches_completed=5))
    assert KeepEvery(2).keeps([half]) == set()


def test_nan_is_never_the_best() -> None:
    """Not even where nothing else is there."""
    assert best_of(SAVED[3:4], "val_loss", "min") is None
    assert best_of(SAVED, "val_loss", "max") == SAVED[0]


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3", None])
def test_a_count_that_is_none_is_refused(n: object) -> None:
    """Before anything is saved or deleted."""
    for policy in (KeepLast, KeepBest, KeepEvery):
        with pytest.raises(ArgumentError, match="whole number from 1"):
            policy(n)


def test_max_to_keep_is_short_for_keep_last() -> None:
    """And saying both is an error."""
    assert policy_from(3, None) == KeepLast(3)
    assert policy_from(None, KeepEvery(2)) == KeepEvery(2)
    assert policy_from(None, None).keeps(SAVED) == set("123456")
    with pytest.raises(ArgumentError, match="both"):
        policy_from(3, KeepLast(3))
    with pytest.raises(ArgumentError, match="retention policy"):
        policy_from(None, 3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="max_to_keep=-1"):
        policy_from(-1, None)

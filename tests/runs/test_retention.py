"""Which checkpoints stay, by tables."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.runs.retention import (
    KeepBest,
    KeepEvery,
    KeepLast,
    Policy,
    best_of,
    policy_from,
    to_delete,
)

LOSSES = [0.9, 0.5, 0.7, float("nan"), 0.6, 0.8]
SAVED = [
    CheckpointEntry(str(n), n, TrainingProgress(epochs_completed=n, logs={"val_loss": loss}))
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
    half = CheckpointEntry("h", 7, TrainingProgress(epochs_completed=2, batches_completed=5))
    assert KeepEvery(2).keeps([half]) == set()


def test_nan_is_never_the_best() -> None:
    """Not even where nothing else is there."""
    assert best_of(SAVED[3:4], "val_loss", "min") is None
    assert best_of(SAVED, "val_loss", "max") == SAVED[0]


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3", None])
def test_a_count_that_is_none_is_refused(n: object) -> None:
    """Before anything is saved or deleted."""
    for policy in (KeepLast, KeepBest, KeepEvery):
        with pytest.raises(ArgumentError, match="integer from 1"):
            policy(n)


def test_max_to_keep_is_short_for_keep_last() -> None:
    """And saying both is an error."""
    assert policy_from(3, None) == KeepLast(3)
    assert policy_from(None, KeepEvery(2)) == KeepEvery(2)
    assert policy_from(None, None).keeps(SAVED) == set("123456")
    with pytest.raises(ArgumentError, match="cannot be combined"):
        policy_from(3, KeepLast(3))
    with pytest.raises(ArgumentError, match="retention policy"):
        policy_from(None, 3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="max_to_keep=-1"):
        policy_from(-1, None)


def _run(*saves: tuple[int, float | None]) -> list[CheckpointEntry]:
    """Return the saves of a loop over steps: the step, and the loss if it was logged."""
    return [
        CheckpointEntry(
            f"{n}",
            n,
            TrainingProgress(
                step=step,
                batches_completed=step,
                saved_at=step * 60.0,
                logs={} if loss is None else {"loss": loss},
            ),
        )
        for n, (step, loss) in enumerate(saves, 1)
    ]


@pytest.mark.parametrize(
    ("saves", "stays"),
    [
        ([(1, None)], "1"),
        ([(1, 0.5), (2, None), (3, None)], "123"),
        ([(1, None), (2, 0.5), (3, None)], "123"),
        ([(1, None), (2, 0.5), (3, 0.4)], "23"),
        ([(1, 0.6), (2, 0.5), (3, None), (4, 0.4)], "24"),
        ([(1, 0.6), (2, float("nan")), (3, None)], "13"),
    ],
)
def test_a_save_without_the_metric_stays_until_enough_have_it(
    saves: list[tuple[int, float | None]], stays: str
) -> None:
    """A value that is not known may be the best; one that is no number is not."""
    assert KeepBest(2, "loss").keeps(_run(*saves)) == set(stays)


STEPS = _run(*((step, None) for step in (300, 600, 900, 1200, 1500, 1800, 2100)))


@pytest.mark.parametrize(
    ("policy", "stays"),
    [
        (KeepEvery(1000), "47"),
        (KeepEvery(steps=1000), "47"),
        (KeepEvery(steps=300), "1234567"),
        (KeepEvery(hours=8), "1357"),
        (KeepEvery(hours=100), "1"),
        (KeepEvery(hours=0.5), "1234567"),
    ],
    ids=repr,
)
def test_a_run_without_epochs_keeps_at_distances_too(policy: Policy, stays: str) -> None:
    """The first at or after each multiple; what is kept does not depend on what was deleted."""
    kept = policy.keeps(STEPS)
    assert kept == set(stays)
    left = [item for item in STEPS if item.path in kept]
    assert policy.keeps(left) == kept


def test_a_loop_with_epochs_counts_epochs() -> None:
    """Also before its first epoch has ended something was saved."""
    saved = [*STEPS[:2], *SAVED]
    assert KeepEvery(3).keeps(saved) == {"3", "6"}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"n": 1, "hours": 1},
        {"n": 1, "steps": 1},
        {"hours": 0},
        {"hours": True},
        {"hours": float("inf")},
        {"steps": 0},
        {"hours": "2"},
    ],
    ids=str,
)
def test_a_distance_that_is_none_is_refused(arguments: dict[str, float]) -> None:
    """With an example of each kind."""
    with pytest.raises(ArgumentError, match="KeepEvery"):
        KeepEvery(**arguments)  # type: ignore[arg-type]


class Known(CheckpointEntry):
    """A checkpoint whose tensors have the digest that stands in its note."""

    def digest(self) -> str:
        return self.note


def test_the_same_state_saved_again_pushes_nothing_out() -> None:
    """A restart may save the step that it resumed from again, any number of times."""
    saved = [
        CheckpointEntry("a", 1, TrainingProgress(step=10)),
        Known("b", 2, TrainingProgress(step=20), note="x"),
        Known("c", 3, TrainingProgress(step=20), note="x"),
        Known("d", 4, TrainingProgress(step=20), note="x"),
    ]
    assert KeepLast(2).keeps(saved) == {"a", "d"}
    assert KeepLast(1).keeps(saved) == {"d"}


def test_another_state_at_the_same_step_is_another() -> None:
    """A loop that nothing counts saves all its states at step 0."""
    saved = [Known(name, 1, TrainingProgress(), note=name) for name in "abc"]
    assert KeepLast(2).keeps(saved) == {"b", "c"}

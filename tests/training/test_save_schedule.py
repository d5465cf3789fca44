"""When to save, by tables and by a clock that is set by hand."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.training.save_schedule import Cadence


def test_an_epoch_is_saved_at_its_end_only() -> None:
    """`save_freq="epoch"` counts no batches."""
    cadence = Cadence("epoch")
    assert not any(cadence.batch_ends(batch) for batch in range(100))
    assert cadence.epoch_ends()


def test_batches_are_counted_across_epochs() -> None:
    """Every third batch, also where an epoch has four."""
    cadence = Cadence(3)
    due = [cadence.batch_ends(batch) for _ in range(3) for batch in range(4)]
    assert [index for index, now in enumerate(due) if now] == [2, 5, 8, 11]
    assert not cadence.epoch_ends()


def test_batches_between_two_reports_count() -> None:
    """With `steps_per_execution=4`, only each fourth index arrives."""
    cadence = Cadence(6)
    due = [cadence.batch_ends(batch) for _ in range(2) for batch in (3, 7, 11)]
    assert due == [False, True, False, True, False, True]


def test_counting_starts_in_the_middle_of_an_epoch() -> None:
    """After a restart, saves fall where they would have fallen without it."""
    cadence = Cadence(3)
    cadence.starts_at(5, 5)
    assert [cadence.batch_ends(batch) for batch in range(5, 9)] == [True, False, False, True]


def test_counting_goes_on_where_the_place_does_not_tell_the_count() -> None:
    """With `steps_per_execution=4` and epochs of 10 batches, it begins again at each save."""
    whole = Cadence(4)
    batches = [(epoch, batch) for epoch in range(3) for batch in (3, 7, 9)]
    due = [whole.batch_ends(batch) for _, batch in batches]
    for stop in range(1, len(batches)):
        first = Cadence(4)
        for _, batch in batches[:stop]:
            first.batch_ends(batch)
        resumed = Cadence(4)
        resumed.goes_on(first.get_state(), 0, 0)
        assert [resumed.batch_ends(batch) for _, batch in batches[stop:]] == due[stop:]


def test_counting_goes_on_from_checkpoints_without_a_count() -> None:
    """Those of earlier versions: the steps tell it."""
    cadence = Cadence(3)
    cadence.goes_on(None, 5, 5)
    assert [cadence.batch_ends(batch) for batch in range(5, 9)] == [True, False, False, True]


def test_a_save_by_hand_does_not_shift_the_others() -> None:
    """The files of a run do not depend on what else was saved."""
    cadence = Cadence(3)
    cadence.batch_ends(0)
    cadence.batch_ends(1)
    cadence.saved()
    assert [cadence.batch_ends(batch) for batch in (2, 3, 4)] == [True, False, False]


def test_the_clock_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes after the last save, and not at the end of an epoch."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    cadence = Cadence(datetime.timedelta(minutes=10))
    due = []
    for batch, seconds in enumerate((1, 598, 1, 1, 600)):
        now[0] += seconds
        due.append(cadence.batch_ends(batch))
    assert due == [False, False, True, False, True]
    assert not cadence.epoch_ends()


@pytest.mark.parametrize(
    "save_freq", [0, -1, 2.0, True, False, None, "batch", datetime.timedelta(0), [1]]
)
def test_what_is_no_frequency_is_refused(save_freq: Any) -> None:
    """With the value that was received, and what to pass."""
    with pytest.raises(ArgumentError, match="Pass 'epoch'") as caught:
        Cadence(save_freq)
    assert f"save_freq={save_freq!r}" in str(caught.value)

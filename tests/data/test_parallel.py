"""Batches are read ahead, given out in order, and the workers end with the pass."""

from __future__ import annotations

import multiprocessing
import threading
import time
from typing import Any

import pytest

from keras_ckpt_tools.data.parallel import in_order


def slow_first(index: int) -> int:
    """Return the square; the first takes longest."""
    time.sleep(0.05 if index == 0 else 0.0)
    return index * index


def fails_at_two(index: int) -> int:
    """Return the index, but for 2."""
    if index == 2:
        raise OSError("the disk is gone")
    return index


BY = pytest.mark.parametrize("use_multiprocessing", [False, True], ids=["threads", "processes"])


def read(function: Any, count: int, use_multiprocessing: bool, ahead: int = 3) -> Any:
    """Read with two workers."""
    return in_order(
        function, count, workers=2, use_multiprocessing=use_multiprocessing, ahead=ahead
    )


@BY
@pytest.mark.parametrize("count", [0, 1, 7])
def test_results_come_in_order(use_multiprocessing, count):
    """Whichever is done first, and also where there are fewer than may wait."""
    found = list(read(slow_first, count, use_multiprocessing))
    assert found == [i * i for i in range(count)]


@BY
def test_an_error_comes_in_its_place(use_multiprocessing):
    """What was read before it is given out before it."""
    results = read(fails_at_two, 5, use_multiprocessing)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="disk is gone"):
        next(results)


@BY
def test_workers_end_with_the_pass_also_when_it_is_left_early(use_multiprocessing):
    """No thread and no process stays behind."""
    before = set(threading.enumerate())
    results = read(slow_first, 100, use_multiprocessing)
    next(results)
    assert multiprocessing.active_children() if use_multiprocessing else threading.enumerate()
    results.close()
    assert set(threading.enumerate()) <= before
    assert not multiprocessing.active_children()


def test_no_more_is_read_ahead_than_may_wait():
    """Memory is bounded, however slow the reader of the results is."""
    asked: list[int] = []
    results = read(lambda index: asked.append(index) or index, 50, False, ahead=4)
    next(results)
    time.sleep(0.1)
    assert len(asked) <= 4
    results.close()

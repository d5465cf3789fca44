"""Resting between pieces of work: in proportion, in one thread, and only while nobody hurries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from keras_ckpt_tools.storage import throttle
from keras_ckpt_tools.storage.throttle import Hurry, paced, rest

_PATIENCE_S = 20


class _Notes(threading.Event):
    """Notes for how long it was waited for, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.rests: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.rests.append(timeout)
        return self.is_set()


class _Clock:
    """Processor time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """The clock that work is measured by."""
    made = _Clock()
    monkeypatch.setattr(throttle, "time", SimpleNamespace(thread_time=lambda: made.now))
    return made


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rest lasts until somebody hurries."""
    monkeypatch.setattr(throttle, "_SHARE", 1e6)


def _work(seconds: float = 0.005) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def _in_a_thread(run: Callable[[], object]) -> threading.Event:
    """Run something in a thread; what is returned is set when it is done."""
    done = threading.Event()

    def run_and_tell() -> None:
        run()
        done.set()

    threading.Thread(target=run_and_tell, daemon=True).start()
    return done


def _work_and_rest() -> None:
    for _ in range(3):
        _work()
        rest()


@pytest.mark.usefixtures("endless")
def test_a_thread_without_a_pace_does_not_rest() -> None:
    """Saves in the foreground come through the same writers."""
    assert _in_a_thread(_work_and_rest).wait(_PATIENCE_S)


@pytest.mark.usefixtures("endless")
def test_a_rest_is_over_when_somebody_hurries_and_no_other_follows() -> None:
    """Whoever begins to wait is not kept waiting by the rest under way, nor by later ones."""
    hurry = Hurry()

    def write() -> None:
        with paced(hurry):
            _work_and_rest()

    done = _in_a_thread(write)
    assert not done.wait(0.2)
    hurry.set()
    assert done.wait(_PATIENCE_S)


def test_a_rest_is_in_proportion_to_the_work_since_the_last(clock: _Clock) -> None:
    """That is what bounds the time of a save."""
    hurry = _Notes()
    with paced(hurry):
        for worked in (0.001, 0.25):
            clock.work(worked)
            rest()
    assert hurry.rests == pytest.approx([0.001 * throttle._SHARE, 0.25 * throttle._SHARE])


def test_waiting_is_not_work() -> None:
    """Who waited for the disk took nothing from training, and need not rest for it."""
    hurry = _Notes()
    started = time.thread_time()
    with paced(hurry):
        _work()
        time.sleep(0.3)
        rest()
    assert hurry.rests[0] is not None
    assert 0.005 <= hurry.rests[0] / throttle._SHARE <= time.thread_time() - started


def test_little_work_adds_up_until_it_is_worth_a_rest(clock: _Clock) -> None:
    """So whoever has thousands of small pieces may call after each."""
    hurry = _Notes()
    with paced(hurry):
        for _ in range(10):
            clock.work(throttle._LEAST_S * 0.4)
            rest()
    assert hurry.rests == pytest.approx([1.2 * throttle._LEAST_S * throttle._SHARE] * 3)


def test_work_done_in_a_hurry_is_not_rested_for_later(clock: _Clock) -> None:
    """When nobody waits any more, what was done meanwhile is no debt."""
    hurry = _Notes()
    with paced(hurry):
        hurry.set()
        clock.work(60)
        rest()
        hurry.clear()
        clock.work(0.001)
        rest()
    assert hurry.rests == pytest.approx([0.001 * throttle._SHARE])


def test_work_before_the_block_is_not_rested_for(clock: _Clock) -> None:
    """The pace begins with the block."""
    hurry = _Notes()
    clock.work(60)
    with paced(hurry):
        rest()
    assert hurry.rests == []


def test_the_pace_ends_with_the_block_also_after_an_error(clock: _Clock) -> None:
    """What the thread does afterwards is as fast as it can be."""
    hurry = _Notes()
    with pytest.raises(ValueError, match="full"), paced(hurry):
        raise ValueError("full")
    clock.work(1)
    rest()
    assert hurry.rests == []


def test_an_inner_pace_is_followed_by_the_outer_one(clock: _Clock) -> None:
    """Blocks may be nested."""
    outer, inner = _Notes(), _Notes()
    with paced(outer):
        with paced(inner):
            clock.work(1)
            rest()
        clock.work(1)
        rest()
    assert (len(outer.rests), len(inner.rests)) == (1, 1)


@pytest.mark.usefixtures("endless")
def test_a_pace_is_that_of_one_thread() -> None:
    """Training, in its own thread, is never made to rest."""
    begun, over = threading.Event(), threading.Event()

    def be_paced() -> None:
        with paced(Hurry()):
            begun.set()
            over.wait(_PATIENCE_S)

    _in_a_thread(be_paced)
    assert begun.wait(_PATIENCE_S)
    assert _in_a_thread(_work_and_rest).wait(_PATIENCE_S)
    over.set()

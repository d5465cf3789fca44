"""Rest between pieces of work while nobody waits: snapshot -> *write, and rest* -> commit.

Training uses every core, and each step is as slow as the core that has the least time for it. So a
thread that writes beside it makes each step longer for as long as it writes, and a low priority
helps little: a woken thread gets its turn all the same. What helps is to work for a moment and be
away for longer. Whoever writes calls `rest` after each piece; in a thread with a pace that waits in
proportion to the work since the last rest, and anywhere else it returns at once. The pace belongs
to the thread, so that what writes need not know for whom it does.

Work is the processor's time of the thread, not the time on the wall. Waiting for the disk takes
nothing from training, and neither does waiting for a processor that training has: to rest for these
too would only make a save longer, and most of all where training leaves the writer the least. By
processor time a save has an upper bound: what it works and waits, and the rests for its work.

A rest is over as soon as somebody is in a hurry, and so are all those that would follow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PIECE = 1 << 20
"""Bytes to work on between two rests."""

# For each second of work, so many of rest.
_SHARE = 8.0
# Seconds of work that are worth a rest: a shorter one costs more than it gives.
_LEAST_S = 0.0003


class Hurry:
    """Whether somebody waits.

    A `threading.Event` has a lock of its own. A signal handler may come while its thread has that,
    and wait for a save; the writer would wait for the lock, and both for ever. Here the lock is
    that of whoever waits, which a thread gives up whole when it begins to.

    Args:
        turn: By what they wait.
    """

    def __init__(self, turn: threading.Condition | None = None) -> None:
        self._turn = turn or threading.Condition()
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether somebody waits."""
        return self._is_set

    def set(self) -> None:
        """Note that somebody does; rests are over."""
        with self._turn:
            self._is_set = True
            self._turn.notify_all()

    def clear(self) -> None:
        """Note that nobody does any more."""
        self._is_set = False

    def wait(self, timeout: float) -> None:
        """Return when somebody waits, or after so many seconds."""
        with self._turn:
            self._turn.wait_for(self.is_set, timeout)


class _Pace:
    """When the thread last rested, and who ends its rests."""

    def __init__(self, hurry: Hurry):
        self._hurry = hurry
        self._rested_at = time.thread_time()

    def rest(self) -> None:
        if not self._hurry.is_set():
            worked = time.thread_time() - self._rested_at
            if worked < _LEAST_S:
                return
            self._hurry.wait(worked * _SHARE)
        self._rested_at = time.thread_time()


class _Here(threading.local):
    pace: _Pace | None = None


_here = _Here()


def rest() -> None:
    """Rest from the work since the last rest, if this thread has a pace and nobody hurries it.

    For whoever writes or reads much, after each piece of it (`PIECE`). Several calls in a row, or
    one after very little work, cost nothing: what was worked counts until it is worth a rest.
    """
    if _here.pace is not None:
        _here.pace.rest()


@contextmanager
def paced(hurry: Hurry) -> Iterator[None]:
    """Have this thread rest between pieces of its work in the block, except while in a hurry.

    Args:
        hurry: Set for as long as somebody waits for the work.

    Example:

    >>> hurry = Hurry()
    >>> with paced(hurry):
    ...     total = sum(range(100_000))
    ...     rest()  # For some times as long as the sum took.
    ...     hurry.set()
    ...     rest()  # Not at all.
    """
    before, _here.pace = _here.pace, _Pace(hurry)
    try:
        yield
    finally:
        _here.pace = before

"""Sleep in proportion to CPU time used, unless a caller waits.

Training uses every core, and a step is as slow as its slowest core. So a thread that writes in the
background makes each step longer, and a low priority helps little. What helps is to work for a
moment and to sleep for longer. The writer calls `rest` after each piece. In a throttled thread,
`rest` sleeps in proportion to the work since the last call; in other threads it returns at once. So
the code that writes need not know who called it.

Work is measured in CPU time of the thread, not in wall time: waiting for the disk or for a core
does not slow training down. This also gives each save an upper bound.

A sleep ends as soon as a caller waits, and no further ones follow.
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
    """Whether a caller waits.

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
        """Return whether a caller waits."""
        return self._is_set

    def set(self) -> None:
        """Note that a caller waits; this ends all sleeps."""
        with self._turn:
            self._is_set = True
            self._turn.notify_all()

    def clear(self) -> None:
        """Note that no caller waits any more."""
        self._is_set = False

    def wait(self, timeout: float) -> None:
        """Return when a caller waits, or after so many seconds."""
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
    """Sleep in proportion to CPU time used, if this thread is throttled and no caller waits.

    Called by code that writes or reads much, after each piece (`PIECE`). Several calls in a row, or
    one after very little work, cost nothing: what was worked counts until it is worth a rest.
    """
    if _here.pace is not None:
        _here.pace.rest()


@contextmanager
def paced(hurry: Hurry) -> Iterator[None]:
    """Have this thread rest between pieces of its work in the block, except while in a hurry.

    Args:
        hurry: Set while a caller waits for the work.

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

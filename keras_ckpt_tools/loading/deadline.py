"""Stop a build that takes too long.

Most slow builds are refused beforehand (`size_estimate`, `bounds`). For the others there is a
clock. It is checked wherever Keras makes a symbolic tensor, because an exception there leaves no
broken state. If Keras makes none for a while after the deadline, a second thread raises the
exception in the loading thread, as Ctrl-C does. A call into C cannot be interrupted; its arguments
are bounded.

The exception does not derive from `Exception`, because Keras catches those in many places. The
clock runs only while Keras builds, so that the cleanup after a build is never interrupted.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from types import TracebackType
from typing import Any

import keras

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.formats.common.limits import over_budget

# Seconds to wait for the next symbolic tensor before the thread is interrupted.
_GRACE = 1.0


class OutOfTime(BaseException):
    """Raised in the loading thread; `clock_for` turns it into an `OverBudgetError`."""


def check_seconds(max_seconds: float | None) -> None:
    """Raise `ArgumentError` unless this is a positive number of seconds, or `None`."""
    good = isinstance(max_seconds, (int, float)) and not isinstance(max_seconds, bool)
    if max_seconds is not None and not (good and 0 < max_seconds < threading.TIMEOUT_MAX):
        raise ArgumentError(
            "`max_seconds` must be a positive number of seconds.",
            received=f"max_seconds={max_seconds!r}",
            remedy="Pass 60 for one minute, for example, or None for the default, which depends "
            "on the number of layers.",
        )


class Clock:
    """Stops a build in the thread that made it.

    Args:
        seconds: The time that building may take.
        counts_waiting: Whether time counts in which the process does not compute: it waits for a
            disk or a debugger, or other processes use the machine.
    """

    def __init__(self, seconds: float, *, counts_waiting: bool):
        self.seconds = seconds
        self._counts_waiting = counts_waiting
        self._thread = threading.get_ident()
        self._started = (time.monotonic(), time.process_time())
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the build began."""
        wall = time.monotonic() - self._started[0]
        return wall if self._counts_waiting else min(wall, time.process_time() - self._started[1])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Interrupt the block when the time is over."""
        self._started = (time.monotonic(), time.process_time())
        kind = keras.KerasTensor
        original = kind.__init__

        def look(tensor: Any, *args: Any, **kwargs: Any) -> None:
            if threading.get_ident() == self._thread and self.elapsed > self.seconds:
                raise OutOfTime
            original(tensor, *args, **kwargs)

        kind.__init__ = look
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="kct-build-clock")
        self._watcher.start()
        try:
            yield
        finally:
            kind.__init__ = original
            self.stop()

    def stop(self) -> None:
        """Stop the clock; nothing is interrupted after this. May be called twice."""
        # A pending exception is raised here. If it was cancelled instead, CPython would look for
        # one at each later call, and under a profiler the next call would never end.
        while self._watcher is not None:
            try:
                self._stopped.set()
                self._watcher.join()
                _let_in()
                self._watcher = None
            except OutOfTime:
                continue

    def _watch(self) -> None:
        while not self._stopped.wait(max(self.seconds + _GRACE - self.elapsed, 0.2)):
            # Once may not be enough, because code may catch everything.
            if self.elapsed > self.seconds + _GRACE and not self._stopped.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(OutOfTime)
                )


def _let_in() -> None:
    """Do nothing: Python raises an exception of another thread when a function begins."""


@contextmanager
def clock_for(path: str, max_seconds: float | None, default: float) -> Iterator[Clock]:
    """Run a build with a clock, and raise an error when its time is over.

    Args:
        path: The file whose model is built, for messages.
        max_seconds: The limit of the caller; all of the time counts.
        default: The limit where the caller sets none; only time in which this process computes
            counts.

    Raises:
        OverBudgetError: it took longer.
    """
    clock = Clock(
        default if max_seconds is None else max_seconds, counts_waiting=max_seconds is not None
    )
    try:
        yield clock
    except OutOfTime as late:
        clock.stop()
        needed = round(clock.elapsed, 1)
        what = f"building its model was not finished (at {_place(late.__traceback__)}) after"
        remedy = f"If you trust the file, allow more time: `max_seconds={math.ceil(needed * 10)}`."
        raise over_budget(path, what, "max_seconds", needed, clock.seconds, remedy) from None
    finally:
        clock.stop()


def _place(traceback: TracebackType | None) -> str:
    """Return the innermost Keras object that was running."""
    kinds = (keras.Operation, keras.Metric, keras.Loss, keras.Optimizer)
    place = "the config"
    for frame, _ in walk_tb(traceback):
        found = frame.f_locals.get("self")
        if isinstance(found, kinds):
            name = str(getattr(found, "name", ""))[:100]
            place = f"{type(found).__name__} {name!r}"
        elif frame.f_code.co_name == "from_config" and "cls" in frame.f_locals:
            place = getattr(frame.f_locals["cls"], "__name__", place)
    return place

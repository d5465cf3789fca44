"""Write while training goes on: snapshot -> *write, commit, keep, in a thread* -> resume.

One thread, one save under way and one waiting. A third waits for its turn instead of queueing up
(memory would grow without bound) or being dropped (the user asked for it). What deletes old
checkpoints is part of the same job as the commit that it waits for, so nothing goes before its
successor is there.

An error must reach the user, and exactly once: at the next `run`, at `wait`, or at the exit of
the interpreter, whichever comes first. A save that failed in silence is how people lose a week.
"""

from __future__ import annotations

import atexit
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any, Self

Job = Callable[[], Any]

_writers: weakref.WeakSet[BackgroundWriter] = weakref.WeakSet()


class Foreground:
    """Runs jobs at once: the other way to write, behind the same two verbs."""

    def run(self, job: Job) -> None:
        """Do a job."""
        job()

    def wait(self) -> None:
        """There is nothing to wait for."""


class BackgroundWriter(Foreground):
    """Runs jobs one after another in a thread of its own.

    Example:

    >>> with BackgroundWriter() as writer:
    ...     writer.run(lambda: print("written"))
    written
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._waiting: Job | None = None
        self._busy = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        _writers.add(self)

    def run(self, job: Job) -> None:
        """Hand over a job; wait while another is already waiting.

        Raises:
            Exception: what went wrong in an earlier job. This job is handed over all the same.
        """
        with self._turn:
            while self._waiting is not None:
                self._turn.wait()
            self._waiting = job
            self._turn.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="kct-writer", daemon=True)
                self._thread.start()
            self._raise_error()

    def wait(self) -> None:
        """Wait until everything handed over is done.

        Raises:
            Exception: what went wrong in a job since the last time that was asked.
        """
        with self._turn:
            while self._busy or self._waiting is not None:
                self._turn.wait()
            self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while True:
            with self._turn:
                while self._waiting is None:
                    # The thread ends with its work: a writer that is forgotten costs nothing.
                    if not self._turn.wait(timeout=1.0) and self._waiting is None:
                        self._thread = None
                        return
                job, self._waiting, self._busy = self._waiting, None, True
                self._turn.notify_all()
            error = _run(job)
            del job  # It holds the snapshot.
            with self._turn:
                self._busy = False
                self._error = self._error or error
                self._turn.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait()


def _run(job: Job) -> BaseException | None:
    try:
        job()
    except BaseException as error:  # noqa: BLE001 (it is raised in the user's thread)
        return error
    return None


def _flush() -> None:
    """Finish all writing before the interpreter goes; say what failed."""
    failed = False
    for writer in list(_writers):
        try:
            writer.wait()
        except BaseException:  # noqa: BLE001 (there is nobody left to catch it)
            failed = True
            sys.stderr.write("keras_ckpt_tools: a save in the background failed:\n")
            traceback.print_exc()
    if failed:
        sys.stderr.flush()


atexit.register(_flush)

"""Write checkpoints in a background thread.

There is one thread, with one save in progress and at most one waiting. A third save waits until
there is room: a longer queue would take memory without limit, and no save may be skipped. Old
checkpoints are deleted in the same job as the commit, so nothing is deleted before its successor
exists.

While no caller waits, the thread sleeps between pieces (see `throttle`), so that training is hardly
slowed down. When a caller waits (in `wait`, at exit, or with another save), it writes at full
speed.

An error is raised exactly once: at the next `run`, at `wait`, or at the exit of the interpreter,
whichever comes first.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

from keras_ckpt_tools.storage.throttle import Hurry, paced

Job = Callable[[], Any]

# Of the processor's time that training wants too, the writer gets about a tenth.
_NICENESS = 10
# A thread with nothing to do ends after so long; to start one lengthens the pause of the next save.
_IDLE_S = 60.0

_writers: weakref.WeakSet[BackgroundWriter] = weakref.WeakSet()
# Writers with work or an error, which must not be lost if the caller drops them.
_unsettled: set[BackgroundWriter] = set()


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
        self._start_anew()
        _writers.add(self)

    def _start_anew(self) -> None:
        self._turn = threading.Condition()
        self._waiting: Job | None = None
        self._busy = False
        self._waiters = 0
        self._hurry = Hurry(self._turn)
        self._errors: list[BaseException] = []
        self._thread: threading.Thread | None = None

    def run(self, job: Job) -> None:
        """Hand over a job; wait while another is already waiting.

        Raises:
            Exception: what went wrong in an earlier job. This job is handed over all the same.
        """
        with self._turn:
            while self._waiting is not None:
                self._turn.wait()
            self._waiting = job
            self._set_pace()
            _unsettled.add(self)
            self._turn.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="kct-writer", daemon=True)
                self._thread.start()
            self._raise_errors()

    def wait(self) -> None:
        """Wait until everything handed over is done.

        Raises:
            Exception: what went wrong in a job since the last time that was asked.
        """
        with self._turn:
            with self._hurried():
                while self._busy or self._waiting is not None:
                    self._turn.wait()
            self._raise_errors()

    @contextlib.contextmanager
    def _hurried(self) -> Iterator[None]:
        """Have jobs done without rests for the time of the block."""
        with self._turn:
            self._waiters += 1
            self._set_pace()
        try:
            yield
        finally:
            with self._turn:
                self._waiters -= 1
                self._set_pace()

    def _set_pace(self) -> None:
        # Whoever is held up in `run` has a queued job before it, so that is seen to as well.
        if self._waiters or self._waiting is not None:
            self._hurry.set()
        else:
            self._hurry.clear()

    def _raise_errors(self) -> None:
        errors, self._errors = self._errors, []
        self._settle()
        if not errors:
            return
        first, *others = errors
        for other in others:
            first.add_note(f"A later save failed too: {type(other).__name__}: {other}")
        try:
            raise first
        finally:
            # An error holds the frames that it passed, and one of them held the snapshot.
            del errors, first, others

    def _settle(self) -> None:
        if not self._busy and self._waiting is None and not self._errors:
            _unsettled.discard(self)

    def _work(self) -> None:
        _let_others_go_first()
        while True:
            with self._turn:
                while self._waiting is None:
                    # The thread ends with its work: a writer that is forgotten costs nothing.
                    if not self._turn.wait(timeout=_IDLE_S) and self._waiting is None:
                        self._thread = None
                        return
                job, self._waiting, self._busy = self._waiting, None, True
                self._set_pace()
                self._turn.notify_all()
            with paced(self._hurry):
                errors = _run(job)
            del job  # It holds the snapshot.
            with self._turn:
                self._busy = False
                self._errors += errors
                del errors  # So may they.
                self._settle()
                self._turn.notify_all()

    def __deepcopy__(self, memo: object) -> BackgroundWriter:
        # Tuners copy callbacks; what this one is writing stays this one's.
        return BackgroundWriter()

    def __reduce__(self) -> tuple[type[BackgroundWriter], tuple[()]]:
        return BackgroundWriter, ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait()


def _let_others_go_first() -> None:
    """Give this thread, and those that it starts, the processor when training does not need it."""
    if sys.platform == "linux":  # Elsewhere this would be the priority of the whole process.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _run(job: Job) -> list[BaseException]:
    try:
        job()
    except BaseException as error:  # noqa: BLE001 (it is raised in the user's thread)
        return [error]
    return []


def _flush() -> None:
    """Finish all writing before the interpreter goes; say what failed."""
    failed = False
    writers = list(_unsettled)
    with contextlib.ExitStack() as hurry:
        # All of them at once: while one is waited for, the others need not be gentle either.
        for writer in writers:
            hurry.enter_context(writer._hurried())
        for writer in writers:
            try:
                writer.wait()
            except BaseException:  # noqa: BLE001 (no caller is left to catch it)
                failed = True
                sys.stderr.write("keras_ckpt_tools: a save in the background failed:\n")
                traceback.print_exc()
    if failed:
        sys.stderr.flush()


def _forget() -> None:
    """Leave the work to the process that was forked: its thread is not in the new one."""
    _unsettled.clear()
    for writer in list(_writers):
        writer._start_anew()


atexit.register(_flush)
os.register_at_fork(after_in_child=_forget)

"""Processes of their own for what tests run, where it can be killed for real.

A process is forked from a server that has imported Keras and TensorFlow and has not used them, so
each starts in milliseconds, as fresh as one that was started from a shell. What a test runs there
is a function of `programs`, which the other process can import by name.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

_PRELOAD = [
    "keras",
    "tensorflow",
    "keras_ckpt_tools.training.backup_and_restore",
    "keras_ckpt_tools.training.manager",
    "keras_ckpt_tools.training.model_checkpoint",
]
_PATIENCE_S = 120
NOBODY = 65534
_OF_FILES = frozenset(
    """close copy_file_range flock flush fsync ftruncate mkdir open posix_fallocate pwrite pwritev
    remove rename replace rmdir sendfile truncate unlink write writelines writev""".split()
)


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in a process of its own; return what it returns."""
    exitcode, answer = _start_and_wait(function, arguments)
    assert exitcode == 0, answer
    return answer


def run_killed(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function of a module, which has to end by SIGKILL."""
    exitcode, answer = _start_and_wait(function, arguments)
    assert exitcode == -signal.SIGKILL, answer


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in a process of its own, however that may end."""
    return _start_and_wait(function, arguments)[1]


def start(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """Begin to call a function of a module in a process of its own, and do not wait for it.

    Args:
        function: Gets the end of a pipe that it may send to, and then the arguments.
        *arguments: What can be pickled.

    Returns:
        The process, and the end of the pipe to receive from.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    return process, here


def _start_and_wait(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[int, Any]:
    process, here = start(_answer, function, arguments)
    try:
        answer = here.recv() if here.poll(_PATIENCE_S) else "no answer in time"
    except EOFError:
        answer = "it ended without an answer"
    process.join(5)
    if process.exitcode is None:
        process.kill()
        process.join()
    exitcode = process.exitcode
    process.close()
    here.close()
    assert exitcode is not None
    return exitcode, answer


def _answer(pipe: Any, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    try:
        pipe.send(function(*arguments))
    except BaseException:  # noqa: BLE001 - it goes to the test
        pipe.send(traceback.format_exc())
        # No clean-up: as after any crash.
        os._exit(1)


# What is done to a process.


def kill() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


class KillAt(keras.callbacks.Callback):
    """Kill the process at the end of a batch; both indices are zero-based."""

    def __init__(self, epoch: int, batch: int):
        super().__init__()
        self.place = (epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == self.place:
            kill()


@contextmanager
def killed_after(calls: int | None, *, of_files: bool = False) -> Iterator[list[int]]:
    """Kill the process after that many function calls of the block; `None` only counts them.

    So a kill can be placed at any instant of a save, whoever's code runs then.

    Args:
        calls: How many.
        of_files: Whether only those count that do something to a file, just before they do it.
    """
    count = [0]

    def profile(frame: Any, event: str, argument: Any) -> None:
        if of_files and (
            event != "c_call"
            or argument.__name__ not in _OF_FILES
            or isinstance(argument.__self__, (str, bytes, list))
        ):
            return
        count[0] += 1
        if count[0] == calls:
            kill()

    sys.setprofile(profile)
    try:
        yield count
    finally:
        sys.setprofile(None)


def limit_file_size(size: int) -> None:
    """Let no file of this process grow beyond `size` bytes, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def become_nobody(directory: str) -> None:
    """Give up all rights, but for looking into the directory."""
    os.chmod(directory, 0o555)
    if os.geteuid() == 0:
        parent = os.path.dirname(directory)
        while parent != os.path.dirname(parent) and os.stat(parent).st_uid == 0:
            os.chmod(parent, os.stat(parent).st_mode | 0o055)
            parent = os.path.dirname(parent)
        os.setuid(NOBODY)

"""Report saves and resumes to the user.

With `verbose=`, messages are printed in Keras' format; otherwise they go to `logging`: level "info"
for changes on disk or of the run (a save, a resume), "debug" for decisions and their reasons.
Problems that need attention are Python warnings, which are shown by default.

A thread may commit a save in the background. Its results are reported by `settle`, in the thread
that trains, so only that thread prints and writes to TensorBoard. Only there it is known how long
training was blocked.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.metadata import TrainingProgress, epoch_number
from keras_ckpt_tools.runs.checkpoints import nbytes_of
from keras_ckpt_tools.showing.bars import bar
from keras_ckpt_tools.showing.messages import harmless
from keras_ckpt_tools.showing.tables import size_of

if TYPE_CHECKING:
    from keras_ckpt_tools.training.tensorboard import SaveTrail

# The program configures `logging`. It is imported here and not in the package's `__init__`, because
# nothing else logs, and it would double the import time.
logging.getLogger(__package__.partition(".")[0]).addHandler(logging.NullHandler())


@dataclass
class Save:
    """One save, in progress or complete.

    Attributes:
        progress: The position of training.
        began: Start time by the clock `time.perf_counter`.
        path: Path as it was passed.
        place: Absolute path, because the program may change its directory.
        committed_at: Time of the commit, in seconds since 1970 (UTC).
        took_s: Seconds until the commit.
        blocked_s: Seconds for which training was blocked.
        nbytes: Size of the file, or of the files of a TensorFlow checkpoint.
    """

    progress: TrainingProgress
    began: float
    path: str = ""
    place: str = ""
    committed_at: float = 0.0
    took_s: float = 0.0
    blocked_s: float = 0.0
    nbytes: int = 0

    @contextlib.contextmanager
    def to(self, path: str) -> Iterator[None]:
        """Set the path; training is blocked until the end of the block."""
        self.path, self.place = path, os.path.abspath(path)
        try:
            yield
        finally:
            self.blocked_s = time.perf_counter() - self.began

    @property
    def epoch(self) -> str:
        """The epoch of the save, one-based, as Keras prints it."""
        return f"Epoch {epoch_number(self.progress.epoch_index)}"

    def __str__(self) -> str:
        how = f"{size_of(self.nbytes)} in {self.took_s:.2f} s"
        return f"{self.epoch}, step {self.progress.step}: saved {self.path} ({how})"


class Announcer:
    """Reports the saves and resumes of one callback or manager.

    Args:
        log: Logger for messages that are not printed.
        name: Path of the saved file or directory.
        verbose: Whether messages are printed: 0, or 1.
        tensorboard: Log directory of TensorBoard, or `None`.
        in_fit: Whether Keras' progress bar may be in the same line.
    """

    def __init__(
        self,
        log: logging.Logger,
        name: str | os.PathLike[str],
        verbose: int = 0,
        tensorboard: str | os.PathLike[str] | None = None,
        *,
        in_fit: bool = False,
    ):
        self.verbose = verbose
        self._log = log
        self._name = os.path.basename(os.path.abspath(name))
        self._begin_line = "\n" if in_fit else ""
        self._trail = None if tensorboard is None else _trail(tensorboard, name)
        self._committed: collections.deque[Save] = collections.deque()

    def say(self, message: str, level: int = logging.INFO) -> None:
        """Print a message, or log it."""
        message = harmless(message)
        if self.verbose > 0:
            internals.print_msg(f"{self._begin_line}{message}")
        else:
            self._log.log(level, "%s", message)

    def goes_on(self, path: str, progress: TrainingProgress) -> None:
        """Report a resume."""
        batch = f", batch {progress.batches_completed + 1}" if progress.batches_completed else ""
        self.say(
            f"Resuming from {path} with epoch {epoch_number(progress.epochs_completed)}"
            f"{batch}, after {progress.step} steps"
        )

    def bar(self, title: str) -> contextlib.AbstractContextManager[None]:
        """Show a progress bar for a long operation if messages are printed. See `showing.bars`.

        No bar is shown during `fit()`, whose own progress line is not finished.
        """
        if self.verbose <= 0 or self._begin_line:
            return contextlib.nullcontext()
        return bar(f"{title} {self._name}")

    @staticmethod
    def begins(progress: TrainingProgress) -> Save:
        """Return a save that starts now."""
        return Save(progress, time.perf_counter())

    def committed(self, save: Save) -> None:
        """Note that a save is committed, without a message. Any thread may call this."""
        save.took_s = time.perf_counter() - save.began
        save.committed_at = time.time()
        with contextlib.suppress(OSError):  # The file may be deleted already.
            save.nbytes = nbytes_of(save.place)
        self._committed.append(save)

    def settle(self, words: Callable[[Save], str] = str) -> None:
        """Report the saves committed since the last call.

        Called by the thread that trains, after the current save has been handed over.
        """
        while self._committed:
            save = self._committed.popleft()
            self.say(words(save))
            if self._trail is not None:
                self._trail.note(save)


def _trail(log_dir: str | os.PathLike[str], name: str | os.PathLike[str]) -> SaveTrail:
    # It imports TensorFlow, which is not the backend of every program.
    from keras_ckpt_tools.training.tensorboard import SaveTrail
    from keras_ckpt_tools.training.writing import check_directory

    return SaveTrail(check_directory(log_dir, "tensorboard"), name)

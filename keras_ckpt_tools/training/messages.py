"""Tell people of saves and restarts: commit -> *message, trail*.

A message goes one way. With `verbose=` it is printed, in Keras' own manner; without, it goes to
`logging`, where a program that wants it finds it: "info" is what changed on disk or in the run (a
save, a restart), "debug" what was decided and why. What needs somebody's attention is a Python
warning, as everywhere in this package: it is seen without any setting.

A save may be committed by a thread that writes in the background. What it found out is taken up by
`settle`, in the thread that trains, so that nothing is printed and no trail is written by another
one; that is also where it is known for how long training stood still.
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

# Whether anybody hears what is logged, the program decides. It stands here, and not at the front
# door, because nothing else logs and `logging` would double the time of the import.
logging.getLogger(__package__.partition(".")[0]).addHandler(logging.NullHandler())


@dataclass
class Save:
    """One save, under way or done.

    Attributes:
        progress: Where training was.
        began: By the clock `time.perf_counter`.
        path: Where to, as it was given.
        place: The same from the root: the program may go elsewhere meanwhile.
        committed_at: Seconds since 1970 (UTC) when it was visible.
        took_s: Seconds until then.
        blocked_s: Seconds for which training stood still.
        nbytes: Bytes of the file, or of those of a TensorFlow checkpoint.
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
        """Say where to, and that training stands still until the end of the block."""
        self.path, self.place = path, os.path.abspath(path)
        try:
            yield
        finally:
            self.blocked_s = time.perf_counter() - self.began

    @property
    def epoch(self) -> str:
        """The epoch that it is of, one-based, as Keras prints it."""
        return f"Epoch {epoch_number(self.progress.epoch_index)}"

    def __str__(self) -> str:
        how = f"{size_of(self.nbytes)} in {self.took_s:.2f} s"
        return f"{self.epoch}, step {self.progress.step}: saved {self.path} ({how})"


class Announcer:
    """Tells of the saves and restarts of one callback or manager.

    Args:
        log: Where messages go that are not printed.
        name: Path of what is saved.
        verbose: Whether messages are printed: 0, or 1.
        tensorboard: Log directory of TensorBoard, or `None`.
        in_fit: Whether Keras' progress bar may stand in the line that is printed to.
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
        """Tell of a restart."""
        batch = f", batch {progress.batches_completed + 1}" if progress.batches_completed else ""
        self.say(
            f"Going on from {path} with epoch {epoch_number(progress.epochs_completed)}"
            f"{batch}, after {progress.step} steps"
        )

    def bar(self, title: str) -> contextlib.AbstractContextManager[None]:
        """Show a bar while this takes long, where messages are printed. See `showing.bars`.

        Not under Keras' own: `fit()` has a line of its own that is not finished.
        """
        if self.verbose <= 0 or self._begin_line:
            return contextlib.nullcontext()
        return bar(f"{title} {self._name}")

    @staticmethod
    def begins(progress: TrainingProgress) -> Save:
        """Return a save that begins now."""
        return Save(progress, time.perf_counter())

    def committed(self, save: Save) -> None:
        """Note that a save is on disk. Any thread may say so, and nothing is said to people."""
        save.took_s = time.perf_counter() - save.began
        save.committed_at = time.time()
        with contextlib.suppress(OSError):  # Somebody may be quick to take it away.
            save.nbytes = nbytes_of(save.place)
        self._committed.append(save)

    def settle(self, words: Callable[[Save], str] = str) -> None:
        """Tell of what has been committed since the last time.

        Called by the thread that trains, after the save under way has been handed over.
        """
        while self._committed:
            save = self._committed.popleft()
            self.say(words(save))
            if self._trail is not None:
                self._trail.note(save)


def _trail(log_dir: str | os.PathLike[str], name: str | os.PathLike[str]) -> SaveTrail:
    # It imports TensorFlow, which is not everybody's backend.
    from keras_ckpt_tools.training.tensorboard import SaveTrail
    from keras_ckpt_tools.training.writing import check_directory

    return SaveTrail(check_directory(log_dir, "tensorboard"), name)

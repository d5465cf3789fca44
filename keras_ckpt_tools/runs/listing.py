"""Read the directory of a run as a list of records: directory -> *run* -> lists, plots and pruning.

A run may have left ten thousand checkpoints, and whoever lists them wants to see them at once, also
while they are being written and deleted. So only the head of each record is read, a file that is
gone by then is passed over, and files that have not changed are not read again. What is told apart
here is what shows: whole, damaged, not finished, somebody else's. That no byte of a tensor has
changed is what `verify` finds out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from keras_ckpt_tools.errors import ArtefactError
from keras_ckpt_tools.formats.common.path_hints import not_found
from keras_ckpt_tools.formats.kinds import plain_path
from keras_ckpt_tools.formats.tensorflow.prefixes import files_of
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.entry import (
    KeptCheckpoint,
    State,
    is_listed,
    look_at_all,
    progress_with_history,
)
from keras_ckpt_tools.runs.retention import best_of, newest_first

__all__ = ["KeptCheckpoint", "Restart", "Run", "State", "find_runs", "read_run"]

# Between an event and the save after it a clock goes on; less than this is no restart.
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Restart:
    """A time during which a run stood still, between two checkpoints that are there.

    Attributes:
        epoch: Epochs completed in the checkpoint before it.
        batch: Batches of the epoch under way, likewise.
        step: Step, likewise.
        stopped_at: When that checkpoint was saved.
        pause_s: Seconds that passed until the next one and were not spent in training. What was
            trained and lost is part of it.
    """

    epoch: int
    batch: int
    step: int
    stopped_at: float
    pause_s: float


@dataclass(frozen=True)
class Run:
    """What is in the directory of a run.

    Attributes:
        path: The directory, or the one file that was asked for.
        checkpoints: What is there, newest last.
        progress: Where training was at the newest whole checkpoint, with its whole history; the
            zero record where there is none.
        newest: That checkpoint, or `None`.
    """

    path: str
    checkpoints: tuple[KeptCheckpoint, ...] = ()
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    newest: KeptCheckpoint | None = None

    @property
    def whole(self) -> tuple[KeptCheckpoint, ...]:
        """The checkpoints of ours with which nothing is visibly wrong, newest last."""
        return tuple(one for one in self.checkpoints if one.state is State.WHOLE)

    @property
    def best(self) -> KeptCheckpoint | None:
        """The best checkpoint that is there, by the metric that was monitored."""
        return next((one for one in self.checkpoints if one.best), None)

    @property
    def run_id(self) -> str:
        """Name of the run that the newest checkpoint is of."""
        return self.progress.run_id

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Names of all runs that have left checkpoints here, the first to save first."""
        return tuple(dict.fromkeys(one.run_id for one in self.whole))

    @property
    def history(self) -> Mapping[str, tuple[float, ...]]:
        """The logs of each epoch, also of those whose checkpoints have been deleted."""
        return self.progress.history

    @property
    def history_epochs(self) -> Mapping[str, tuple[int, ...]]:
        """The zero-based epoch of each value in `history`."""
        return self.progress.history_epochs

    @property
    def missing_numbers(self) -> tuple[int, ...]:
        """Numbers of checkpoints of a manager that are no longer there, up to the newest."""
        there = {one.number for one in self.checkpoints if one.number is not None}
        return tuple(n for n in range(1, max(there, default=0)) if n not in there)

    @property
    def restarts(self) -> tuple[Restart, ...]:
        """When the newest run stood still, as far as the checkpoints that are there tell."""
        mine = [one for one in self.whole if one.run_id == self.run_id]
        found = []
        for one, after in pairwise(mine):
            trained = max(after.progress.elapsed_s - one.progress.elapsed_s, 0.0)
            pause = after.saved_at - one.saved_at - trained
            if pause > _PAUSE_S:
                found.append(Restart(one.epoch, one.batch, one.step, one.saved_at, pause))
        return tuple(found)


def read_run(path: str | os.PathLike[str], *, known: Run | None = None) -> Run:
    """Read what is in the directory of a run.

    Args:
        path: The directory of a `CheckpointManager`, a `BackupAndRestore` or a `ModelCheckpoint`;
            or one file or prefix of a TensorFlow checkpoint, which is then all there is.
            Directories in it are left alone.
        known: What was read of it before: files that have not changed are not read again.

    Returns:
        The run. A file that goes while the directory is read is not in it.

    Raises:
        ArtefactNotFoundError: nothing is at the path.
        ArtefactError: it may not be read.
        ArgumentError: `path` is no path.

    Example:

    >>> import tempfile
    >>> run = read_run(tempfile.mkdtemp())
    >>> run.checkpoints, run.best, dict(run.history)
    ((), None, {})
    """
    place = plain_path(path)
    before = {one.name: one for one in known.checkpoints} if known else {}
    try:
        single = not os.path.isdir(place)
        folder = os.path.dirname(place) if single else place
        names = [os.path.basename(place)] if single else os.listdir(place)
        if single and (files := files_of(place)):
            names, single = files, False
        elif single:
            os.stat(place)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_found(place) from error
    except OSError as error:
        raise ArtefactError(
            f"The path cannot be read: {error.strerror or error}.",
            received=f"path={place!r}",
            remedy="Give the user of this process the right to read it.",
            path=place,
        ) from error
    found = newest_first(look_at_all(folder, names, before, any_name=single))
    best = best_of(one for one in found if one.ours)
    checkpoints = tuple(
        one if one.best == (one is best) else replace(one, best=not one.best)
        for one in reversed(found)
    )
    newest = next((one for one in reversed(checkpoints) if one.ours), None)
    if known and newest and known.newest and newest.identity == known.newest.identity:
        return Run(place, checkpoints, known.progress, newest)
    progress = progress_with_history(newest) if newest else TrainingProgress()
    return Run(place, checkpoints, progress, newest)


def find_runs(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the directories with checkpoints in them, in order: a path itself, and those below it.

    Hidden directories and links to directories are passed over. A file is yielded as it is.
    """
    place = plain_path(path)
    if not os.path.isdir(place):
        yield place
        return
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not os.path.islink(os.path.join(folder, name))
        )
        if {"saved_model.pb", "config.json"} & set(names):
            folders[:] = []  # It is one model; its parts are no run.
        elif any(is_listed(name) for name in names):
            yield folder

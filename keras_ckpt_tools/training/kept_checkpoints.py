"""Which checkpoints of a run there are, and which stay: commit -> *keep* -> resume.

Several processes and programs may have left checkpoints in one directory. What is kept and what is
deleted here is of one run only, and of that what the same kind of door wrote.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

from keras_ckpt_tools.formats.checkpoint_dir import (
    DOORS,
    clear_leftovers,
    delete_checkpoints,
    list_checkpoints,
)
from keras_ckpt_tools.metadata import Record, TrainingProgress
from keras_ckpt_tools.storage.retention import Policy, Saved, best_of, to_delete


class KeptCheckpoints:
    """The checkpoints in one directory.

    Args:
        directory: Where they are.
        policy: Which stay.
        monitor: Metric by which the best is known, or `None`.
        mode: `"min"` or `"max"`.
    """

    def __init__(self, directory: str, policy: Policy, monitor: str | None, mode: str):
        self.directory = directory
        self.policy = policy
        self.monitor = monitor
        self.mode = mode
        self._saved: list[Saved] | None = None
        self._resumed_from: str | None = None
        self._added = False
        self._noticed = False

    @property
    def saved(self) -> list[Saved]:
        """The checkpoints that are there, oldest first."""
        if self._saved is None:
            self._saved, _ = list_checkpoints(self.directory)
        return self._saved

    @property
    def best(self) -> Saved | None:
        """The best checkpoint by the monitored metric."""
        return best_of(self.saved, self.monitor, self.mode) if self.monitor else None

    def best_with(self, progress: TrainingProgress) -> Saved | None:
        """Return the best checkpoint if one were saved now."""
        if self.monitor is None:
            return None
        number = self.saved[-1].number + 1 if self.saved else 1
        return best_of([*self.saved, Saved("", number, progress)], self.monitor, self.mode)

    def look_again(self) -> None:
        """Forget what is there: it may have changed."""
        self._saved = None

    def goes_on_from(self, path: str) -> None:
        """Let the checkpoint that a run was resumed from stay until something newer is there."""
        self._resumed_from = path

    def found(self, saved: list[Saved]) -> None:
        """Take a list of what is there, made a moment ago."""
        self._saved = saved

    def add(self, path: str, number: int, record: Record) -> None:
        """Take up what was committed; delete what is not to stay."""
        known = [item for item in self.saved if item.path != path]
        holds = frozenset(record.tracked.keys() - record.objects_tracked.keys())
        self._saved = [*known, Saved(path, number, record.progress, holds, record.phase)]
        self._added = True
        self._keep()

    def expect_another_run(self) -> None:
        """Take it as meant that the directory holds checkpoints of another run."""
        self._noticed = True

    def notice_other_run(self, progress: TrainingProgress) -> None:
        """Say once that there are checkpoints of another run, unless that is meant."""
        others = [item for item in self.saved if item.progress.run_id != progress.run_id]
        if others and not self._noticed:
            self._noticed = True
            warnings.warn(
                f"{self.directory!r} holds checkpoints of another run, the newest of them "
                f"{others[-1].path!r}, and nothing was restored from them. They are left alone. "
                "Restore first to go on with that run, or give this one a directory of its own.",
                UserWarning,
                stacklevel=4,
            )

    def _keep(self) -> None:
        best = self.best
        pinned = [self._resumed_from] if self._resumed_from else []
        mine = self._mine(self.saved[-1])
        gone = to_delete(mine, self.policy, best=best.path if best else None, pinned=pinned)
        delete_checkpoints([item.path for item in gone])
        clear_leftovers(self.directory)
        self._saved = [item for item in self.saved if item not in gone]
        # What was resumed from has done its part once something newer is committed.
        self._resumed_from = None

    def tidy(self) -> None:
        """Delete what stays behind an interruption where no later save clears it up.

        At the end of a run that was interrupted just before, that is what it was resumed from, and
        what a process that was killed in its last save has left.
        """
        if self.saved and (self._resumed_from or self._added):
            self._keep()

    def delete_all(
        self,
        run_id: str,
        also: Callable[[Saved], bool] = lambda item: False,
        *,
        but_newest: bool = False,
    ) -> None:
        """Delete every checkpoint of the run, as far as this kind of door wrote them.

        Args:
            run_id: Name of the run.
            also: Says of a checkpoint of another run whether it goes, too.
            but_newest: Whether the newest of the run stays.
        """
        own = [item for item in self.saved if item.progress.run_id == run_id]
        mine = self._mine(own[-1]) if own else []
        gone = mine[:-1] if but_newest else mine
        gone = [item for item in self.saved if item in gone or (item not in mine and also(item))]
        delete_checkpoints([item.path for item in gone])
        self._saved = [item for item in self.saved if item not in gone]

    def _mine(self, last: Saved) -> list[Saved]:
        """Return the checkpoints of the run that the same kind of door wrote.

        A run may go on in the other: then each has a policy of its own for its own files.
        """
        return [
            item
            for item in self.saved
            if item.progress.run_id == last.progress.run_id
            and item.holds & DOORS == last.holds & DOORS
        ]

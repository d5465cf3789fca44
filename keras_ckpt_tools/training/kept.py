"""List the checkpoints of a run, and delete those that are not retained.

Several processes and programs may have left checkpoints in one directory. Only files of one run and
one kind of writer are counted and deleted here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from keras_ckpt_tools.errors import CommitError
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.tensorflow.recorded import is_prefix
from keras_ckpt_tools.live import state
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP, RANDOM_GROUP
from keras_ckpt_tools.metadata import Record, TensorInfo, TrainingProgress
from keras_ckpt_tools.runs.checkpoints import (
    DOORS,
    checkpoint_names,
    clear_leftovers,
    delete_checkpoints,
)
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.runs.listing import checkpoints_in
from keras_ckpt_tools.runs.retention import Policy, best_of, to_delete
from keras_ckpt_tools.runs.save_history import Trail
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.storage.commit import refused, remove_files
from keras_ckpt_tools.training import filepattern
from keras_ckpt_tools.training.filepattern import matching_files, record_in

_Known = tuple[list[CheckpointEntry], frozenset[str]]


class KeptCheckpoints:
    """The checkpoints in one directory.

    Args:
        directory: Directory of the checkpoints.
        policy: The retention policy.
        monitor: Metric that decides which is the best, or `None`.
        mode: `"min"` or `"max"`.
        door: The writer, one of `DOORS`. Files of other writers are not deleted.
    """

    def __init__(
        self, directory: str, policy: Policy, monitor: str | None, mode: str, door: str = ""
    ):
        self._door = door
        self.directory = directory
        self.policy = policy
        self.monitor = monitor
        self.mode = mode
        # The checkpoints, and the names listed at that time. One pair, set at once, because the
        # writer adds and deletes in a thread of its own.
        self._known: _Known | None = None
        self._resumed_from: str | None = None
        self._added = False
        self._noticed = False

    @property
    def saved(self) -> list[CheckpointEntry]:
        """The existing checkpoints, oldest first; another process may have changed them."""
        return self._look()[0]

    def _look(self) -> _Known:
        names, known = checkpoint_names(self.directory), self._known
        if known is None or known[1] != names:
            known = self._known = checkpoints_in(self.directory)[0], names
        return known

    @property
    def best(self) -> CheckpointEntry | None:
        """The best checkpoint by the monitored metric."""
        return best_of(self.saved, self.monitor, self.mode) if self.monitor else None

    def best_with(self, progress: TrainingProgress) -> CheckpointEntry | None:
        """Return the best checkpoint, assuming a save now."""
        if self.monitor is None:
            return None
        saved = self.saved  # Once: another process, or the writer, may delete meanwhile.
        number = (saved[-1].number or 0) + 1 if saved else 1
        return best_of([*saved, CheckpointEntry("", number, progress)], self.monitor, self.mode)

    def look_again(self) -> None:
        """Forget the list: the directory may have changed."""
        self._known = None

    def goes_on_from(self, path: str) -> None:
        """Retain the resumed checkpoint until there is a newer one."""
        self._resumed_from = path

    def found(self, saved: list[CheckpointEntry]) -> None:
        """Set the list of existing checkpoints."""
        self._known = saved, checkpoint_names(self.directory)

    def add(self, path: str, number: int, record: Record) -> None:
        """Add a committed checkpoint; delete those that are not retained."""
        # The new one exists already and need not be read again.
        name = os.path.basename(path)
        if (there := self._known) is not None:
            self._known = there[0], there[1] | {name}
        try:
            self._add(path, number, record)
        except CommitError:
            raise
        except OSError as error:
            self._known = None  # List the directory again.
            raise refused(Path(path), error, committed=True) from error

    def _add(self, path: str, number: int, record: Record) -> None:
        known, names = self._look()
        kind = Kind.TF_CHECKPOINT if is_prefix(path) else Kind.CHECKPOINT
        new = CheckpointEntry.of_record(path, record, number, kind=kind)
        self._known = (
            [*(item for item in known if item.path != path), new],
            (names | {os.path.basename(path)}),
        )
        self._added = True
        self._keep()

    def number_of(self, path: str | None) -> int | None:
        """Return the number of an existing checkpoint."""
        return next((item.number for item in self.saved if item.path == path), None)

    def delete(self, path: str) -> None:
        """Delete a checkpoint that another one has replaced."""
        known = self._look()
        delete_checkpoints([path])
        self._without(known, [item for item in known[0] if item.path == path])

    def expect_another_run(self) -> None:
        """Note that checkpoints of another run in the directory are expected."""
        self._noticed = True

    def notice_other_run(self, progress: TrainingProgress) -> None:
        """Warn once about checkpoints of another run, unless they are expected."""
        others = [item for item in self.saved if item.progress.run_id != progress.run_id]
        if others and not self._noticed:
            self._noticed = True
            warn(
                f"{self.directory!r} contains checkpoints of another run (newest: "
                f"{others[-1].path!r}), and nothing was restored from them. They are not changed. "
                "To resume that run, restore first. Otherwise use another directory for this run.",
                UserWarning,
                stacklevel=4,
            )

    def keep_now(self) -> None:
        """Delete checkpoints that are not retained by a policy that has changed.

        Called at a restart, when this process has locked the directory. The resumed checkpoint is
        retained.
        """
        if self.saved and self._resumed_from:
            resumed_from = self._resumed_from
            self._keep()
            self._resumed_from = resumed_from

    def _keep(self) -> None:
        saved, names = self._look()
        if not saved or not self._is_ours(saved[-1]):
            return  # The new one was deleted by another process, or nothing was saved yet.
        best = best_of(saved, self.monitor, self.mode) if self.monitor else None
        pinned = [self._resumed_from] if self._resumed_from else []
        mine = self._mine(saved[-1])
        gone = to_delete(mine, self.policy, best=best.path if best else None, pinned=pinned)
        delete_checkpoints([item.path for item in gone])
        clear_leftovers(self.directory)
        self._without((saved, names), gone)
        # The resumed checkpoint is no longer needed when a newer one is committed.
        self._resumed_from = None

    def tidy(self) -> None:
        """Delete the remains of an interruption that no later save deletes.

        At the end of a run that was interrupted shortly before, these are the resumed checkpoint
        and files that a process left that was killed during its last save.
        """
        read_only = not os.access(self.directory, os.W_OK)
        if self.saved and (self._resumed_from or self._added) and not read_only:
            self._keep()

    def delete_all(
        self,
        run_id: str,
        also: Callable[[CheckpointEntry], bool] = lambda item: False,
        *,
        but_newest: bool = False,
    ) -> None:
        """Delete all checkpoints of a run that the same kind of writer wrote.

        Args:
            run_id: ID of the run.
            also: Returns whether a checkpoint of another run is deleted as well.
            but_newest: Whether the newest of the run is retained.
        """
        saved, names = self._look()
        own = [i for i in saved if i.progress.run_id == run_id and self._is_ours(i)]
        mine = self._mine(own[-1]) if own else []
        gone = mine[:-1] if but_newest else mine
        gone = [item for item in saved if item in gone or (item not in mine and also(item))]
        delete_checkpoints([item.path for item in gone])
        self._without((saved, names), gone)

    def _without(self, known: _Known, gone: list[CheckpointEntry]) -> None:
        names = known[1] - {os.path.basename(item.path) for item in gone}
        self._known = [item for item in known[0] if item not in gone], names

    def _is_ours(self, item: CheckpointEntry) -> bool:
        return not self._door or self._door in item.holds or not item.holds & DOORS

    def _mine(self, last: CheckpointEntry) -> list[CheckpointEntry]:
        """Return the checkpoints of the run by the same kind of writer.

        A run may resume with another writer. Each applies its policy to its own files.
        """
        return [
            item
            for item in self.saved
            if item.progress.run_id == last.progress.run_id
            and item.holds & DOORS == last.holds & DOORS
        ]


PATTERN = "filepath"


class KeptFiles:
    """Applies a retention policy to the files of one pattern.

    Args:
        pattern: The pattern.
        policy: The retention policy.
        last: A second path of the newest file, which does not count; or `None`.
    """

    def __init__(self, pattern: str, policy: Policy, last: str | None = None):
        self._pattern = pattern
        self._policy = policy
        self._last = last
        self._saved: list[CheckpointEntry] | None = None
        self._trail = Trail()

    def about_to_add(self, progress: TrainingProgress) -> TrainingProgress:
        """Return the progress for a file that is about to be written, with all saves."""
        return self._trail.extend(
            progress, lambda: [record.progress for _, record in self.written()]
        )

    @property
    def any(self) -> bool:
        """Whether anything was saved in this process."""
        return self._saved is not None

    def add(self, path: str, record: Record, monitor: str, mode: str) -> None:
        """Note a committed file; delete files that are not retained.

        Args:
            path: Path of the file.
            record: Its record.
            monitor: Metric that decides which is the best file, which is always retained.
            mode: `"min"` or `"max"`.

        Raises:
            CommitError: a file could not be deleted.
        """
        filepattern.clear_leftovers(self._pattern)
        known = self._before(path, record) if self._saved is None else self._saved
        number = (known[-1].number or 0) + 1 if known else 1
        saved = [item for item in known if item.path != path]
        saved.append(CheckpointEntry.of_record(path, record, number))
        best = best_of(saved, monitor, mode)
        gone = to_delete(saved, self._policy, best=best.path if best else None)
        self._saved = saved
        remove_files(item.path for item in gone)
        self._saved = [item for item in saved if item not in gone]

    def look_again(self) -> None:
        """List the files again: a save has failed, and its file may or may not be in place."""
        self._saved = None

    def _before(self, path: str, record: Record) -> list[CheckpointEntry]:
        """Return the files that the same run wrote before a restart, oldest first."""
        run_id = record.progress.run_id
        found = [
            CheckpointEntry.of_record(other, one)
            for other, one in self.written()
            if other != path and one.progress.run_id == run_id
        ]
        ordered = sorted(found, key=lambda one: (one.progress.place, one.saved_at))
        return [dataclasses.replace(one, number=n) for n, one in enumerate(ordered, 1)]

    def written(self) -> Iterator[tuple[str, Record]]:
        """Yield the existing files of this pattern, with their records."""
        name = os.path.basename(self._pattern)
        for path in matching_files(self._pattern):
            if self._last is not None and os.path.abspath(path) == os.path.abspath(self._last):
                continue
            record = record_in(path)
            if record is not None and record.state.get(PATTERN) == name:
                yield path, record


def is_of(record: Record, model: Any) -> bool:
    """Return whether a file contains weights with the names and shapes of a model.

    The best value of another model is not comparable, even under the same name.
    """
    if any(info.path.startswith("model_weights/") for info in record.tensors):
        return True  # The older `.h5` format uses other names for weights.
    return _weights(record.tensors) == _weights(state.capture(model).infos().values())


def _weights(infos: Iterable[TensorInfo]) -> set[tuple[str, tuple[int, ...]]]:
    aside = (OPTIMIZER_GROUP, RANDOM_GROUP)
    return {(info.path, info.shape) for info in infos if not info.path.startswith(aside)}

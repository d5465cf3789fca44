"""List the checkpoints of a run: which there are, the newest, the best, and the history.

`entries_in` lists all files, `checkpoints_in` the checkpoints that a resume may choose from, and
`read_run` returns the summary that lists, plots and pruning use. A run may have ten thousand
checkpoints, and may save and delete while they are listed. So only the start of each record is
read, unchanged files are not read again, and files that disappear in the meantime are skipped.
Only visible states are detected: intact, damaged, unfinished, third-party. `verify` checks every
byte of the tensors.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from keras_ckpt_tools.errors import ArtefactError, CkptError
from keras_ckpt_tools.formats.common.path_hints import not_found
from keras_ckpt_tools.formats.common.safe_open import NOT_FOLLOWED, Identity
from keras_ckpt_tools.formats.hdf5.shard_index import ENDING, shards_named_by
from keras_ckpt_tools.formats.kinds import Kind, plain_path, tell
from keras_ckpt_tools.formats.tensorflow.prefixes import files_of
from keras_ckpt_tools.formats.tensorflow.recorded import DATA, INDEX, RECORD, SUFFIXES, is_prefix
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.checkpoints import files_of_run, number_in
from keras_ckpt_tools.runs.entry import CheckpointEntry, State
from keras_ckpt_tools.runs.peek import (
    NO_RECORD,
    OPENING,
    WITHOUT_RECORD,
    Glimpse,
    glimpse,
    glimpse_of_run,
)
from keras_ckpt_tools.runs.retention import best_of, newest_first
from keras_ckpt_tools.storage.commit import is_abandoned, target_of_staged

__all__ = [
    "CheckpointEntry",
    "Restart",
    "Run",
    "State",
    "checkpoints_in",
    "entries_in",
    "find_runs",
    "read_run",
]

_SUFFIXES = (".keras", ".h5", ".hdf5")
_RECORD = re.compile(rf"ckpt-\d{{8,}}{re.escape(RECORD)}")
# Some time passes between an event and its save; a shorter pause is not a restart.
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Restart:
    """A pause of a run between two existing checkpoints.

    Attributes:
        epoch: Completed epochs in the checkpoint before the pause.
        batch: Completed batches of the epoch under way in that checkpoint.
        step: Step of that checkpoint.
        stopped_at: Time at which that checkpoint was saved.
        pause_s: Seconds until the next checkpoint that were not spent in training. It includes
            training whose result was lost.
    """

    epoch: int
    batch: int
    step: int
    stopped_at: float
    pause_s: float


@dataclass(frozen=True)
class Run:
    """The contents of the directory of a run.

    Attributes:
        path: The directory, or the single file that was passed.
        checkpoints: All entries, newest last.
        progress: The position of training in the newest complete checkpoint, with its complete
            history; all zeros if there is none.
        newest: That checkpoint, or `None`.
    """

    path: str
    checkpoints: tuple[CheckpointEntry, ...] = ()
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    newest: CheckpointEntry | None = None

    @property
    def whole(self) -> tuple[CheckpointEntry, ...]:
        """The checkpoints written by this package without visible damage, newest last."""
        return tuple(one for one in self.checkpoints if one.state is State.WHOLE)

    @property
    def best(self) -> CheckpointEntry | None:
        """The best existing checkpoint, by the monitored metric."""
        return next((one for one in self.checkpoints if one.best), None)

    @property
    def run_id(self) -> str:
        """ID of the run of the newest checkpoint."""
        return self.progress.run_id

    @property
    def run_ids(self) -> tuple[str, ...]:
        """IDs of all runs with checkpoints here, in the order of their first save."""
        return tuple(dict.fromkeys(one.run_id for one in self.whole))

    @property
    def history(self) -> Mapping[str, tuple[float, ...]]:
        """The logs of each epoch, including those whose checkpoints were deleted."""
        return self.progress.history

    @property
    def history_epochs(self) -> Mapping[str, tuple[int, ...]]:
        """The zero-based epoch of each value in `history`."""
        return self.progress.history_epochs

    @property
    def missing_numbers(self) -> tuple[int, ...]:
        """Numbers of deleted checkpoints of a manager, up to the newest."""
        there = {one.number for one in self.checkpoints if one.number is not None}
        return tuple(n for n in range(1, max(there, default=0)) if n not in there)

    @property
    def restarts(self) -> tuple[Restart, ...]:
        """The pauses of the newest run, as far as the existing checkpoints show them."""
        mine = [one for one in self.whole if one.run_id == self.run_id]
        found = []
        for one, after in pairwise(mine):
            trained = max(after.progress.elapsed_s - one.progress.elapsed_s, 0.0)
            pause = after.saved_at - one.saved_at - trained
            if pause > _PAUSE_S:
                found.append(Restart(one.epoch, one.batch, one.step, one.saved_at, pause))
        return tuple(found)


def read_run(path: str | os.PathLike[str], *, known: Run | None = None) -> Run:
    """Read the contents of the directory of a run.

    Args:
        path: The directory of a `CheckpointManager`, a `BackupAndRestore` or a `ModelCheckpoint`;
            or a single file or the prefix of a TensorFlow checkpoint. Subdirectories are ignored.
        known: The result of an earlier call; unchanged files are not read again.

    Returns:
        The run. Files that are deleted during the call are not in it.

    Raises:
        ArtefactNotFoundError: the path does not exist.
        ArtefactError: the process has no permission to read it.
        ArgumentError: `path` is not a path.

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
    found = newest_first(_look(folder, names, before, any_name=single))
    best = best_of(one for one in found if one.ours)
    checkpoints = tuple(
        one if one.best == (one is best) else replace(one, best=not one.best)
        for one in reversed(found)
    )
    newest = next((one for one in reversed(checkpoints) if one.ours), None)
    if known and newest and known.newest and newest.identity == known.newest.identity:
        return Run(place, checkpoints, known.progress, newest)
    progress = newest.progress_with_history() if newest else TrainingProgress()
    return Run(place, checkpoints, progress, newest)


def find_runs(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the directories that contain checkpoints, in order: the path and those below it.

    Hidden directories and links to directories are skipped. A file is yielded as it is.
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
            folders[:] = []  # The directory is one model, not a run.
        elif any(_is_listed(name) for name in names):
            yield folder


def entries_in(directory: str) -> list[CheckpointEntry]:
    """Return the entries of the files in a directory, the newest first.

    Raises:
        OSError: the directory cannot be read.
    """
    return newest_first(_look(directory, os.listdir(directory)))


def checkpoints_in(
    directory: str | os.PathLike[str],
) -> tuple[list[CheckpointEntry], list[tuple[str, str]]]:
    """Return the checkpoints of a run without visible damage, oldest first, and the damaged ones.

    A file counts only if both its name and its record are those of a checkpoint of a run, so
    third-party files are never resumed from or deleted. A missing directory contains none.

    Returns:
        The checkpoints with their histories, and the damaged ones as `(path, why)`.

    Raises:
        OSError: the directory cannot be read.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return [], []
    saved, damaged = [], []
    for one in _look(os.fspath(directory), files_of_run(names)):
        if one.ours and one.number is not None:
            # A custom policy may use it.
            saved.append(replace(one, progress=one.progress_with_history()))
            continue
        path = os.path.splitext(one.path)[0] if one.path.endswith(SUFFIXES) else one.path
        # Third-party HDF5 files, or files of a `ModelCheckpoint` with such a name.
        other = one.ours or one.kind in (Kind.H5_WEIGHTS, Kind.H5_MODEL)
        if not other and (path.endswith(_SUFFIXES) or is_prefix(path)):
            why = f"it is {NOT_FOLLOWED}" if one.note == NOT_FOLLOWED else one.note
            damaged.append((path, "its record is damaged" if why in WITHOUT_RECORD else why))
    return newest_first(saved)[::-1], sorted(damaged)


def _is_listed(name: str) -> bool:
    """Return whether a file name is that of a file of a run."""
    if name.startswith("."):
        return (target_of_staged(name) or "").endswith(_SUFFIXES)
    return name.endswith((*_SUFFIXES, ENDING, INDEX)) or _RECORD.fullmatch(name) is not None


def _look(
    folder: str,
    names: list[str],
    before: Mapping[str, CheckpointEntry] | None = None,
    *,
    any_name: bool = False,
) -> Iterator[CheckpointEntry]:
    """Yield the entries of the files in a directory.

    Args:
        folder: The directory.
        names: The file names in it.
        before: Entries of an earlier call, by name; unchanged files are not read again.
        any_name: Whether files with other names than a checkpoint are listed, including
            third-party ones. If not, only those with a record are.
    """
    there = set(names)
    # Sharded weights count as one file: they are listed by their index.
    shards = frozenset() if any_name else shards_named_by(folder, names)
    data: dict[str, list[str]] = {}
    for name in names:
        if (begin := name.rpartition(".data-")[0]) and not name.startswith("."):
            data.setdefault(begin, []).append(name)
    for name in names:
        listed = any_name or _is_listed(name)
        if name in shards or not (listed or _may_be_renamed(name)):
            continue
        path = os.path.join(folder, name)
        one: CheckpointEntry | None
        if name.startswith(".") and target_of_staged(name):
            one = _staged(path)
        elif name.endswith(INDEX) or _RECORD.fullmatch(name):
            prefix, ending = os.path.splitext(name)
            if ending == RECORD and f"{prefix}{INDEX}" in there:
                continue
            beside = [os.path.join(folder, one) for one in data.get(prefix, [])]
            one = _tensorflow(os.path.join(folder, prefix), beside)
        elif not any_name and os.path.islink(path):
            one = _link(path) if listed else None
        elif name.endswith(ENDING):
            one = _sharded(path)
        else:
            one = _file(path, (before or {}).get(name))
        if one is not None and (listed or one.ours):
            yield one


def _may_be_renamed(name: str) -> bool:
    """Return whether a file may be a checkpoint of this package that the user has renamed."""
    return not name.startswith(".") and not name.endswith(RECORD) and ".data-" not in name


def _link(path: str) -> CheckpointEntry | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return _entry(path, Kind.UNKNOWN, State.FOREIGN, NOT_FOLLOWED, status, size=0, identity=None)


def _file(path: str, before: CheckpointEntry | None) -> CheckpointEntry | None:
    doing = "opened"
    try:
        if before is not None and before.identity == _identity(os.stat(path)):
            return before
        descriptor = os.open(path, OPENING)
        doing = "read"
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            return _told(path, status, glimpse(descriptor, path))
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None  # A retention policy has deleted it since the directory was listed.
    except OSError as error:
        note = f"cannot be {doing}: {error.strerror or error}"
        return CheckpointEntry(path, kind=Kind.UNKNOWN, state=State.DAMAGED, note=note)


def _sharded(path: str) -> CheckpointEntry | None:
    try:
        artefact = tell(path)
        status = os.stat(path)
    except (OSError, CkptError):
        return None
    if artefact.kind is not Kind.SHARDED_WEIGHTS:
        return None
    bad = artefact.damage or (artefact.refusal.what if artefact.refusal else "")
    state = State.DAMAGED if bad else State.FOREIGN
    note = bad or NO_RECORD
    return _entry(path, artefact.kind, state, note, status, size=artefact.size, identity=None)


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _entry(
    path: str, kind: Kind, state: State, note: str, status: os.stat_result, **more: Any
) -> CheckpointEntry:
    shown = {
        "size": status.st_size,
        "modified": status.st_mtime,
        "identity": _identity(status),
        **more,
    }
    return CheckpointEntry(path, kind=kind, state=state, note=note, **shown)


def _told(path: str, status: os.stat_result, seen: Glimpse) -> CheckpointEntry:
    head, note = seen.head, seen.damage or seen.note
    state = State.DAMAGED if seen.damage else State.WHOLE if head else State.FOREIGN
    shown = _entry(path, seen.kind, state, note, status)
    if head is None:
        return shown
    number = number_in(path) if head.kind == "checkpoint" else None
    return CheckpointEntry.of_record(
        path,
        head,
        number,
        kind=seen.kind,
        state=state,
        note=note,
        size=shown.size,
        modified=shown.modified,
        identity=shown.identity,
    )


def _staged(path: str) -> CheckpointEntry | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    target = target_of_staged(os.path.basename(path))
    left = is_abandoned(path)
    note = f"left by a killed writer of {target}" if left else f"{target} is being written"
    return _entry(path, Kind.UNKNOWN, State.UNFINISHED, note, status)


def _tensorflow(prefix: str, data: list[str]) -> CheckpointEntry | None:
    for path in (f"{prefix}{INDEX}", f"{prefix}{RECORD}", *data):
        if os.path.islink(path):
            return _link(path)
    found: dict[str, os.stat_result] = {}
    for path in (f"{prefix}{INDEX}", *data):
        try:
            found[path] = os.stat(path)
        except FileNotFoundError:
            continue  # The file is only named; other files may show that it existed.
        except OSError:
            return None
    index, whole = found.get(f"{prefix}{INDEX}"), found.get(f"{prefix}{DATA}")
    size = sum(status.st_size for status in found.values())
    damage = "its data file is missing" if len(found) < 2 else ""
    damage = damage if index else "its index file is missing"
    # Checked last, because the record is deleted first.
    own = _of_run(prefix, whole.st_size if whole else 0)
    if own is not None:
        identity = _identity(index) if index else own.identity
        own = replace(own, size=own.size + size, identity=identity)
        return replace(own, state=State.DAMAGED, note=damage) if damage else own
    if index is None:
        return None  # A retention policy has deleted it since the directory was listed.
    state = State.DAMAGED if damage else State.FOREIGN
    return _entry(prefix, Kind.TF_CHECKPOINT, state, damage or NO_RECORD, index, size=size)


def _of_run(prefix: str, data_size: int) -> CheckpointEntry | None:
    """Return a TensorFlow checkpoint of a run, with only the size of its record."""
    try:
        descriptor = os.open(f"{prefix}{RECORD}", OPENING)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            seen = glimpse_of_run(descriptor, prefix, data_size)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return None if seen is None else _told(prefix, status, seen)

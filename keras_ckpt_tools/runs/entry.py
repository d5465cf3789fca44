"""The files in the directory of a run, as light records: directory -> *records* -> choice, lists.

The one listing of a directory, for everything that shows or takes one of its files. Which of them
is the newest and which the best, `storage.retention` decides.

Four states are told apart by what shows: whole, damaged, not finished, somebody else's. Whatever
happens to a file between the listing of its directory and here (deleted, replaced, no longer to be
read) is a state too, or nothing, and never an error: a list is made while training goes on.
"""

from __future__ import annotations

import enum
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.common.safe_open import NOT_FOLLOWED, Identity, is_alias
from keras_ckpt_tools.formats.hdf5.shard_index import ENDING, shards_named_by
from keras_ckpt_tools.formats.kinds import Kind, tell
from keras_ckpt_tools.formats.record.userblock import decode
from keras_ckpt_tools.formats.tensorflow.recorded import DATA, INDEX, RECORD
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.peek import (
    NO_RECORD,
    WITHOUT_RECORD,
    Glimpse,
    glimpse,
    glimpse_of_run,
    reader_of,
)
from keras_ckpt_tools.runs.retention import newest_first
from keras_ckpt_tools.storage.commit import is_abandoned, target_of_staged

__all__ = [
    "KeptCheckpoint",
    "State",
    "entries_in",
    "is_listed",
    "look_at_all",
    "progress_with_history",
]

_OPENING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_SUFFIXES = (".keras", ".h5", ".hdf5")
_NUMBER = re.compile(r"ckpt-(\d{8,})(\.weights\.h5)?")  # Without an ending: a prefix.
_RECORD = re.compile(rf"ckpt-\d{{8,}}{re.escape(RECORD)}")
_PATTERN = "filepath"
_NEVER = TrainingProgress()


class State(enum.StrEnum):
    """What shows of a file in the directory of a run."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    UNFINISHED = "not finished"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class KeptCheckpoint:
    """One file of a run, as far as the head of its record says.

    Attributes:
        path: Where it is.
        kind: What it is.
        state: What shows of it.
        size: Bytes.
        modified: When it was last written to, by the file system, in seconds since 1970.
        progress: Where training was; its `history` is empty, see `Run.history`. The zero record
            where it does not say.
        number: Its place in the order of the saves of a manager or `BackupAndRestore`, or `None`.
        pattern: The file name pattern of the `ModelCheckpoint` that wrote it, or `None`.
        tracked: For a checkpoint, the kind of each tracked object by its name.
        versions: Versions that wrote it.
        note: What is wrong with it, or who wrote it.
        best: Whether it is the best of its run, by the metric that was monitored.
        identity: What changes when the file is replaced.
        finite: Whether its weights are numbers: without NaN.
    """

    path: str
    kind: Kind
    state: State
    size: int = 0
    modified: float = 0.0
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    number: int | None = None
    pattern: str | None = None
    tracked: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    best: bool = False
    identity: Identity | None = field(default=None, repr=False)
    finite: bool = True

    @property
    def name(self) -> str:
        """The file's name without its directory."""
        return os.path.basename(self.path)

    @property
    def ours(self) -> bool:
        """Whether it has a record that can be read, and is as long as that says."""
        return self.state is State.WHOLE

    @property
    def problem(self) -> str:
        """Why it is passed over although it is called like a checkpoint; empty where it is not.

        Third-party files have no record, and a link to a file beside it is that file.
        """
        if self.state is State.DAMAGED:
            return self.note
        if self.state is not State.FOREIGN or self.note in WITHOUT_RECORD:
            return ""
        if self.note == NOT_FOLLOWED:
            return "" if is_alias(self.path) else f"it is {self.note}"
        return self.note.rstrip(".")

    @property
    def epoch(self) -> int:
        """Epochs that have ended, which is the zero-based epoch to go on with."""
        return self.progress.epochs_completed

    @property
    def batch(self) -> int:
        """Batches done of the epoch under way; 0 between epochs."""
        return self.progress.batches_completed

    @property
    def step(self) -> int:
        """Optimizer updates since the run began."""
        return self.progress.step

    @property
    def logs(self) -> Mapping[str, float]:
        """The logs at the save."""
        return self.progress.logs

    @property
    def run_id(self) -> str:
        """Name of the run that wrote it; empty where that is not known."""
        return self.progress.run_id

    @property
    def saved_at(self) -> float:
        """When it was saved, in seconds since 1970; by the file system where it does not say."""
        return self.progress.saved_at or self.modified

    @property
    def holds(self) -> frozenset[str]:
        """Names of what it holds beside tracked objects, which tell who wrote it."""
        return frozenset(name for name, kind in self.tracked.items() if kind == "run")


def is_listed(name: str) -> bool:
    """Return whether a file of that name is one of a run."""
    if name.startswith("."):
        return (target_of_staged(name) or "").endswith(_SUFFIXES)
    return name.endswith((*_SUFFIXES, ENDING, INDEX)) or _RECORD.fullmatch(name) is not None


def entries_in(directory: str) -> list[KeptCheckpoint]:
    """Return what shows of the files of a directory, the newest first.

    Raises:
        OSError: the directory cannot be read.
    """
    return newest_first(look_at_all(directory, os.listdir(directory), {}, any_name=False))


def progress_with_history(one: KeptCheckpoint) -> TrainingProgress:
    """Return where training was at a checkpoint, with the logs of all epochs.

    Without these, where the file has been replaced or deleted since the directory was listed.
    """
    ending = RECORD if one.kind is Kind.TF_CHECKPOINT else ""
    try:
        descriptor = os.open(f"{one.path}{ending}", _OPENING)
    except OSError:
        return one.progress
    try:
        read = reader_of(descriptor, one.path)
        found = decode(read, one.path) if read else None
    except (CkptError, OSError):
        found = None
    finally:
        os.close(descriptor)
    return found[0].progress if found else one.progress


def look_at_all(
    folder: str, names: list[str], before: Mapping[str, KeptCheckpoint], *, any_name: bool
) -> Iterator[KeptCheckpoint]:
    """Yield what shows of the files of a directory.

    Args:
        folder: The directory.
        names: The names in it.
        before: What was seen before, by name: files that have not changed are not read again.
        any_name: Whether files that are not called like checkpoints are listed, whoever wrote them.
            If not, only those with a record are.
    """
    there = set(names)
    # Sharded weights are one thing: they are listed by their index.
    shards = frozenset() if any_name else shards_named_by(folder, names)
    data: dict[str, list[str]] = {}
    for name in names:
        if (begin := name.rpartition(".data-")[0]) and not name.startswith("."):
            data.setdefault(begin, []).append(name)
    for name in names:
        listed = any_name or is_listed(name)
        if name in shards or not (listed or _may_be_renamed(name)):
            continue
        path = os.path.join(folder, name)
        one: KeptCheckpoint | None
        if name.startswith(".") and target_of_staged(name):
            one = _staged(path)
        elif name.endswith(INDEX) or _RECORD.fullmatch(name):
            prefix, ending = os.path.splitext(name)
            if ending == RECORD and f"{prefix}{INDEX}" in there:
                continue
            one = _tensorflow(os.path.join(folder, prefix), data.get(prefix, []))
        elif not any_name and os.path.islink(path):
            one = _link(path) if listed else None
        elif name.endswith(ENDING):
            one = _sharded(path)
        else:
            one = _look_at(path, before.get(name))
        if one is not None and (listed or one.ours):
            yield one


def _may_be_renamed(name: str) -> bool:
    """Return whether a file may be a checkpoint of ours that a user has given another name."""
    return not name.startswith(".") and not name.endswith(RECORD) and ".data-" not in name


def _link(path: str) -> KeptCheckpoint | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return KeptCheckpoint(path, Kind.UNKNOWN, State.FOREIGN, 0, status.st_mtime, note=NOT_FOLLOWED)


def _look_at(path: str, before: KeptCheckpoint | None) -> KeptCheckpoint | None:
    try:
        if before is not None and before.identity == _identity(os.stat(path)):
            return before
        descriptor = os.open(path, _OPENING)
    except FileNotFoundError:
        return None  # A policy has deleted it since the directory was listed.
    except OSError as error:
        reason = f"cannot be opened: {error.strerror or error}"
        return KeptCheckpoint(path, Kind.UNKNOWN, State.DAMAGED, note=reason)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        return _told(path, status, glimpse(descriptor, path))
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        return KeptCheckpoint(path, Kind.UNKNOWN, State.DAMAGED, note=reason)
    finally:
        os.close(descriptor)


def _sharded(path: str) -> KeptCheckpoint | None:
    try:
        artefact = tell(path)
        modified = os.stat(path).st_mtime
    except (OSError, CkptError):
        return None
    if artefact.kind is not Kind.SHARDED_WEIGHTS:
        return None
    bad = artefact.damage or (artefact.refusal.what if artefact.refusal else "")
    state = State.DAMAGED if bad else State.FOREIGN
    note = bad or "no record of ours"
    return KeptCheckpoint(path, artefact.kind, state, artefact.size, modified, note=note)


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _told(path: str, status: os.stat_result, seen: Glimpse) -> KeptCheckpoint:
    head = seen.head
    name = os.path.basename(path)
    number = _NUMBER.fullmatch(name) if head and head.kind == "checkpoint" else None
    pattern = head.state.get(_PATTERN) if head else None
    return KeptCheckpoint(
        path,
        seen.kind,
        State.DAMAGED if seen.damage else State.WHOLE if head else State.FOREIGN,
        status.st_size,
        status.st_mtime,
        head.progress if head else _NEVER,
        int(number[1]) if number else None,
        pattern if isinstance(pattern, str) else None,
        head.tracked if head else {},
        head.versions if head else {},
        seen.damage or seen.note,
        identity=_identity(status),
        finite=head.finite if head else True,
    )


def _staged(path: str) -> KeptCheckpoint | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    target = target_of_staged(os.path.basename(path))
    left = is_abandoned(path)
    note = f"a killed writer left it of {target}" if left else f"{target} is being written"
    return KeptCheckpoint(
        path,
        Kind.UNKNOWN,
        State.UNFINISHED,
        status.st_size,
        status.st_mtime,
        note=note,
        identity=_identity(status),
    )


def _tensorflow(prefix: str, data: list[str]) -> KeptCheckpoint | None:
    folder = os.path.dirname(prefix)
    named = (f"{prefix}{INDEX}", f"{prefix}{RECORD}", *(os.path.join(folder, n) for n in data))
    if any(map(os.path.islink, named)):
        return _link(next(path for path in named if os.path.islink(path)))
    found: dict[str, os.stat_result] = {}
    for path in (f"{prefix}{INDEX}", *(os.path.join(folder, name) for name in data)):
        try:
            found[path] = os.stat(path)
        except FileNotFoundError:
            continue  # Named, or told by the other files to have been there.
        except OSError:
            return None
    index, whole = found.get(f"{prefix}{INDEX}"), found.get(f"{prefix}{DATA}")
    size = sum(status.st_size for status in found.values())
    damage = "its data file is not there" if len(found) < 2 else ""
    damage = damage if index else "its index is not there"
    own = _of_run(prefix, whole.st_size if whole else 0)
    if own is not None:
        identity = _identity(index) if index else own.identity
        own = replace(own, size=own.size + size, identity=identity)
        return replace(own, state=State.DAMAGED, note=damage) if damage else own
    if index is None:
        return None  # A policy has deleted it since the directory was listed.
    return KeptCheckpoint(
        prefix,
        Kind.TF_CHECKPOINT,
        State.DAMAGED if damage else State.FOREIGN,
        size,
        index.st_mtime,
        note=damage or NO_RECORD,
        identity=_identity(index),
    )


def _of_run(prefix: str, data_size: int) -> KeptCheckpoint | None:
    """Return a TensorFlow checkpoint of a run, with the size of its record alone."""
    try:
        descriptor = os.open(f"{prefix}{RECORD}", _OPENING)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        seen = (
            glimpse_of_run(descriptor, prefix, data_size) if stat.S_ISREG(status.st_mode) else None
        )
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if seen is None:
        return None
    return _told(prefix, status, seen)

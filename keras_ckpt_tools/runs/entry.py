"""Describe one file in the directory of a run: its visible state and its record.

Policies, lists, a resume and pruning all use these entries. `listing` creates them; `retention`
decides which is the newest and which the best.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.common.safe_open import NOT_FOLLOWED, Identity, is_alias
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.record.userblock import decode, digest_of
from keras_ckpt_tools.formats.tensorflow.recorded import RECORD
from keras_ckpt_tools.metadata import Record, TrainingProgress
from keras_ckpt_tools.runs.peek import OPENING, WITHOUT_RECORD, reader_of

__all__ = ["CheckpointEntry", "State"]

_PATTERN = "filepath"


class State(enum.StrEnum):
    """The visible state of a file in the directory of a run."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    UNFINISHED = "not finished"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class CheckpointEntry:
    """One file of a run.

    Attributes:
        path: Path of the file; for a TensorFlow checkpoint, its prefix.
        number: Its number in the order of the saves of a manager or `BackupAndRestore`, or `None`.
        progress: The position of training; all zeros if unknown. `entries_in` and `read_run` leave
            its `history` empty: see `Run.history`.
        kind: Type of the file.
        state: Its visible state.
        size: Size in bytes.
        modified: Modification time in the file system, in seconds since 1970.
        pattern: The file name pattern of the `ModelCheckpoint` that wrote it, or `None`.
        tracked: For a checkpoint, the kind of each tracked object, by name.
        versions: Versions of the packages that wrote it.
        finite: Whether its weights are free of NaN and of unexpected infinities.
        phase: The `fit()` that saved it; see `phases`.
        note: What is wrong with it, or which program wrote it.
        best: Whether it is the best of its run, by the monitored metric.
        identity: A value that changes when the file is replaced.
    """

    path: str
    number: int | None = None
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    kind: Kind = Kind.CHECKPOINT
    state: State = State.WHOLE
    size: int = 0
    modified: float = 0.0
    pattern: str | None = None
    tracked: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    finite: bool = True
    phase: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    note: str = ""
    best: bool = False
    identity: Identity | None = field(default=None, repr=False)

    @classmethod
    def of_record(cls, path: str, record: Record, number: int | None = None, **shown: Any) -> Self:
        """Return the entry of a file written by this package.

        Args:
            path: Path of the file.
            record: Its record.
            number: Its number in the order of the saves, or `None`.
            **shown: Values of the other attributes.
        """
        pattern = record.state.get(_PATTERN)
        return cls(
            path,
            number,
            record.progress,
            pattern=pattern if isinstance(pattern, str) else None,
            tracked={name: one.kind for name, one in record.tracked.items()},
            versions=record.versions,
            finite=not record.not_finite,
            phase=record.phase,
            **shown,
        )

    @property
    def name(self) -> str:
        """The file name without the directory."""
        return os.path.basename(self.path)

    @property
    def ours(self) -> bool:
        """Whether this package wrote it: the record is readable and the size matches."""
        return self.state is State.WHOLE

    @property
    def problem(self) -> str:
        """Why a file with the name of a checkpoint is skipped; empty if it is not skipped.

        Third-party files have no record. A link to a file in the same directory is that file.
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
        """Number of completed epochs, which is the zero-based epoch to resume with."""
        return self.progress.epochs_completed

    @property
    def batch(self) -> int:
        """Completed batches of the epoch under way; 0 between epochs."""
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
        """ID of the run that wrote it; empty if unknown."""
        return self.progress.run_id

    @property
    def saved_at(self) -> float:
        """Time of the save in seconds since 1970; the modification time if not recorded."""
        return self.progress.saved_at or self.modified

    @property
    def holds(self) -> frozenset[str]:
        """Names of the extra state in it, which show which class wrote it."""
        return frozenset(name for name, kind in self.tracked.items() if kind == "run")

    def read_record(self) -> Record | None:
        """Return its complete record, or `None` if it was replaced or deleted since."""
        ending = RECORD if self.kind is Kind.TF_CHECKPOINT else ""
        try:
            descriptor = os.open(f"{self.path}{ending}", OPENING)
        except OSError:
            return None
        try:
            read = reader_of(descriptor, self.path)
            found = decode(read, self.path) if read else None
        except (CkptError, OSError):
            found = None
        finally:
            os.close(descriptor)
        return found[0] if found else None

    def progress_with_history(self) -> TrainingProgress:
        """Return the position of training, with the logs of all epochs if they can be read."""
        record = self.read_record()
        return record.progress if record else self.progress

    def digest(self) -> str:
        """Return a digest of its tensors without the extra run state; `""` if unknown."""
        record = self.read_record()
        told = [
            (info.path, info.digest)
            for info in (record.tensors if record else ())
            if not info.path.startswith("_")
        ]
        if not told or not all(digest for _, digest in told):
            return ""
        return digest_of(repr(sorted(told)).encode())

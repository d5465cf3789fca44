"""One file in the directory of a run: what shows of it, and what its record contains.

Policies, lists, a resume and pruning all work on these. `listing` makes them; `retention` decides
which of them is the newest and which the best.
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
    """What shows of a file in the directory of a run."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    UNFINISHED = "not finished"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class CheckpointEntry:
    """One file of a run.

    Attributes:
        path: Where it is; of a TensorFlow checkpoint, its prefix.
        number: Its place in the order of the saves of a manager or `BackupAndRestore`, or `None`.
        progress: Where training was; the zero record where it does not say. `entries_in` and
            `read_run` leave its `history` empty: see `Run.history`.
        kind: What it is.
        state: What shows of it.
        size: Bytes.
        modified: When it was last written to, by the file system, in seconds since 1970.
        pattern: The file name pattern of the `ModelCheckpoint` that wrote it, or `None`.
        tracked: For a checkpoint, the kind of each tracked object by its name.
        versions: Versions that wrote it.
        finite: Whether its weights are numbers: without NaN, or infinity where it is not meant.
        phase: Which `fit()` of a program it is of; see `phases`.
        note: What is wrong with it, or who wrote it.
        best: Whether it is the best of its run, by the metric that was monitored.
        identity: What changes when the file is replaced.
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
        """Return the entry of a file that was written by this package.

        Args:
            path: The file.
            record: Its record.
            number: Its place in the order of the saves, or `None`.
            **shown: What else shows of it.
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

    def read_record(self) -> Record | None:
        """Return its whole record, or `None` where it has been replaced or deleted since."""
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
        """Return where training was, with the logs of all epochs where these can be read."""
        record = self.read_record()
        return record.progress if record else self.progress

    def digest(self) -> str:
        """Return a digest of its tensors, those of the run itself left out; `""` if not known."""
        record = self.read_record()
        told = [
            (info.path, info.digest)
            for info in (record.tensors if record else ())
            if not info.path.startswith("_")
        ]
        if not told or not all(digest for _, digest in told):
            return ""
        return digest_of(repr(sorted(told)).encode())

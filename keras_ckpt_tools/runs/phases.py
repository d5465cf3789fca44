"""Assign each `fit()` call of a program to a phase, so that a restart resumes the same phase.

A program may call `fit()` several times with one directory, for example to train a head and then
all layers, or one model per fold. Each call is a phase and has a run of its own in the directory. A
checkpoint records its phase: the name if the user gave one, the number of the call, and which model
of the program it trained. A restart makes the same calls again, so the n-th call finds what the
n-th call saved. A named phase is found whatever was called before it.

If one program has trained several models in a directory without names, a restart may begin with
any of them (a tuner does not repeat completed trials). Loading the result of another model would
be wrong, so nothing is resumed, and a warning names the remedies.

Within a process, calls are counted for each directory. After an interruption, training the same
model again or a new model resumes. After a completed call, the next call is the next phase.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import uuid
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.storage.commit import staged

_AMBIGUOUS = (
    "{directory!r} contains runs of several models of one program. It is not known which of them "
    "this `fit()` resumes, so training starts over. The existing checkpoints are not changed. To "
    "resume, name each run, `BackupAndRestore(..., phase=f'fold-{{k}}')`, or use one directory for "
    "each. `resume='must'` resumes the newest run, {newest!r}."
)
_OTHER_MODEL = (
    "{directory!r} contains a completed run of another model that this process has trained. This "
    "{directory!r} contains a completed run of another model of this process. This "
    "run, pass `resume='must'`. To let a restart resume each run, name the runs, "
    "`phase=f'fold-{{k}}'`, or use one directory for each."
)


@dataclass(frozen=True)
class Phase:
    """One `fit()` call of a program.

    Attributes:
        number: Number of the call, from 1.
        model: Number of the model of the program that it trains, from 1.
        name: The name that the user gave, or `None`.
        program: ID of the program, the same across restarts; empty in older checkpoints.
    """

    number: int = 1
    model: int = 1
    name: str | None = None
    program: str = ""

    @classmethod
    def of(cls, saved: CheckpointEntry) -> Phase:
        """Return the phase that a checkpoint belongs to; older ones belong to the first."""
        return cls.read(saved.phase)

    @classmethod
    def read(cls, recorded: Mapping[str, Any]) -> Phase:
        """Return a phase from its record in a checkpoint; ignore invalid values."""
        numbers = {
            name: recorded[name]
            for name in ("number", "model")
            if type(recorded.get(name)) is int and recorded[name] > 0
        }
        texts = {n: recorded[n] for n in ("name", "program") if type(recorded.get(n)) is str}
        return cls(**numbers, **texts)

    def __str__(self) -> str:
        return f"Phase {self.name!r}" if self.name else f"Phase {self.number}"


@dataclass(frozen=True)
class Choice:
    """The checkpoints that a phase may resume from.

    Attributes:
        saved: The checkpoints to try, oldest first.
        over: Whether the phase is complete because a later one has started: it trains nothing.
        of_later: Whether the checkpoints are of a later phase, because its own were deleted.
        warning: The text of a warning, or an empty string.
    """

    saved: list[CheckpointEntry]
    over: bool = False
    of_later: bool = False
    warning: str = ""


def check_phase(phase: Any) -> str | None:
    """Return the argument `phase` if it is valid.

    Raises:
        ArgumentError: it is not a name.
    """
    if phase is None or (isinstance(phase, str) and phase):
        return phase
    raise ArgumentError(
        "`phase` is the name of a phase of the program, or None.",
        received=f"phase={phase!r}",
        remedy='Pass a string that is the same at each start: `phase="fine-tune"`.',
    )


def _no_model() -> Any:
    return None


class Phases:
    """The `fit()` calls of this process with one directory.

    Attributes:
        phase: The current phase, or the last one.
        earlier: The histories of earlier phases of the same model, by number.
    """

    def __init__(self, directory: str):
        self.directory = directory
        self.phase: Phase | None = None
        self.earlier: dict[str, Any] = {}
        self._model: Any = _no_model
        self._ended = False
        self._first = 1
        self._fresh = True
        self._shy = False
        self._warned = False
        self._held: int | None = None
        self._left: tuple[str, float] | None = None

    def begins(self, model: Any, name: str | None, saved: Sequence[CheckpointEntry]) -> Phase:
        """Note that a `fit()` has started, and return its phase.

        Args:
            model: The model that it trains.
            name: The name of the phase, or `None`.
            saved: The existing checkpoints, oldest first.
        """
        if self._ended and saved and _newest_of(saved) != self._left:
            # Another process has trained here since, or a copy was restored: resume that.
            self._let_go()
            self.__init__(self.directory)  # type: ignore[misc]
        before, same = self.phase, self._model() is model
        self._fresh = before is None or not (self._ended or same)
        if before is None:
            phase = Phase(name=name, program=uuid.uuid4().hex)
        elif same:
            further = self._ended or name != before.name
            phase = dataclasses.replace(before, number=before.number + further, name=name)
        elif self._ended:
            number = before.number + 1
            phase = Phase(number, before.model + 1, name, before.program)
            self._first, self.earlier = number, {}
            self._let_go()
        else:
            # The program starts again in the same process, as in a notebook after an interruption.
            phase = dataclasses.replace(before, number=self._first, name=name)
        self.phase, self._model, self._ended = phase, weakref.ref(model), False
        return phase

    @property
    def is_new(self) -> bool:
        """Whether this is a new phase and this process has used the directory before."""
        assert self.phase is not None
        return self.phase.number > self._first or self.phase.model > 1

    @property
    def is_further(self) -> bool:
        """Whether this process has trained the model in an earlier phase."""
        return self.phase is not None and self.phase.number > self._first

    def trained(self, model: Any) -> bool:
        """Return whether the last `fit()` trained the same model and was interrupted."""
        return self._model() is model and not self._ended

    @property
    def may_begin_from_stock(self) -> bool:
        """Whether a backup of Keras may be resumed: those contain no phases."""
        return self.phase is not None and self.phase.number == 1

    def starts_over(self) -> None:
        """Note that the user does not want to resume: existing runs are of other programs."""
        if self._fresh and self.phase is not None:
            self.phase = dataclasses.replace(self.phase, program=uuid.uuid4().hex)

    def choose(self, saved: Sequence[CheckpointEntry], resume: str) -> Choice:
        """Return which checkpoints the phase may resume from.

        Args:
            saved: The existing checkpoints, oldest first.
            resume: `"auto"` or `"must"`.
        """
        assert self.phase is not None
        phase, pairs = self.phase, [(item, Phase.of(item)) for item in saved]
        if not pairs:
            return Choice([])
        if phase.name is not None and any(each.name for _, each in pairs):
            return self._chosen([pair for pair in pairs if pair[1].name == phase.name], pairs)
        newest = pairs[-1][1]
        beginning = self._fresh or phase.number == self._first
        if resume == "must" and beginning:
            return self._chosen([pair for pair in pairs if pair[1] == newest], [])
        if self._fresh and phase.model == 1 and not self._shy:
            # Only the program that saved last counts.
            pairs = [pair for pair in pairs if pair[1].program == newest.program]
            if any(each.model > 1 for _, each in pairs):
                self._shy = True
                return self._nothing(_AMBIGUOUS, pairs[-1][0].path)
        else:
            others = len(pairs)
            pairs = [pair for pair in pairs if pair[1].program == phase.program]
            if phase.model > 1 and phase.number == self._first and not self._fresh and others:
                return self._nothing(_OTHER_MODEL, saved[-1].path)
        mine = [pair for pair in pairs if pair[1].number == phase.number]
        return self._chosen(mine, pairs)

    def _nothing(self, why: str, newest: str) -> Choice:
        told, self._warned = self._warned, True
        text = why.format(directory=self.directory, newest=newest)
        return Choice([], warning="" if told else text)

    def _chosen(
        self, mine: list[tuple[CheckpointEntry, Phase]], pairs: list[tuple[CheckpointEntry, Phase]]
    ) -> Choice:
        assert self.phase is not None
        if mine:
            # Several programs may have used the name: the one that saved last counts.
            latest = mine[-1][1]
            mine = [pair for pair in mine if pair[1].program == latest.program]
        here = mine[-1][1] if mine else self.phase
        later = [
            item
            for item, each in pairs
            if (each.program == here.program or not mine)
            and each.model == here.model
            and each.number > here.number
        ]
        if mine:
            return Choice([item for item, _ in mine], over=bool(later))
        if later and self.phase.name is None:
            return Choice(later[:1], over=True, of_later=True)
        return Choice([])

    def resumed(self, saved: Mapping[str, Any], *, of_later: bool) -> None:
        """Note the recorded phase of the resumed checkpoint."""
        assert self.phase is not None
        item = Phase.read(saved)
        self.earlier = dict(saved.get("earlier") or {})
        program = item.program or self.phase.program
        if of_later or not saved:
            self.phase = dataclasses.replace(self.phase, program=program)
            return
        name = self.phase.name or item.name
        self.phase = Phase(item.number, item.model, name, program)
        self._first = min(self._first, item.number)

    def state(self) -> dict[str, Any]:
        """Return the values that a checkpoint records."""
        assert self.phase is not None
        return {**dataclasses.asdict(self.phase), "earlier": dict(self.earlier)}

    def ended(self, progress: TrainingProgress, path: str | None) -> None:
        """Note that the phase is complete.

        Args:
            progress: The position of training.
            path: Its last checkpoint, which is about to be deleted; `None` if it is retained. The
                file stays open: if the same model is trained further, the file is written again.
                Otherwise a restart in the next phase would train this phase a second time.
        """
        if self.phase is None:
            return
        self._ended = True
        self.earlier[str(self.phase.number)] = {
            "epochs_completed": progress.epochs_completed,
            "history": {name: list(values) for name, values in progress.history.items()},
            "history_epochs": {n: list(epochs) for n, epochs in progress.history_epochs.items()},
        }
        self._let_go()
        if path is not None:
            with contextlib.suppress(OSError):
                self._held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                weakref.finalize(self._model(), self._let_go, self._held)

    def leaves(self, saved: Sequence[CheckpointEntry]) -> None:
        """Note which checkpoints remain in the directory after the phase."""
        self._left = _newest_of(saved) if saved else None

    def put_back(self, path: str) -> bool:
        """Write the last checkpoint of the previous phase again, which was deleted at its end.

        Returns:
            Whether there was one.

        Raises:
            CommitError: the operating system refused.
        """
        if self._held is None:
            return False
        with open(os.dup(self._held), "rb") as kept, staged(path) as file:
            kept.seek(0)
            shutil.copyfileobj(kept, file, 1 << 20)
        self._let_go()
        return True

    def _let_go(self, one: int | None = None) -> None:
        held = self._held
        if held is not None and one in (None, held):
            self._held = None
            with contextlib.suppress(OSError):
                os.close(held)

    def is_of_program(self, saved: CheckpointEntry) -> bool:
        """Return whether a checkpoint is of this program and model, in any phase."""
        here, there = self.phase, Phase.of(saved)
        return here is not None and (there.program, there.model) == (here.program, here.model)


_by_directory: dict[str, Phases] = {}


def _newest_of(saved: Sequence[CheckpointEntry]) -> tuple[str, float]:
    return os.path.basename(saved[-1].path), saved[-1].progress.saved_at


def phases_of(directory: str) -> Phases:
    """Return the phases of this process in a directory."""
    real = os.path.realpath(directory)
    if real not in _by_directory:
        _by_directory[real] = Phases(directory)
    return _by_directory[real]


def forget_phases() -> None:
    """Forget all calls, as in a new process. For tests."""
    _by_directory.clear()

"""Preview a resume: show what a restart would restore, without changing anything.

It chooses as a resume does (`choose`, `stock_backups`) and reads every byte of the chosen file as a
restore does. It does not know the program that will be started: which objects it has, and whether
its data can be replayed. What depends on them is written as a condition.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_ckpt_tools._version import __version__
from keras_ckpt_tools.errors import CkptError, DamagedArtefactError
from keras_ckpt_tools.formats.common.finite import spoiled_in
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint
from keras_ckpt_tools.formats.tensorflow.prefixes import files_of, prefix_of
from keras_ckpt_tools.formats.tensorflow.recorded import RECORD, is_prefix
from keras_ckpt_tools.metadata import Record, TrainingProgress, epoch_number
from keras_ckpt_tools.runs.choose import NotFinite, choose_newest, is_over, other_major
from keras_ckpt_tools.runs.phases import Phase
from keras_ckpt_tools.runs.stock_backups import (
    SAVE_COUNTER,
    StockBackup,
    count_in,
    stock_backups,
)
from keras_ckpt_tools.storage.directory_lock import is_occupied

_PACKAGES = ("python", "keras", "tensorflow", "numpy", "h5py", "keras_ckpt_tools")
_OPTIMIZER = re.compile(r"([^/]+/)?optimizer(_weights)?/")
_BESIDE = {
    "_random": "random generators",
    "_callbacks": "callbacks",
    "_metrics": "metrics of the epoch under way",
    "_fit": "position in the data of fit()",
    "_loop": "position in the data of a loop",
    "_cadence": "schedule of the next save",
}


@dataclass(frozen=True)
class Difference:
    """A package with another version than the one that wrote a checkpoint.

    Attributes:
        package: Its name.
        saved: The version that wrote the checkpoint.
        installed: The installed version; empty if the package is not installed.
        stops: Whether a restart is refused because of the difference.
    """

    package: str
    saved: str
    installed: str
    stops: bool = False


@dataclass(frozen=True)
class Foresight:
    """What a restart would do.

    Attributes:
        path: The path that was passed.
        chosen: The file that would be restored, or `None`.
        kind: Its type.
        progress: The position at which training would resume.
        passed: Files that would be skipped, as `(path, why)`.
        holds: What would be restored: names and kinds.
        lacks: What would start over.
        differences: Packages with other versions than those that wrote it.
        notes: Further remarks, as sentences.
        in_use: Whether a process saves into the directory now.
        by_itself: Whether a manager or a `BackupAndRestore` resumes from it automatically.
    """

    path: str
    chosen: str | None = None
    kind: str = ""
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    passed: tuple[tuple[str, str], ...] = ()
    holds: Mapping[str, str] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    in_use: bool = False
    by_itself: bool = True


def foresee(directory: str) -> Foresight:
    """Return what a restart in the directory of a manager or `BackupAndRestore` would do.

    Args:
        directory: The directory.

    Returns:
        The preview. Its `chosen` is `None` if training would start over. If there are checkpoints
        and none of them is complete, a restart is refused, and `passed` contains the reasons.
    """
    in_use = is_occupied(directory)
    choice = choose_newest(directory, _usable)
    nan = tuple(one for one in choice.not_finite if one[0] != choice.path)
    passed = (*nan, *choice.passed)
    if choice.result is not None:
        path, record = choice.result
        return _of_record(directory, path, record, passed, in_use=in_use)
    if passed:
        notes = ("None of the checkpoints is complete, so a restart is refused.",)
        return Foresight(directory, passed=passed, notes=notes, in_use=in_use)
    return _of_stock(directory, in_use=in_use)


def foresee_file(path: str) -> Foresight:
    """Return what resuming from one file would do.

    Raises:
        DamagedArtefactError: the file is damaged.
        CkptError: it cannot be opened.
    """
    if files_of(path):
        path = prefix_of(path.removesuffix(RECORD))
        if not is_prefix(path):
            return _of_others(path)
    _, record = _whole(path)
    if record is None:
        note = "This package did not write the file: its epoch is unknown, so epoch 0 comes next."
        return Foresight(path, path, "third-party file", notes=(note,), by_itself=False)
    return _of_record(path, path, record, ())


def _of_others(prefix: str) -> Foresight:
    """Return what resuming from a third-party TensorFlow checkpoint would do."""
    checkpoint = TfCheckpoint(prefix)
    if problems := list(checkpoint.bundle.problems()):
        raise _damaged(prefix, problems)
    note = (
        "This package did not write the checkpoint: its epoch is unknown, so epoch 0 comes next. "
        "`kct.load_weights` loads it into a model, an optimizer or other objects."
    )
    return Foresight(
        prefix,
        prefix,
        "third-party TensorFlow checkpoint",
        TrainingProgress(step=checkpoint.step()),
        holds={"tensors": f"{len(checkpoint.tensors):,} tensors"},
        notes=(note,),
        by_itself=False,
    )


def _damaged(path: str, problems: Sequence[str]) -> DamagedArtefactError:
    return DamagedArtefactError(
        "; ".join(problems),
        received=f"path={path!r}",
        remedy="Restore the file from a copy.",
        path=path,
        how="; ".join(problems),
    )


def _usable(path: str, accept_nan: bool) -> tuple[str, Record | None]:
    """Return the path and record of a file, if its weights contain no NaN or NaN is accepted.

    Raises:
        NotFinite: the weights contain NaN.
        DamagedArtefactError: the file is damaged.
    """
    with open_source(path) as source:
        record = source.record
        if not accept_nan and record is not None and record.not_finite:
            raise NotFinite(record.not_finite)
    found = _whole(path)
    if not accept_nan and record is not None and record.not_finite is None:
        with open_source(path) as source:
            source.read_all(source.tensors)
            if paths := spoiled_in(source, record):
                raise NotFinite(paths)
    return found


def _whole(path: str) -> tuple[str, Record | None]:
    """Return the path and record of a file after checking every byte.

    Raises:
        DamagedArtefactError: the file is damaged.
    """
    with open_source(path) as source:
        if problems := source.verify():
            raise _damaged(path, problems)
        return path, source.record


def _of_record(
    asked: str,
    path: str,
    record: Record | None,
    passed: tuple[tuple[str, str], ...],
    *,
    in_use: bool = False,
) -> Foresight:
    assert record is not None  # Every listed checkpoint has one.
    return Foresight(
        asked,
        path,
        record.kind,
        record.progress,
        passed,
        _held_by(record),
        _lacking_in(record),
        differences_of(record.versions),
        tuple(_notes_on(path, record, alone=asked == path)),
        in_use,
        by_itself=record.kind == "checkpoint" and asked != path,
    )


def _held_by(record: Record) -> dict[str, str]:
    if record.kind != "checkpoint":
        held = {"model": "model and weights" if record.kind == "model" else "weights"}
        return {**held, "optimizer": "optimizer"} if _has_optimizer(record) else held
    held = {name: one.kind for name, one in record.objects_tracked.items()}
    for name, one in record.tracked.items():
        if name in _BESIDE:
            held[name] = _BESIDE[name]
        if name == "_callbacks" and isinstance(one.state, Mapping):
            held[name] = f"callbacks: {', '.join(map(str, one.state))}"
    return held


def _has_optimizer(record: Record) -> bool:
    if any(one.kind == "optimizer" for one in record.tracked.values()):
        return True
    # A compiled model of a manager contains its optimizer, unless its name is `model`.
    return any(_OPTIMIZER.match(info.path) for info in record.tensors)


def _lacking_in(record: Record) -> tuple[str, ...]:
    lacks = [] if _has_optimizer(record) else ["optimizer state"]
    if "_random" not in record.tracked:
        lacks.append("random generators")
    if "_callbacks" not in record.tracked:
        lacks.append("callbacks")
    if record.progress.batches_completed and "_metrics" not in record.tracked:
        lacks.append("metrics of the epoch under way")
    return tuple(lacks)


def _notes_on(path: str, record: Record, *, alone: bool) -> list[str]:
    progress = record.progress
    epoch, batch = progress.epochs_completed, progress.batches_completed
    fit, loop = (_state_of(record, name) for name in ("_fit", "_loop"))
    notes = []
    if fit.get("stopped") or loop.get("stopped"):
        names = fit.get("stopped by") or loop.get("stopped by") or ["A callback"]
        notes.append(
            f"{' and '.join(map(str, names))} stopped the run. Nothing is left to train, if the "
            "program saves the state of that callback."
        )
    phase = Phase.read(record.phase)
    if phase.name:
        notes.append(f"It is of the phase {phase.name!r}; other phases have their own checkpoints.")
    elif phase.model > 1:
        notes.append(
            f"It is of model {phase.model} of a program that trains several models here. A restart "
            "does not know which of them `fit()` trains, so it starts over; `resume='must'` "
            "resumes this one, and with names, `phase=f'fold-{k}'`, each is resumed."
        )
    elif phase.number > 1:
        notes.append(
            f"It is of call {phase.number} of `fit()` in its program; the calls before it have "
            "ended."
        )
    if record.kind != "checkpoint":
        loads = "kct.safe_load_model" if record.kind == "model" else "kct.load_weights"
        notes.append(
            f"A restart does not resume from it by itself: load {os.path.basename(path)!r} with "
            f"`{loads}`, and pass `initial_epoch={epoch}` to `fit()`."
        )
    elif alone:
        notes.append("`manager.restore(path)` resumes from it; its directory may have a newer one.")
    number = epoch_number(epoch)
    if record.kind == "checkpoint" and not fit and is_over(progress, fit, loop):
        notes.append(
            f"All batches of epoch {number} are done, but the epoch has not ended: a loop resumes "
            f"with epoch {number + 1}."
        )
    elif fit.get("over") and batch and "_metrics" in record.tracked:
        notes.append(f"All batches of epoch {number} are done: fit() validates and ends it.")
    elif record.kind == "checkpoint" and batch and not fit:
        notes.append(f"`manager.batches(data)` skips the first {batch:,} batches.")
    elif fit and batch and fit.get("replayable", True) and "_metrics" in record.tracked:
        notes.append(
            f"fit() resumes at batch {batch:,} of the epoch if its data can be replayed; otherwise "
            "the epoch starts over."
        )
    elif fit and batch:
        notes.append("The epoch starts over from its first batch: its data cannot be replayed.")
    return notes


def _state_of(record: Record, name: str) -> Mapping[str, Any]:
    state = record.tracked[name].state if name in record.tracked else None
    return state if isinstance(state, Mapping) else {}


def differences_of(versions: Mapping[str, str]) -> tuple[Difference, ...]:
    """Return the packages that have other versions here than those that wrote a file.

    >>> differences_of({"python": platform.python_version()})
    ()
    """
    found = []
    for package in _PACKAGES:
        saved, here = versions.get(package, ""), _installed(package)
        if saved and saved != here:
            stops = package == "keras" and other_major(saved, here)
            found.append(Difference(package, saved, here, stops))
    return tuple(found)


def _installed(package: str) -> str:
    if package == "python":
        return platform.python_version()
    if package == "keras_ckpt_tools":
        return __version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _of_stock(directory: str, *, in_use: bool) -> Foresight:
    passed: list[tuple[str, str]] = []
    try:
        for backup in stock_backups(directory):
            problem = _problem_of(backup)
            if not problem and backup.place is not None:
                return _of_backup(directory, backup, tuple(passed), in_use=in_use)
            passed.append((backup.path, problem or f"Its training position is lost: {backup.lost}"))
    except DamagedArtefactError as error:
        passed.append((directory, error.what))
    if not passed:
        return Foresight(directory, in_use=in_use)
    note = "A backup of Keras exists, but it cannot be resumed from, so a restart is refused."
    return Foresight(directory, passed=tuple(passed), notes=(note,), in_use=in_use)


def _problem_of(backup: StockBackup) -> str:
    if backup.is_tensorflow and not backup.is_managers:
        return ""  # It was checked when it was opened.
    if not backup.is_tensorflow and not os.path.isfile(backup.path):
        return "The weights are missing."
    try:
        if backup.is_managers:
            return "; ".join(TfCheckpoint(backup.path).bundle.problems())
        with open_source(backup.path) as source:
            return "; ".join(source.verify())
    except CkptError as error:
        return error.what


def _of_managers(
    directory: str,
    backup: StockBackup,
    count: int,
    passed: tuple[tuple[str, str], ...],
    *,
    in_use: bool,
) -> Foresight:
    objects = TfCheckpoint(backup.path).root.children
    return Foresight(
        directory,
        backup.path,
        f"checkpoint of {backup.kind}",
        TrainingProgress(step=count),
        passed,
        {name: "object" for name in objects if name != SAVE_COUNTER},
        ("History", "callbacks", "random generators", "data iterators"),
        notes=(
            f"It contains no number of epochs: `steps()` resumes with step {count:,}, and "
            "`epochs()` starts with epoch 1. The tracked objects must have these names.",
        ),
        in_use=in_use,
    )


def _of_backup(
    directory: str,
    backup: StockBackup,
    passed: tuple[tuple[str, str], ...],
    *,
    in_use: bool,
) -> Foresight:
    assert backup.place is not None
    count = count_in(backup)
    if backup.is_managers:
        return _of_managers(directory, backup, count or 0, passed, in_use=in_use)
    place = backup.place.located(count, None)
    notes = [f"The backup contains {backup.place.told}."]
    if place.batches:
        notes.append(
            f"Epoch {place.epoch} was interrupted after {place.batches:,} of its batches and "
            "starts over from its first batch."
        )
    if backup.place.doubt:
        notes.append(
            "Its numbers are not reliable: a restart that knows the number of batches per epoch "
            "uses the number of optimizer updates instead."
        )
    return Foresight(
        directory,
        backup.path,
        f"backup of {backup.kind}",
        TrainingProgress(epochs_completed=place.epoch, step=count or 0),
        passed,
        {"model": "weights", **({} if count is None else {"optimizer": "optimizer"})},
        ("metrics", "History", "callbacks", "random generators"),
        notes=tuple(notes),
        in_use=in_use,
    )

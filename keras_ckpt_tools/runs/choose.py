"""Choose the best, the newest or another checkpoint in a directory.

The choice uses the records in the files, not names or times: the user chooses the names, and a copy
has a new time. A file that cannot be read is skipped and reported, so one damaged file does not
prevent loading. The order is that of `retention`, as in every list and every resume.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from keras_ckpt_tools.errors import ArgumentError, DamagedArtefactError
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.metadata import Record, TrainingProgress
from keras_ckpt_tools.runs.entry import CheckpointEntry, State
from keras_ckpt_tools.runs.listing import checkpoints_in, entries_in
from keras_ckpt_tools.runs.retention import best_first, newest_first

MODELS = frozenset({Kind.KERAS, Kind.H5_MODEL})

# Types with a rule of their own for the newest, used if no file was written by this package.
_OTHERS = (Kind.TF_CHECKPOINT, Kind.ORBAX)
_FOLDERS = (Kind.DIRECTORY, Kind.CHECKPOINT_DIR, *_OTHERS)


def entries_of(artefact: Artefact) -> list[CheckpointEntry]:
    """Return the files in the directory of a run, the newest first.

    Empty for everything else: a file, a model that is a directory, or a directory that contains
    only TensorFlow or Orbax checkpoints that this package did not write.
    """
    if artefact.kind not in _FOLDERS or not os.path.isdir(artefact.path):
        return []
    entries = entries_in(artefact.path)
    if artefact.kind in _OTHERS and not any(one.ours for one in entries):
        return []
    return entries


def problems_of(entries: Iterable[CheckpointEntry]) -> list[str]:
    """Return the visible damage of files that are skipped, by name."""
    found = sorted((one.name, one.problem) for one in entries if one.problem)
    return [f"{name}: {problem}" for name, problem in found]


def only_index(entries: Sequence[CheckpointEntry]) -> str | None:
    """Return the index of sharded weights if the directory contains nothing else."""
    if len(entries) == 1 and entries[0].kind is Kind.SHARDED_WEIGHTS:
        return entries[0].path
    return None


def stock_models(directory: str) -> list[str]:
    """Return the names of the models in a directory that this package did not write."""
    return [
        one.name
        for one in sorted(entries_in(directory), key=lambda one: one.name)
        if one.state is State.FOREIGN and not one.problem and not os.path.islink(one.path)
        if tell(one.path).kind in MODELS
    ]


def is_model(one: CheckpointEntry) -> bool:
    """Return whether a file is a model, or was one before it was damaged."""
    untold = one.kind in (Kind.UNKNOWN, Kind.EMPTY) and not one.name.endswith(".weights.h5")
    return one.kind in MODELS or (untold and bool(one.problem))


def check_which(which: object) -> None:
    """Raise an error for an invalid value of `which`.

    Raises:
        ArgumentError: the value is invalid.
    """
    if which in ("best", "latest") and isinstance(which, str):
        return
    if isinstance(which, bool) or not isinstance(which, int) or which < 0:
        raise ArgumentError(
            'Invalid `which`: expected "best", "latest" or an epoch number.',
            received=f"which={which!r}",
            remedy='Pass "best", "latest" or a zero-based epoch.',
        )


def require_epoch(which: str | int, record: Record | None, path: str) -> None:
    """Raise an error if a single file was saved at another epoch than the requested one.

    Args:
        which: `"best"` or `"latest"`, which any single file matches, or a zero-based epoch.
        record: The record of the file, or `None`.
        path: Path of the file, for messages.

    Raises:
        ArgumentError: the file was saved at another epoch, or its epoch is unknown.
    """
    ended = record.progress.ended_epoch if record is not None else None
    if isinstance(which, str) or ended == which:
        return
    at = "the file does not record the epoch at which it was saved"
    if record is not None:
        at = "no epoch had ended" if ended is None else f"it was saved at the end of epoch {ended}"
    raise ArgumentError(
        f"The path is a single file, which is not known to be of epoch {which} (zero-based): {at}.",
        received=f"which={which!r}, path={path!r}",
        remedy="Leave `which` out for this file, or pass the directory of the run.",
    )


def choose(
    entries: Sequence[CheckpointEntry], which: str | int, path: str
) -> list[CheckpointEntry]:
    """Return the files to try, in order of preference.

    Args:
        entries: The files of a directory.
        which: `"best"`, `"latest"` or a zero-based epoch.
        path: The directory, for messages.

    Raises:
        ArgumentError: `which` is invalid, or no file matches it.
    """
    check_which(which)
    newest = newest_first(one for one in entries if one.ours)
    if which == "latest":
        return newest
    if which == "best":
        chosen = best_first(newest)
        if not chosen and newest:
            raise ArgumentError(
                "None of the files in the directory has a value of a monitored metric, so the best "
                "one is unknown.",
                received=f"which='best', path={path!r}",
                remedy='Pass `which="latest"`, or an epoch: ' + _epochs(newest) + ".",
            )
        return chosen
    assert isinstance(which, int)
    chosen = [one for one in newest if one.progress.ended_epoch == which]
    if not chosen:
        raise ArgumentError(
            f"No file in the directory was saved at the end of epoch {which} (zero-based).",
            received=f"which={which!r}, path={path!r}",
            remedy=f"Available epochs: {_epochs(newest)}.",
        )
    # The newest run first; in it, the end of the epoch before saves inside the next epoch.
    run_id = newest[0].progress.run_id
    return sorted(chosen, key=lambda one: (one.progress.run_id != run_id, bool(one.batch)))


def _epochs(newest: Iterable[CheckpointEntry]) -> str:
    epochs = sorted({ended for one in newest if (ended := one.progress.ended_epoch) is not None})
    return ", ".join(map(str, epochs)) or "none"


T = TypeVar("T")


class NotFinite(Exception):
    """A checkpoint has NaN in its weights. `paths` are some of them."""

    def __init__(self, paths: Sequence[str]):
        named = ", ".join(paths[:3]) + (" and others" if len(paths) > 3 else "")
        super().__init__(f"NaN or infinity in {named}")
        self.paths = tuple(paths)


@dataclass(frozen=True)
class Choice(Generic[T]):
    """The chosen checkpoint.

    Attributes:
        result: The result of `attempt`; `None` if there is no checkpoint.
        saved: The checkpoints without visible damage, oldest first.
        passed: Damaged checkpoints that were skipped, as `(path, why)`.
        not_finite: Checkpoints with NaN in their weights that were tried first, as `(path, why)`.
            If the chosen one is the last of them, there was no other.
        path: Path of the chosen checkpoint, or `None`.
    """

    result: T | None
    saved: list[CheckpointEntry]
    passed: list[tuple[str, str]]
    not_finite: list[tuple[str, str]] = field(default_factory=list)
    path: str | None = None


def choose_newest(
    directory: str,
    attempt: Callable[[str, bool], T],
    among: Callable[[list[CheckpointEntry]], Sequence[CheckpointEntry]] = lambda saved: saved,
) -> Choice[T]:
    """Try the checkpoints of a directory, the newest first, until one is complete.

    Checkpoints with NaN in their weights are tried after all others of the same run.

    Args:
        directory: The directory; a missing one contains no checkpoints.
        attempt: Called with a path and whether NaN is accepted. It raises `DamagedArtefactError`
            if the file is damaged, and `NotFinite` if it contains NaN that is not accepted.
        among: Returns the candidates, oldest first.
    """
    saved, damaged = checkpoints_in(directory)
    choice: Choice[T] = Choice(None, saved, damaged)
    newest = list(reversed(among(saved)))
    run_id = newest[0].progress.run_id if newest else ""
    ours = [item for item in newest if item.progress.run_id == run_id]
    # A checkpoint of another run cannot replace one with NaN.
    for accepted, items in ((False, ours), (True, newest)):
        for item in items:
            if item not in saved:
                continue
            try:
                result = attempt(item.path, accepted)
            except NotFinite as error:
                choice.not_finite.append((item.path, str(error)))
            except DamagedArtefactError as error:
                choice.passed.append((item.path, error.what))
                saved.remove(item)
            else:
                return replace(choice, result=result, path=item.path)
    return choice


def is_over(progress: TrainingProgress, fit: Mapping[str, Any], loop: Mapping[str, Any]) -> bool:
    """Return whether all batches of the epoch under way were done, as far as this is known.

    Older versions do not record it. In their files, the recorded data or the steps of earlier
    epochs may show it.

    Args:
        progress: The position of training.
        fit: The state that `fit()` saved; empty if a loop saved the checkpoint.
        loop: The state that a loop saved; empty if `fit()` saved the checkpoint.
    """
    if "over" in loop or "over" in fit:
        return bool(loop.get("over") or fit.get("over"))
    if not progress.batches_completed:
        return False
    data, known_data = loop.get("data") or {}, fit.get("data") or {}
    batch_size, samples = data.get("batch size"), data.get("samples")
    known = known_data.get("steps_per_epoch") or known_data.get("batches of the dataset")
    if type(batch_size) is type(samples) is int and batch_size > 0 < samples:
        known = -(-samples // batch_size)
    if known is None and progress.epochs_completed:
        steps, rest = divmod(progress.step - progress.batches_completed, progress.epochs_completed)
        known = None if rest else steps
    return bool(progress.batches_completed == known)


def other_major(saved: str, installed: str) -> bool:
    """Return whether two versions of Keras have different major numbers.

    >>> other_major("3.10.0", "3.15.1"), other_major("2.15.0", "3.15.1"), other_major("", "3.0")
    (False, True, False)
    """
    return saved.partition(".")[0] not in ("", installed.partition(".")[0])

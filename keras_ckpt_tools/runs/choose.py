"""Choose among the files of a directory: artefact -> *which one* -> load.

A training run leaves a directory of models or checkpoints. Which of them is best or newest is what
their own records say, not their names or times: names are patterns of the user's, and a copy gets a
new time. A file that cannot be read is passed over, and named, so that one damaged file does not
cost the run. The order is that of `storage.retention`, which every list and every resume has too.
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

# What has a rule of its own for the newest, which counts where there is no file of ours.
_OTHERS = (Kind.TF_CHECKPOINT, Kind.ORBAX)
_FOLDERS = (Kind.DIRECTORY, Kind.CHECKPOINT_DIR, *_OTHERS)


def entries_of(artefact: Artefact) -> list[CheckpointEntry]:
    """Return the files of the directory of a run, the newest first.

    Empty for everything else: a file, one model as a directory, or checkpoints of TensorFlow or
    Orbax without files of ours among them.
    """
    if artefact.kind not in _FOLDERS or not os.path.isdir(artefact.path):
        return []
    entries = entries_in(artefact.path)
    if artefact.kind in _OTHERS and not any(one.ours for one in entries):
        return []
    return entries


def problems_of(entries: Iterable[CheckpointEntry]) -> list[str]:
    """Return what is visibly wrong with files that are passed over, by name."""
    found = sorted((one.name, one.problem) for one in entries if one.problem)
    return [f"{name}: {problem}" for name, problem in found]


def only_index(entries: Sequence[CheckpointEntry]) -> str | None:
    """Return the index of sharded weights, where these are all that a directory holds."""
    if len(entries) == 1 and entries[0].kind is Kind.SHARDED_WEIGHTS:
        return entries[0].path
    return None


def stock_models(directory: str) -> list[str]:
    """Return the names of the models in a directory that have no record of ours."""
    return [
        one.name
        for one in sorted(entries_in(directory), key=lambda one: one.name)
        if one.state is State.FOREIGN and not one.problem and not os.path.islink(one.path)
        if tell(one.path).kind in MODELS
    ]


def is_model(one: CheckpointEntry) -> bool:
    """Return whether a file is a model, or may have been one before it was damaged."""
    untold = one.kind in (Kind.UNKNOWN, Kind.EMPTY) and not one.name.endswith(".weights.h5")
    return one.kind in MODELS or (untold and bool(one.problem))


def check_which(which: object) -> None:
    """Refuse what is not one of the values of `which`.

    Raises:
        ArgumentError: it is none of them.
    """
    if which in ("best", "latest") and isinstance(which, str):
        return
    if isinstance(which, bool) or not isinstance(which, int) or which < 0:
        raise ArgumentError(
            "`which` is not one of its values.",
            received=f"which={which!r}",
            remedy='Pass "best", "latest" or a zero-based epoch.',
        )


def require_epoch(which: str | int, record: Record | None, path: str) -> None:
    """Refuse a single file where another epoch was asked for than the one it was saved at.

    Args:
        which: `"best"`, `"latest"`, which one file always is, or a zero-based epoch.
        record: What the file says about itself, or `None`.
        path: The file, for messages.

    Raises:
        ArgumentError: the file is of another epoch, or does not say of which.
    """
    ended = record.progress.ended_epoch if record is not None else None
    if isinstance(which, str) or ended == which:
        return
    at = "the file does not say at which epoch it was saved"
    if record is not None:
        at = "no epoch had ended" if ended is None else f"it was saved at the end of epoch {ended}"
    raise ArgumentError(
        f"One file was passed, and it is not known to be of epoch {which} (zero-based): {at}.",
        received=f"which={which!r}, path={path!r}",
        remedy="Leave `which` out for this file, or pass the directory of the run.",
    )


def choose(
    entries: Sequence[CheckpointEntry], which: str | int, path: str
) -> list[CheckpointEntry]:
    """Return the files to try, the first choice first.

    Args:
        entries: The files of a directory.
        which: `"best"`, `"latest"` or a zero-based epoch.
        path: The directory, for messages.

    Raises:
        ArgumentError: `which` is none of these, or no file answers to it.
    """
    check_which(which)
    newest = newest_first(one for one in entries if one.ours)
    if which == "latest":
        return newest
    if which == "best":
        chosen = best_first(newest)
        if not chosen and newest:
            raise ArgumentError(
                "None of the files in the directory has a value of a monitored metric, so none is "
                "best.",
                received=f"which='best', path={path!r}",
                remedy='Pass `which="latest"`, or an epoch: ' + _epochs(newest) + ".",
            )
        return chosen
    assert isinstance(which, int)
    chosen = [one for one in newest if one.progress.ended_epoch == which]
    if not chosen:
        raise ArgumentError(
            f"No file in the directory was written at the end of epoch {which} (zero-based).",
            received=f"which={which!r}, path={path!r}",
            remedy=f"Epochs that are there: {_epochs(newest)}.",
        )
    # The run of the newest file first; in it, before one that was saved inside the epoch after it.
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
    """What was chosen.

    Attributes:
        result: What the attempt returned; `None` where there is nothing to go on from.
        saved: The checkpoints that are whole as far as was seen, oldest first.
        passed: Damaged checkpoints that were passed over, as `(path, why)`.
        not_finite: Those with NaN in their weights that were tried first, likewise. If the chosen
            one is the last of them, there was no other.
        path: The chosen checkpoint, or `None`.
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
    """Try the checkpoints of a directory until one is complete, the newest first.

    Those with NaN in their weights come after all others of the same run.

    Args:
        directory: The directory; one that is not there has none.
        attempt: Called with a path, and whether NaN is accepted; raises `DamagedArtefactError`
            where the file is damaged, and `NotFinite` where it has NaN and that is not accepted.
        among: Returns those that come into question, oldest first.
    """
    saved, damaged = checkpoints_in(directory)
    choice: Choice[T] = Choice(None, saved, damaged)
    newest = list(reversed(among(saved)))
    run_id = newest[0].progress.run_id if newest else ""
    ours = [item for item in newest if item.progress.run_id == run_id]
    # Another run's checkpoint is no replacement for one with NaN.
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
    """Return whether all batches of the epoch under way were done, as far as is known.

    Saves of former versions do not record it; there, the data that they record, or the number of
    steps of the epochs before, may show it.

    Args:
        progress: Where training was.
        fit: What a `fit()` has saved of itself; empty where a loop saved.
        loop: What a loop has saved of itself, likewise.
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

"""Which checkpoint of a directory a run goes on from: directory -> *choice* -> resume.

The newest that is complete, and whose weights are numbers: a run that resumes from NaN stays there.
Checkpoints with NaN are passed over, and nothing else happens to them; where the run has no other,
the newest of them is chosen after all. `Checkpoints` asks, and tries each by restoring it; the
command line asks too, and tries each by reading every byte, so that what it foretells is what
happens. Hence no framework here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from keras_ckpt_tools.errors import DamagedArtefactError
from keras_ckpt_tools.formats.checkpoint_dir import list_checkpoints
from keras_ckpt_tools.formats.handles import NOT_FOLLOWED
from keras_ckpt_tools.formats.tf_run import DATA, INDEX, RECORD
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.storage.retention import Saved

__all__ = ["Choice", "NotFinite", "choose_newest", "is_over", "other_major"]

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
    saved: list[Saved]
    passed: list[tuple[str, str]]
    not_finite: list[tuple[str, str]] = field(default_factory=list)
    path: str | None = None


def choose_newest(
    directory: str,
    attempt: Callable[[str, bool], T],
    among: Callable[[list[Saved]], Sequence[Saved]] = lambda saved: saved,
) -> Choice[T]:
    """Try the checkpoints of a directory until one is complete, the newest first.

    Those with NaN in their weights come after all others of the same run.

    Args:
        directory: The directory; one that is not there has none.
        attempt: Called with a path, and whether NaN is accepted; raises `DamagedArtefactError`
            where the file is damaged, and `NotFinite` where it has NaN and that is not accepted.
        among: Returns those that come into question, oldest first.
    """
    saved, damaged = list_checkpoints(directory)
    choice: Choice[T] = Choice(None, saved, [(path, _why(path)) for path in damaged])
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


def _why(path: str) -> str:
    endings = ("", RECORD, INDEX, DATA)
    linked = any(os.path.islink(f"{path}{ending}") for ending in endings)
    return f"it is {NOT_FOLLOWED}" if linked else "its record is damaged"


def other_major(saved: str, installed: str) -> bool:
    """Return whether two versions of Keras have different major numbers.

    >>> other_major("3.10.0", "3.15.1"), other_major("2.15.0", "3.15.1"), other_major("", "3.0")
    (False, True, False)
    """
    return saved.partition(".")[0] not in ("", installed.partition(".")[0])

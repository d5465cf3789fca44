"""Choose among the files of a directory: artefact -> *which one* -> load.

A training run leaves a directory of models or checkpoints. Which of them is best or newest is what
their own records say, not their names or times: names are patterns of the user's, and a copy gets a
new time. A file that cannot be read is passed over, and named, so that one damaged file does not
cost the run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from keras_ckpt_tools.errors import ArgumentError, CkptError
from keras_ckpt_tools.formats.handles import NOT_FOLLOWED, is_alias
from keras_ckpt_tools.formats.kinds import Kind, tell
from keras_ckpt_tools.formats.shard_index import shards_named_by
from keras_ckpt_tools.formats.source import READABLE, open_source
from keras_ckpt_tools.metadata import TrainingProgress

__all__ = ["Found", "best_first", "choose", "latest_first", "look_into"]

MODELS = frozenset({Kind.KERAS, Kind.H5_MODEL})


_SUFFIXES = (".keras", ".h5", ".hdf5")


@dataclass(frozen=True)
class Found:
    """One file of a directory.

    Attributes:
        path: Where it is.
        kind: What it is.
        progress: Where training was when it was written.
        ours: Whether it has a record, and so a progress that means something.
        damage: What is wrong with it, or `None`.
        versions: Versions that wrote it.
    """

    path: str
    kind: Kind
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    ours: bool = False
    damage: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without its directory."""
        return os.path.basename(self.path)


def look_into(directory: str, kinds: Iterable[Kind] = READABLE) -> list[Found]:
    """Return the files of these kinds in a directory, by name; subdirectories are left alone.

    Links are not followed. One that is called like a model is among them, as damaged, unless it is
    a second name of a file beside it.
    """
    wanted = frozenset(kinds)
    found = []
    names = os.listdir(directory)
    # One shard is no file of weights; its index is.
    for name in sorted(set(names) - shards_named_by(directory, names)):
        path = os.path.join(directory, name)
        if os.path.islink(path):
            if name.endswith(_SUFFIXES) and not name.startswith(".") and not is_alias(path):
                found.append(Found(path, Kind.UNKNOWN, damage=f"it is {NOT_FOLLOWED}"))
        elif os.path.isfile(path) and not name.startswith("."):
            one = _look_at(path)
            if one.kind in wanted:
                found.append(one)
    return found


def _look_at(path: str) -> Found:
    try:
        artefact = tell(path)
        if artefact.refusal is not None:
            return Found(path, artefact.kind, damage=artefact.refusal.what.rstrip("."))
        if artefact.damage:
            return Found(path, artefact.kind, damage=artefact.damage)
        if artefact.kind not in READABLE:
            return Found(path, artefact.kind)
        with open_source(path, artefact) as source:
            record = source.record
            if record is None:
                return Found(path, artefact.kind)
            return Found(path, artefact.kind, record.progress, True, versions=record.versions)
    except CkptError as error:
        kind = artefact.kind if "artefact" in locals() else Kind.UNKNOWN
        return Found(path, kind, damage=error.what.rstrip("."))


def latest_first(found: Iterable[Found]) -> list[Found]:
    """Return the undamaged files of ours, furthest training first."""
    return sorted(
        (one for one in found if one.ours and not one.damage),
        key=lambda one: (
            one.progress.epochs_completed,
            one.progress.batches_completed,
            one.progress.step,
            one.progress.saved_at,
        ),
        reverse=True,
    )


def best_first(found: Iterable[Found]) -> list[Found]:
    """Return the undamaged files of ours that have a value of what was monitored, best first."""
    newest = latest_first(found)
    monitored = next((one.progress.best for one in newest if one.progress.best), None)
    if monitored is None:
        return []
    scored = [(_score(one.progress, monitored.monitor), one) for one in newest]
    # Ties go to the earlier epoch, as `save_best_only` keeps the first of equals.
    sign = -1.0 if monitored.mode == "max" else 1.0
    return [
        one
        for score, one in sorted(
            ((score, one) for score, one in scored if score is not None),
            key=lambda pair: (sign * pair[0], pair[1].progress.epochs_completed),
        )
    ]


def _score(progress: TrainingProgress, monitor: str) -> float | None:
    value = progress.logs.get(monitor)
    best = progress.best
    if value is None and best is not None and best.epoch == progress.epochs_completed - 1:
        value = best.value
    return value if value is not None and math.isfinite(value) else None


def choose(found: Sequence[Found], which: str | int, path: str) -> list[Found]:
    """Return the files to try, the first choice first.

    Args:
        found: What `look_into` returned.
        which: `"best"`, `"latest"` or a zero-based epoch.
        path: The directory, for messages.

    Raises:
        ArgumentError: `which` is none of these, or no file answers to it.
    """
    if which == "latest":
        return latest_first(found)
    if which == "best":
        chosen = best_first(found)
        if not chosen and latest_first(found):
            raise ArgumentError(
                "None of the files in the directory has a value of a monitored metric, so none is "
                "best.",
                received=f"which='best', path={path!r}",
                remedy='Pass `which="latest"`, or an epoch: ' + _epochs(found) + ".",
            )
        return chosen
    if isinstance(which, bool) or not isinstance(which, int) or which < 0:
        raise ArgumentError(
            "`which` is not one of its values.",
            received=f"which={which!r}",
            remedy='Pass "best", "latest" or a zero-based epoch.',
        )
    chosen = [one for one in latest_first(found) if one.progress.epochs_completed == which + 1]
    if not chosen:
        raise ArgumentError(
            f"No file in the directory was written at the end of epoch {which} (zero-based).",
            received=f"which={which!r}, path={path!r}",
            remedy=f"Epochs that are there: {_epochs(found)}.",
        )
    return chosen


def _epochs(found: Iterable[Found]) -> str:
    epochs = {one.progress.epochs_completed - 1 for one in latest_first(found)}
    return ", ".join(str(epoch) for epoch in sorted(epochs) if epoch >= 0) or "none"

"""Collect what a plot or page shows of a run: from a path, a manager, a model or a history.

The facts are the metrics of each epoch, the saves, which of them still exist, which is the best,
and where the run was resumed. A directory is read once; unknown facts are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_ckpt_tools.errors import ArgumentError, ArtefactError
from keras_ckpt_tools.metadata import TrainingProgress, epoch_number
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.runs.listing import Run, read_run
from keras_ckpt_tools.runs.save_history import Place, place_of, places

# More saves than this are not looked at one by one; a file may claim any number.
_MOST_SAVES = 100_000
_LARGEST = 2**53


@dataclass(frozen=True)
class Save:
    """One save of a run.

    Attributes:
        place: Where the run was.
        state: `"kept"`, `"deleted"`, or `"saved"` where it is not known whether it is still there.
        file: The file, where it is there.
    """

    place: Place
    state: Literal["kept", "deleted", "saved"]
    file: CheckpointEntry | None = None


@dataclass(frozen=True)
class Story:
    """What is known of one run.

    Attributes:
        name: What to call it.
        progress: Where it is, with its whole history.
        saves: Its saves, in order.
        restarts: Where it was gone on with, in order.
        run: The directory it was read from, or `None`.
    """

    name: str
    progress: TrainingProgress
    saves: tuple[Save, ...] = ()
    restarts: tuple[Place, ...] = ()
    run: Run | None = field(default=None, repr=False)


def stories_of(run_or_runs: Any) -> list[Story]:
    """Return the story of each run that is meant.

    Args:
        run_or_runs: One source, a list of them, or a mapping from names to sources.

    Raises:
        ArgumentError: something is no source, or there is none.
        ArtefactNotFoundError, ArtefactError: a path is not there, or has no run in it.
    """
    if isinstance(run_or_runs, Mapping):
        stories = [_story(source, str(name)) for name, source in run_or_runs.items()]
    elif isinstance(run_or_runs, Iterable) and not isinstance(run_or_runs, (str, bytes)):
        sources = list(run_or_runs)
        names = _names(sources)
        stories = [_story(one, name) for one, name in zip(sources, names, strict=True)]
    else:
        stories = [_story(run_or_runs, _names([run_or_runs])[0])]
    if not stories:
        raise _no_source(run_or_runs)
    return stories


def _names(sources: Sequence[Any]) -> list[str]:
    """Return short names that tell the sources apart."""
    paths = [_path_of(source) for source in sources]
    shown = []
    for number, path in enumerate(paths, 1):
        if path is None:
            shown.append("" if len(paths) == 1 else f"run {number}")
            continue
        parts = os.path.abspath(path).split(os.sep)
        others = [os.path.abspath(p).split(os.sep) for p in paths if p and p is not path]
        length = next(
            (n for n in range(1, len(parts)) if all(parts[-n:] != o[-n:] for o in others)), 1
        )
        shown.append("/".join(parts[-length:]))
    twice = {name for name in shown if shown.count(name) > 1}
    return [f"{name} ({n})" if name in twice else name for n, name in enumerate(shown, 1)]


def _path_of(source: Any) -> str | None:
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    directory = getattr(source, "directory", None)
    return directory if isinstance(directory, str) else None


def _story(source: Any, name: str) -> Story:
    if isinstance(source, TrainingProgress):
        return _of_progress(source, name)
    if isinstance(source, (str, os.PathLike)):
        return story_of_directory(source, name)
    progress = getattr(source, "progress", None)
    if isinstance(progress, TrainingProgress):
        directory = getattr(source, "directory", None)
        if isinstance(directory, str) and os.path.isdir(directory):
            return _of_run(read_run(directory), name, progress)
        return _of_progress(progress, name)
    if hasattr(source, "history") and hasattr(source, "epoch") and hasattr(source, "params"):
        return _of_progress(_progress_of_history(source), name)
    if hasattr(source, "variables") and hasattr(source, "layers"):
        from keras_ckpt_tools.training.progress import training_progress

        return _of_progress(training_progress(source), name)
    raise _no_source(source)


def _no_source(source: Any) -> ArgumentError:
    return ArgumentError(
        "A run is drawn from a path, a `CheckpointManager`, a Keras model, a Keras `History`, or a "
        "`TrainingProgress`; several of them are a list, or a dict from names to them.",
        received=f"run_or_runs={source!r:.200}",
        remedy="Pass one of these: `kct.plot('runs/digits')`, or what `fit()` has returned.",
    )


def _progress_of_history(history: Any) -> TrainingProgress:
    """Return what a Keras `History` says."""
    epochs = [int(epoch) for epoch in history.epoch]
    series = {
        str(name): tuple(float(value) for value in values)
        for name, values in history.history.items()
    }
    known = {name: _epochs_of(len(values), epochs) for name, values in series.items() if values}
    done = epochs[-1] + 1 if epochs else 0
    return TrainingProgress(
        epochs_completed=done,
        step=int((history.params or {}).get("steps") or 0) * done,
        history={name: series[name][-len(known[name]) :] for name in known},
        history_epochs=known,
    )


def _epochs_of(values: int, epochs: Sequence[int]) -> tuple[int, ...]:
    """Return the epochs that a metric has values of; Keras only says how many there are.

    >>> _epochs_of(2, [0, 1, 2, 3, 4]), _epochs_of(1, [0, 1, 2])
    ((1, 3), (2,))
    """
    every = max(len(epochs) // values, 1)
    # `validation_freq`
    spaced = tuple(epoch for epoch in epochs if epoch_number(epoch) % every == 0)
    return spaced if len(spaced) == values else tuple(epochs[-values:])


def story_of_directory(path: str | os.PathLike[str], name: str) -> Story:
    """Return the story of what a path leads to: the directory of a run, or one file of it.

    Raises:
        ArtefactNotFoundError: nothing is there.
        ArtefactError: it has no checkpoint of this package.
    """
    run = read_run(path)
    if run.newest is None:
        damaged = [one.name for one in run.checkpoints if one.note and not one.ours]
        noted = f" Not counted: {', '.join(damaged[:5])}." if damaged else ""
        raise ArtefactError(
            f"There is no checkpoint here that says where training was.{noted}",
            received=f"path={os.fspath(path)!r}",
            remedy="Pass the directory that a `CheckpointManager`, `BackupAndRestore` or "
            "`ModelCheckpoint` of this package has saved to, or what `fit()` has returned.",
            path=os.fspath(path),
        )
    return _of_run(run, name)


def _of_progress(progress: TrainingProgress, name: str) -> Story:
    saves = tuple(Save(place, "saved") for place in _trail(progress))
    return Story(name, progress, saves, _restarts(progress))


def _of_run(run: Run, name: str, live: TrainingProgress | None = None) -> Story:
    """Return the story of a directory; `live` is further than its newest file."""
    mine = [one for one in run.whole if one.run_id == run.run_id]
    there = {place_of(one.progress): one for one in mine}
    # Of one file that was asked for, nothing says whether its neighbours are still there.
    other: Literal["deleted", "saved"] = "deleted" if os.path.isdir(run.path) else "saved"
    saves = [
        Save(place, "kept" if place in there else other, there.get(place))
        for place in sorted({*_trail(run.progress), *filter(believable, there)})
    ]
    progress = run.progress if live is None else live
    return Story(name, progress, tuple(saves), _restarts(progress), run)


def _trail(progress: TrainingProgress) -> list[Place]:
    return [place for place in places(progress.saves, _MOST_SAVES) if believable(place)]


def _restarts(progress: TrainingProgress) -> tuple[Place, ...]:
    found = (Place(*one[:3]) for one in progress.restarts[-_MOST_SAVES:])
    return tuple(place for place in found if believable(place))


def believable(place: Place) -> bool:
    """Return whether the numbers of a place can be those of a run, and not only a file's claim."""
    return all(isinstance(number, int) and 0 <= number <= _LARGEST for number in place)

"""Resume from a backup of stock Keras or TensorFlow.

It is restored like a checkpoint of this package: everything is compared, read and checked before
the first variable changes, and the model and its optimizer are restored together or not at all.
State that the backup does not contain starts over, and a warning lists it. Its files are never
changed or deleted.

Checkpoints of a `tf.train.CheckpointManager` contain objects by the names in the program, which
must be the tracked names. They do not contain the number of completed epochs, so a loop by steps
resumes at its step, and a loop by epochs starts with the first epoch.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_ckpt_tools.errors import DamagedArtefactError, RestoreError
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.tensor_source import TensorSource, read_from
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.adapters import Adapter, build_compiled_optimizer
from keras_ckpt_tools.live.target import Target
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP, RANDOM_GROUP, misfit
from keras_ckpt_tools.matching.report import Mismatch, RestoreReport
from keras_ckpt_tools.metadata import (
    Record,
    TensorInfo,
    TrackedObject,
    TrainingProgress,
    epoch_number,
)
from keras_ckpt_tools.runs.stock_backups import (
    ITERATIONS,
    MANAGER,
    SAVE_COUNTER,
    Place,
    StockBackup,
    progress_at,
    stock_backups,
)
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.restoring import restore_tracked

_ANEW = (
    "Such a backup does not contain metrics, `History`, the state of callbacks and random "
    "generators: these start over."
)
_LEFT = (
    "The backup is not deleted, even when the run has ended: delete it then, or the next run in "
    "this directory resumes from it again."
)
_START_OVER = "to start over, pass `resume='never'`"


def pick_up(
    directory: str, adapters: Sequence[Adapter], steps: int | None = None
) -> tuple[str, TrainingProgress] | None:
    """Restore a model and its optimizer from a backup of stock Keras, or nothing.

    Args:
        directory: Directory that may contain the backup.
        adapters: The tracked objects: one model, and its optimizer.
        steps: Batches of an epoch, if known.

    Returns:
        Path of the restored file, and the position to resume at: always the first batch of an
        epoch, because the metrics of the current epoch are not in the backup. `None` if there is no
        backup.

    Raises:
        RestoreError: it does not match the tracked objects; nothing was changed.
        NotBuiltError: the model has no variables yet.
        DamagedArtefactError: there are backups, but none can be resumed from.
    """
    passed: list[str] = []
    kind = "stock Keras or TensorFlow"
    try:
        for backup in stock_backups(directory):
            try:
                kind = backup.kind
                if backup.is_managers:
                    return backup.path, pick_up_from(backup, adapters, steps, passed)
                progress, notes = _restore(backup, adapters, steps)
            except DamagedArtefactError as error:
                passed.append(f"{os.path.basename(backup.path)}: {error.what}")
                continue
            _tell(backup, progress, [*notes, *(f"Skipped {one}" for one in passed)])
            return backup.path, progress
    except DamagedArtefactError as error:
        passed.append(error.what)
    if not passed:
        return None
    raise DamagedArtefactError(
        f"There is a backup of {kind}, but it cannot be resumed from:\n  "
        + "\n  ".join(passed)
        + "\n",
        received=f"directory={directory!r}",
        remedy=f"Restore it from a copy; {_START_OVER}.",
        path=directory,
        how="; ".join(passed),
    )


def pick_up_from(
    backup: StockBackup,
    adapters: Sequence[Adapter],
    steps: int | None = None,
    passed: Sequence[str] = (),
) -> TrainingProgress:
    """Restore the tracked objects from a checkpoint of a `tf.train.CheckpointManager`, or none.

    Args:
        backup: The checkpoint.
        adapters: The tracked objects. Those without variables start over.
        steps: Batches of an epoch, if known.
        passed: Skipped checkpoints, and why.

    Returns:
        The position at which training resumes.

    Raises:
        RestoreError: it does not match the tracked objects; nothing was changed.
        NotBuiltError: an object has no variables yet and cannot be built.
        DamagedArtefactError: it cannot be read.
    """
    from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint
    from keras_ckpt_tools.formats.tensorflow.object_graph import Node
    from keras_ckpt_tools.live.foreign.tf_target import match_target

    checkpoint = TfCheckpoint(backup.path)
    held = checkpoint.root.children
    taken = {one.name: one for one in adapters if one.kind != "state"}
    for one in taken.values():
        if one.kind == "model":
            state.build_like(one.target, None, one.name)
    if "optimizer" in taken and "optimizer" not in held:
        # The optimizer of a compiled model may be saved inside the model.
        model = taken.get("model")
        inside = model is not None and "optimizer" in held.get(model.name, Node()).children
        if inside and model is not None and model.target.optimizer is taken["optimizer"].target:
            del taken["optimizer"]
    if lacking := [name for name in taken if name not in held]:
        there = [name for name in held if name != SAVE_COUNTER]
        raise RestoreError(
            f"The checkpoint of {MANAGER} contains other objects than are tracked; nothing was "
            f"changed. Tracked, but not in it: {', '.join(lacking)}. In it: {', '.join(there)}.",
            received=f"path={backup.path!r}",
            remedy="To resume from it, track the same names as `tf.train.Checkpoint`, and add new "
            f"objects after it has been restored and saved; {_START_OVER}.",
            path=backup.path,
            report=RestoreReport(backup.path, missing=tuple(lacking)),
        )
    target = Target({name: one.target for name, one in taken.items()})
    target.fill(match_target(checkpoint, target))
    step = checkpoint.step()
    for one in adapters:
        if one.kind == "optimizer":
            step = int(state.to_numpy(one.target.iterations))
            break
    notes = [f"Skipped {one}." for one in passed]
    anew = [one.name for one in adapters if one.kind == "state"]
    left = [name for name in held if name not in taken and name not in (SAVE_COUNTER, *anew)]
    if anew:
        notes.append(f"The objects tracked as {', '.join(anew)} start over.")
    if left:
        notes.append(f"Not restored, because it is not tracked: {', '.join(left)}.")
    epoch = step // steps if steps else 0
    where = f"`steps()` at step {step}, and `epochs()` at epoch 1: it has no number of epochs"
    if steps:
        where = f"epoch {epoch_number(epoch)}, by its {step:,} steps at {steps:,} an epoch"
    warn(
        " ".join(
            [
                f"Resumed from {backup.path!r}, a checkpoint of {MANAGER}, with {where}.",
                *notes,
                "Its files are not changed; after the next save, the checkpoints of this package "
                "are used.",
            ]
        ),
        UserWarning,
        stacklevel=5,
    )
    return progress_at(Place(epoch, 0), step, backup.path)


def _tell(backup: StockBackup, progress: TrainingProgress, notes: list[str]) -> None:
    text = (
        f"Resuming with epoch {epoch_number(progress.epochs_completed)} from a backup of "
        f"{backup.kind}, {backup.path!r}."
    )
    warn(" ".join([text, *notes, _ANEW, _LEFT]), UserWarning, stacklevel=5)


def _restore(
    backup: StockBackup, adapters: Sequence[Adapter], steps: int | None
) -> tuple[TrainingProgress, list[str]]:
    model, optimizer = _model_and_optimizer(backup, adapters)
    state.build_like(model.target, None, model.name)
    build_compiled_optimizer(model.target)
    if optimizer is not None:
        state.build_optimizer(optimizer.target, model.target.trainable_variables)
    with _opened(backup, model, optimizer) as source:
        count = _count(source)
        place, notes = _located(backup, count, steps)
        record = Record(
            kind="checkpoint", tracked={one.name: TrackedObject(one.kind) for one in adapters}
        )
        try:
            restore_tracked(adapters, _Grouped(source, model, optimizer), record)
        except RestoreError as error:
            places = getattr(source, "places", {})
            if not places or not error.report.shape_mismatch:
                raise
            raise misfit(_with_places(error.report, places), remedy=error.remedy) from error
    if place.batches:
        notes.append(
            f"Epoch {epoch_number(place.epoch)} was interrupted after {place.batches} batches and "
            "starts over from its first batch, because the backup does not contain its metrics."
        )
    return progress_at(Place(place.epoch, 0), count, backup.path), notes


def _with_places(report: RestoreReport, places: Mapping[str, str]) -> RestoreReport:
    """Add the names in the checkpoint to the mismatches."""

    def called(one: Mismatch) -> str:
        group, _, path = one.path.partition("/")
        optimizers = f"{OPTIMIZER_GROUP}{path}"
        return places.get(path) or places.get(optimizers) or group

    told = [
        dataclasses.replace(m, in_file=f"{called(m)} {m.in_file}") for m in report.shape_mismatch
    ]
    return dataclasses.replace(report, shape_mismatch=tuple(told))


def _model_and_optimizer(
    backup: StockBackup, adapters: Sequence[Adapter]
) -> tuple[Adapter, Adapter | None]:
    models = [one for one in adapters if one.kind == "model"]
    optimizers = [one for one in adapters if one.kind == "optimizer"]
    others = [one.name for one in adapters if one not in (*models, *optimizers)]
    if len(models) == 1 and len(optimizers) <= 1 and not others:
        return models[0], optimizers[0] if optimizers else None
    tracked = ", ".join(one.name for one in adapters)
    raise RestoreError(
        f"There is a backup of {backup.kind}, which contains a model and its optimizer, but other "
        "objects are tracked. Nothing was changed.",
        received=f"path={backup.path!r}, tracked: {tracked}",
        remedy="Track only the model and its optimizer to resume from it, then save with the "
        f"others; {_START_OVER}.",
        path=backup.path,
        report=RestoreReport(backup.path, missing=tuple(others)),
    )


@contextmanager
def _opened(
    backup: StockBackup, model: Adapter, optimizer: Adapter | None
) -> Iterator[TensorSource]:
    """Open a backup under the paths of a Keras weights file."""
    if backup.is_tensorflow:
        from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint
        from keras_ckpt_tools.formats.tensorflow.object_graph import Node
        from keras_ckpt_tools.live.foreign.tf_objects import match_model

        checkpoint = TfCheckpoint(backup.path)
        node = checkpoint.root.children.get("model", Node())
        target = optimizer.target if optimizer else getattr(model.target, "optimizer", None)
        yield match_model(checkpoint, node, model.target, target)
        return
    if not os.path.isfile(backup.path):
        raise _unusable(backup, "The weights are missing.")
    with open_source(backup.path) as source:
        yield source


def _unusable(backup: StockBackup, what: str) -> DamagedArtefactError:
    return DamagedArtefactError(
        what,
        received=f"path={backup.path!r}",
        remedy="Restore the file from a copy.",
        path=backup.path,
        how=what.rstrip("."),
    )


def _count(source: TensorSource) -> int | None:
    if ITERATIONS not in source.tensors:
        return None
    return int(source.read_all([ITERATIONS])[ITERATIONS])


def _located(backup: StockBackup, count: int | None, steps: int | None) -> tuple[Place, list[str]]:
    """Return the position of training, and a remark about it."""
    told = backup.place
    if told is None and (count is None or not steps):
        raise _unusable(backup, f"Its training position is lost: {backup.lost}")
    told = told or Place(0, 0, "nothing", "all")
    place = told.located(count, steps)
    if not told.doubt or place.epoch == told.epoch or count is None or not steps:
        return place, []
    lost = f" {backup.lost}" if backup.lost else ""
    return place, [
        f"It contains {told.told}, as after a second interruption or a kill during a backup."
        f"{lost} Its optimizer has made {count:,} updates at {steps:,} an epoch, which is used. "
        "If it had been trained before this run, load the weights with `kct.load_weights`, and "
        "pass `resume='never'` and `fit(initial_epoch=...)` instead."
    ]


class _Grouped:
    """A backup under the names of the tracked objects; missing state keeps its current values."""

    def __init__(self, source: TensorSource, model: Adapter, optimizer: Adapter | None):
        self.path = source.path
        self._source = source
        self._model = model.name
        # A compiled model with another name than `model` contains its optimizer.
        self._optimizer = optimizer.name if optimizer else f"{model.name}/{OPTIMIZER_GROUP[:-1]}"
        self._places = {self._named(path): path for path in source.tensors}
        captured = model.captured()
        infos = captured.infos()
        self._present = {
            f"{model.name}/{path}": value
            for path, value in captured.values.items()
            if path.startswith(RANDOM_GROUP) and path not in source.tensors
        }
        self.tensors: Mapping[str, TensorInfo] = {
            **{name: source.tensors[path] for name, path in self._places.items()},
            **{name: infos[name.partition("/")[2]] for name in self._present},
        }

    def _named(self, path: str) -> str:
        if path.startswith(OPTIMIZER_GROUP):
            return f"{self._optimizer}/{path.removeprefix(OPTIMIZER_GROUP)}"
        return f"{self._model}/{path}"

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        wanted = list(paths)
        present = {name: state.to_numpy(v) for name, v in self._present.items() if name in wanted}
        places = {name: self._places[name] for name in wanted if name not in present}
        return present | read_from(self._source, places)

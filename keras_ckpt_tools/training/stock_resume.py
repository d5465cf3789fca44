"""Go on from what stock Keras or TensorFlow saved: directory -> compare, restore -> *resume*.

It is restored as a checkpoint of ours is: everything compared, read and checked before the first
variable changes, the model and its optimizer or nothing. What such a backup does not hold begins
anew, and a warning says what that is. None of its files is ever changed or removed.

The checkpoints of a `tf.train.CheckpointManager` hold objects by the names that the program gave
them, which are the names that they are tracked by now. They do not contain how many epochs were
done, so a loop by steps resumes at its step, and a loop by epochs begins with the first.
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
    "Metrics, `History`, the state of callbacks and random generators are not in such a backup and "
    "begin anew."
)
_LEFT = (
    "The backup is left as it is, also when the run has ended: remove it then, or the next run in "
    "this directory goes on from it again."
)
_START_OVER = "to start over, pass `resume='never'`"


def pick_up(
    directory: str, adapters: Sequence[Adapter], steps: int | None = None
) -> tuple[str, TrainingProgress] | None:
    """Restore a model and its optimizer from a backup of Keras' own, or nothing.

    Args:
        directory: Where the backup may be.
        adapters: What is tracked: one model, and its optimizer.
        steps: Batches of an epoch, where known.

    Returns:
        Path of what was restored, and where training goes on: always at the first batch of an
        epoch, because the metrics of an epoch under way are not in the backup. `None` where there
        is no backup.

    Raises:
        RestoreError: it does not fit what is tracked; nothing was changed.
        NotBuiltError: the model has no variables yet.
        DamagedArtefactError: there is a backup, and none that could be gone on from.
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
            _tell(backup, progress, [*notes, *(f"Passed over {one}" for one in passed)])
            return backup.path, progress
    except DamagedArtefactError as error:
        passed.append(error.what)
    if not passed:
        return None
    raise DamagedArtefactError(
        f"There is a backup of {kind}, and it cannot be gone on from:\n  "
        + "\n  ".join(passed)
        + "\n",
        received=f"directory={directory!r}",
        remedy=f"Put a good copy there; {_START_OVER}.",
        path=directory,
        how="; ".join(passed),
    )


def pick_up_from(
    backup: StockBackup,
    adapters: Sequence[Adapter],
    steps: int | None = None,
    passed: Sequence[str] = (),
) -> TrainingProgress:
    """Restore all that is tracked from a checkpoint of a `tf.train.CheckpointManager`, or nothing.

    Args:
        backup: The checkpoint.
        adapters: What is tracked. What is made of no variables begins anew.
        steps: Batches of an epoch, where known.
        passed: What was passed over, and why.

    Returns:
        Where training goes on.

    Raises:
        RestoreError: it does not fit what is tracked; nothing was changed.
        NotBuiltError: something has no variables yet, and what it needs for that is not known.
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
        # That of a compiled model may have been saved in it.
        model = taken.get("model")
        inside = model is not None and "optimizer" in held.get(model.name, Node()).children
        if inside and model is not None and model.target.optimizer is taken["optimizer"].target:
            del taken["optimizer"]
    if lacking := [name for name in taken if name not in held]:
        there = [name for name in held if name != SAVE_COUNTER]
        raise RestoreError(
            f"The checkpoint of {MANAGER} holds other objects than are tracked; nothing was "
            f"changed. Tracked, but not in it: {', '.join(lacking)}. In it: {', '.join(there)}.",
            received=f"path={backup.path!r}",
            remedy="Track them by the names that `tf.train.Checkpoint` was given to go on from it, "
            f"and what is new once it has been restored and saved; {_START_OVER}.",
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
    notes = [f"Passed over {one}." for one in passed]
    anew = [one.name for one in adapters if one.kind == "state"]
    left = [name for name in held if name not in taken and name not in (SAVE_COUNTER, *anew)]
    if anew:
        notes.append(f"What is tracked as {', '.join(anew)} begins anew.")
    if left:
        notes.append(f"Not restored, because it is not tracked: {', '.join(left)}.")
    epoch = step // steps if steps else 0
    where = f"`steps()` with step {step}, and `epochs()` with epoch 1: it has no count of epochs"
    if steps:
        where = f"epoch {epoch_number(epoch)}, by its {step:,} steps at {steps:,} an epoch"
    warn(
        " ".join(
            [
                f"Resumed from {backup.path!r}, a checkpoint of {MANAGER}. Goes on with {where}.",
                *notes,
                "Its files are left as they are; from the next save on, the checkpoints of this "
                "package count.",
            ]
        ),
        UserWarning,
        stacklevel=5,
    )
    return progress_at(Place(epoch, 0), step, backup.path)


def _tell(backup: StockBackup, progress: TrainingProgress, notes: list[str]) -> None:
    text = (
        f"Goes on with epoch {epoch_number(progress.epochs_completed)} from a backup of "
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
            "begins again from its first one, because the backup does not have its metrics."
        )
    return progress_at(Place(place.epoch, 0), count, backup.path), notes


def _with_places(report: RestoreReport, places: Mapping[str, str]) -> RestoreReport:
    """Say of what is of another shape what it is called in the checkpoint."""

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
        f"There is a backup of {backup.kind}, which holds one model and its optimizer; other "
        "objects are tracked as well, or none of these. Nothing was changed.",
        received=f"path={backup.path!r}, tracked: {tracked}",
        remedy="Track the model and its optimizer alone to go on from it, then save with the "
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
        raise _unusable(backup, "The weights are not there.")
    with open_source(backup.path) as source:
        yield source


def _unusable(backup: StockBackup, what: str) -> DamagedArtefactError:
    return DamagedArtefactError(
        what,
        received=f"path={backup.path!r}",
        remedy="Restore it from a copy.",
        path=backup.path,
        how=what.rstrip("."),
    )


def _count(source: TensorSource) -> int | None:
    if ITERATIONS not in source.tensors:
        return None
    return int(source.read_all([ITERATIONS])[ITERATIONS])


def _located(backup: StockBackup, count: int | None, steps: int | None) -> tuple[Place, list[str]]:
    """Return where training was, and what has to be said about that."""
    told = backup.place
    if told is None and (count is None or not steps):
        raise _unusable(backup, f"Where training was is lost: {backup.lost}")
    told = told or Place(0, 0, "nothing", "all")
    place = told.located(count, steps)
    if not told.doubt or place.epoch == told.epoch or count is None or not steps:
        return place, []
    lost = f" {backup.lost}" if backup.lost else ""
    return place, [
        f"It says {told.told}, as after a second interruption or a kill in the middle of a backup."
        f"{lost} Its optimizer has made {count:,} updates at {steps:,} an epoch, and that counts. "
        "If it had been trained before this run, load the weights with `kct.load_weights`, and "
        "pass `resume='never'` and `fit(initial_epoch=...)` instead."
    ]


class _Grouped:
    """A backup under the names of what is tracked; what it never holds is taken as it is."""

    def __init__(self, source: TensorSource, model: Adapter, optimizer: Adapter | None):
        self.path = source.path
        self._source = source
        self._model = model.name
        # A compiled model of another name than `model` has its optimizer in it.
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

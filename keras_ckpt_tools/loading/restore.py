"""Load weights from a file into an existing model: `kct.load_weights`.

With `strict=True`, all weights are loaded or none. A run's checkpoint may hold several objects: the
model is found by its name. For the directory of a run, the newest complete checkpoint is loaded.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from keras_ckpt_tools.errors import ArgumentError, DamagedArtefactError, RestoreError
from keras_ckpt_tools.formats.common.file_objects import PathOrFile, on_disk
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.hdf5.shard_index import index_beside
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.orbax import OPTIMIZER
from keras_ckpt_tools.formats.tensor_source import ModelSource, TensorSource
from keras_ckpt_tools.formats.tensorflow.checkpoint import TfSource
from keras_ckpt_tools.inspection.orbax_steps import steps_at
from keras_ckpt_tools.inspection.report import warn_of_passed_over
from keras_ckpt_tools.inspection.wrong_kind import only_one_model, require
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.attached_progress import attach_progress
from keras_ckpt_tools.live.foreign.tf_target import match_target
from keras_ckpt_tools.live.keras_walk import optimizers_of
from keras_ckpt_tools.live.migration import begun_anew, with_current_weights
from keras_ckpt_tools.live.restore import fill
from keras_ckpt_tools.live.target import Target, is_several
from keras_ckpt_tools.loading.build import build_optimizers_as_saved, with_fresh_optimizer
from keras_ckpt_tools.loading.run_checkpoint import (
    LEGACY,
    build_config,
    build_parts,
    open_tracked,
    weights_in,
)
from keras_ckpt_tools.loading.variable_budget import counted_variables
from keras_ckpt_tools.matching import compare as comparison
from keras_ckpt_tools.matching.report import RestoreReport
from keras_ckpt_tools.matching.selection import Rename, Selection
from keras_ckpt_tools.runs import choose
from keras_ckpt_tools.showing.bars import bar_for_file
from keras_ckpt_tools.showing.messages import warn

# Compared with the present classes.
_MATCHED = (*LEGACY, Kind.ORBAX)
_OF_RUN = (Kind.CHECKPOINT, Kind.TF_CHECKPOINT)


def load_weights(
    target: Any,
    path: PathOrFile,
    *,
    strict: bool = True,
    rename: Rename | None = None,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    by_name: bool = False,
    max_bytes: int | None = None,
) -> RestoreReport:
    """Load weights into a model, all or nothing.

    Use it if your code builds the model and the file has its weights. A compiled model also gets
    the optimizer's state, if the file has it and it belongs to the same type of optimizer.

    Layers in lists are matched by the names that you gave them, if the file contains names, and
    by position if you gave none. Two layers with different names never match, even if their
    shapes are equal. The report then says what to pass as `rename=`.

    Args:
        target: A Keras model. If it is not built, it is built with the input shape in the file.
            For a checkpoint of a `kct.CheckpointManager` or of TensorFlow, also an optimizer, a
            `tf.Module`, a variable, or a list or dict of these, by the names that they were saved
            with: `{"model": model, "optimizer": optimizer, "step": step}`.
        path: A `.weights.h5`, the `.weights.json` of sharded weights, a `.keras` archive or
            directory, an `.h5` or `.hdf5` of a whole model or of weights in the layout of Keras 1
            and 2, a checkpoint of a `kct.CheckpointManager`, or the directory of a run (the newest
            complete file is loaded). A TensorFlow checkpoint (of `tf.train.Checkpoint`,
            `tf.train.CheckpointManager` or Keras 2's `save_weights("cp.ckpt")`): its prefix or its
            directory. A checkpoint of `keras.callbacks.OrbaxCheckpoint`: the whole directory (the
            newest complete step is loaded) or one step. Or an open binary file
            (`io.BytesIO`), or an open `h5py.File`.
        strict: Whether everything must match. If not, matching tensors are loaded, and the report
            lists the others.
        rename: Different names: `{"path in the checkpoint": "path in the model"}`, where `*` stands
            for any text (`"layers/dense/*": "layers/dense_1/*"`); or a function from the first to
            the second, which returns `None` to leave a tensor out. Renamed tensors are not checked
            for the names of layers or the type of the optimizer.
        include: One or more patterns of the paths in the model to load. Default: all. Paths that
            are not included count neither as missing nor as unexpected.
        exclude: One or more patterns of paths not to load: `"optimizer/*"` leaves the optimizer as
            it is.
        by_name: Whether to match a file of Keras 1 or 2 by the names of layers only. Files of
            Keras 3 are always matched by names.
        max_bytes: Limit for the tensors in the file, and for a model that is built with the input
            shape in the file. Default: the free memory of this machine.

    Returns:
        The report; it is true if everything matched.

    Raises:
        RestoreError: with `strict=True`, something does not match; nothing was changed. Its
            `report` lists the mismatches.
        NotBuiltError: the model has no variables yet, and the file does not contain its input
            shape.
        MigrationError: a class's `migrate_weights` failed; nothing was changed.
        ArtefactNotFoundError: there is nothing at the path.
        ArtefactKindError: it holds no weights that can be read; the message names the call that
            opens it.
        DamagedArtefactError: it is empty, truncated, or bytes have changed.
        UnsafeArtefactError: it has links, data in other files, or names that lead outside.
        OverBudgetError: it would exceed `max_bytes`.
        ArgumentError: an argument cannot work, or a pattern matches no path.

    Example:

    >>> import os, tempfile
    >>> import keras
    >>> import keras_ckpt_tools as kct
    >>> path = os.path.join(tempfile.mkdtemp(), "model.weights.h5")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.save_weights(path)
    >>> print(kct.load_weights(model, path).summary)
    2 matched
    """
    require_target(target)
    for name, value in (("strict", strict), ("by_name", by_name)):
        if not isinstance(value, bool):
            raise ArgumentError(
                f"`{name}` must be True or False.",
                received=f"{name}={value!r}",
                remedy="Pass `strict=True` to load all or nothing, False to load what matches."
                if name == "strict"
                else "Pass `by_name=True` to match files of Keras 1 and 2 by names.",
            )
    selection = Selection.of(rename, include, exclude)
    wanted = Wanted(Limits.of(max_bytes), by_name=by_name)
    with on_disk(path, wanted.limits) as place:
        report = _load_any(target, place, wanted, strict, selection)
    return report if place is path else dataclasses.replace(report, path=repr(place))


def _load_any(
    target: Any,
    path: str | os.PathLike[str],
    wanted: Wanted,
    strict: bool,
    selection: Selection,
) -> RestoreReport:
    bad: list[str] = []
    limits = wanted.limits
    for artefact in weights_at(path, bad, limits, several=is_several(target)):
        try:
            with bar_for_file("Loading", artefact.path):
                report = _load(target, artefact, wanted, strict, selection)
        except RestoreError as error:
            raise _of_one_shard(error, artefact) from error.__cause__
        except DamagedArtefactError as error:
            if artefact.path == str(path) or artefact.kind is Kind.SHARDED_WEIGHTS:
                raise
            bad.append(f"{os.path.basename(artefact.path)}: {error.how}")
            continue
        if bad:
            warn(
                f"Loaded {artefact.path!r}; skipped damaged checkpoints: {'; '.join(bad)}.",
                UserWarning,
                stacklevel=3,
            )
        return report
    raise DamagedArtefactError(
        f"No checkpoint of the directory can be loaded: {'; '.join(bad)}.",
        received=f"path={str(path)!r}",
        remedy="Download or copy the missing or damaged files again.",
        path=str(path),
        how="; ".join(bad),
    )


def _of_one_shard(error: RestoreError, artefact: Artefact) -> RestoreError:
    """Return the error, with the advice to pass the index if the file is one of several shards."""
    index = index_beside(artefact.path) if artefact.kind is Kind.H5_WEIGHTS else None
    if index is None:
        return error
    remedy = f"The file is one of several shards: pass their index, {index!r}. {error.remedy}"
    return RestoreError(error.what, received=error.received, remedy=remedy, **error.facts)


def _load(
    target: Any, artefact: Artefact, wanted: Wanted, strict: bool, selection: Selection
) -> RestoreReport:
    with tensors_for(target, artefact, wanted) as opened:
        parts = opened.parts
        if parts is None or parts.is_plain_model:
            report = fill(target, opened.tensors, strict=strict, selection=selection)
        else:
            report = parts.fill(opened.tensors, strict=strict, selection=selection)
        report = opened.told(report)
        source = opened.source
        source.check_unchanged()
        warn_of_passed_over(source, stacklevel=5)
        if parts is None and report and selection.is_all and _says_progress(source):
            attach_progress(target, source.progress)
    return dataclasses.replace(report, not_finite=tuple(source.not_finite))


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How to open a file.

    Attributes:
        limits: Limits for reading it.
        build: Whether the target and its optimizer may be built; not in a comparison.
        by_name: Whether files of Keras 1 and 2 are matched by the names of layers only.
    """

    limits: Limits
    build: bool = True
    by_name: bool = False


@dataclasses.dataclass(frozen=True)
class Opened:
    """Tensors under the paths of a target, and the open file behind them.

    Attributes:
        tensors: The tensors to compare and load.
        source: The file.
        parts: The target, if it is not one model or layer, or may have more than Keras restores.
        migrated: The tensors after `migrate_weights`, if it may have been called.
    """

    tensors: TensorSource
    source: ModelSource
    parts: Target | None = None
    migrated: TensorSource | None = None

    def told(self, report: RestoreReport) -> RestoreReport:
        """Return a report that lists reinitialized optimizer state separately."""
        anew = set(begun_anew(self.migrated)) if self.migrated is not None else set()
        lost = tuple(path for path in report.matched if path in anew)
        if not lost:
            return report
        return dataclasses.replace(
            report,
            matched=tuple(path for path in report.matched if path not in anew),
            skipped_optimizer=report.skipped_optimizer + lost,
        )


@contextmanager
def tensors_for(target: Any, artefact: Artefact, wanted: Wanted) -> Iterator[Opened]:
    """Open a file of any kind as tensors under the paths of a target.

    A target that is not built is built here. Selection and comparison are the same for all kinds.
    """
    require(artefact)
    several = is_several(target)
    if several and artefact.kind is Kind.ORBAX:
        raise only_one_model(artefact.kind, artefact.path, target)
    with open_source(artefact.path, artefact, wanted.limits) as source:
        if isinstance(source, TfSource):
            parts = Target(target)
            tensors = match_target(source.checkpoint, parts, build=wanted.build)
            yield Opened(tensors, source, parts)
        elif several:
            yield _tracked_for(target, source, wanted)
        else:
            yield _model_for(target, source, wanted)


def _model_for(target: Any, source: ModelSource, wanted: Wanted) -> Opened:
    held = sum(info.nbytes for info in source.tensors.values())
    with counted_variables(source.path, held, wanted.limits.max_bytes):
        parts = build_parts(source) if wanted.build else None
        state.build_like(target, build_config(source) if wanted.build else None, "model", parts)
    optimizer = getattr(target, "optimizer", None) if wanted.build else None
    if wanted.build:
        _build_optimizers(target, source)
    if optimizer is not None and _has_optimizer(source):
        state.build_optimizer(optimizer, target.trainable_variables)
    weights = weights_in(source, target, by_name=wanted.by_name)
    if optimizer is not None and _has_optimizer(weights):
        state.build_optimizer(optimizer, target.trainable_variables)
    if source.kind not in _MATCHED:
        weights = with_current_weights(weights, source.record, {"": target})
    return Opened(with_fresh_optimizer(weights, target), source, migrated=weights)


def _build_optimizers(target: Any, source: ModelSource) -> None:
    """Build the optimizers in attributes of a model on the variables in a record."""
    compiled = getattr(target, "optimizer", None)
    if all(one.built or one is compiled for one in optimizers_of(target)):
        return
    build_optimizers_as_saved(target, source)


def _tracked_for(target: Any, source: ModelSource, wanted: Wanted) -> Opened:
    parts, tensors = open_tracked(source, target, build=wanted.build)
    saveables = {part.name: part.target for part in parts.parts if part.is_keras}
    migrated = with_current_weights(tensors, source.record, saveables)
    return Opened(migrated, source, parts, migrated)


def _says_progress(source: ModelSource) -> bool:
    return source.record is not None or source.kind is Kind.ORBAX


def _has_optimizer(weights: TensorSource) -> bool:
    groups = (comparison.OPTIMIZER_GROUP, "optimizer_weights/", OPTIMIZER)
    return any(path.startswith(groups) for path in weights.tensors)


def weights_at(
    path: str | os.PathLike[str],
    bad: list[str],
    limits: Limits | None = None,
    *,
    several: bool = False,
) -> Iterator[Artefact]:
    """Yield the file at a path, or the files of the directory of a run, the newest first.

    Args:
        path: A file or a directory.
        bad: Collects sentences about damaged files.
        limits: Limits for reading.
        several: Whether to yield only files that may hold several objects.
    """
    artefact = tell(path, limits)
    entries = choose.entries_of(artefact)
    if (index := choose.only_index(entries)) is not None:
        yield tell(index, limits)
        return
    if not entries and artefact.kind is Kind.ORBAX:
        yield from steps_at(artefact)
        return
    candidates = [one for one in entries if one.ours and (one.kind in _OF_RUN or not several)]
    bad.extend(choose.problems_of(entries))
    if not candidates and not bad:
        yield artefact
    for one in candidates:
        yield tell(one.path, limits)


def require_target(target: Any) -> None:
    """Refuse a target without variables.

    Raises:
        ArgumentError: it is not an object that can be restored.
    """
    if is_several(target):
        return
    if not hasattr(target, "variables") or isinstance(target, type):
        raise ArgumentError(
            "The first argument must be a Keras model, the second a path.",
            received=f"target={target!r}",
            remedy="Call `kct.load_weights(model, path)`.",
        )

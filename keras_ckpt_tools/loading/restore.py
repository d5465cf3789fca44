"""Fill weights into a model that is there: source -> compare -> *fill*.

All or nothing when strict. From a run's checkpoint, which may hold several objects, the model is
taken by its name; the directory of a run stands for the file that was saved last and is complete.
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

# Matched with what the classes have now.
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

    Reach for it where the model is built by your code and the file has its weights. A compiled
    model gets the optimizer's state as well, where the file has it, and where it is the same
    optimizer's.

    Layers in lists are matched by the names that you gave them, as far as the file says names, and
    by their place where you gave none. Two that are called otherwise are no match, whatever their
    shapes: then the report says what to pass as `rename=`.

    Args:
        target: A Keras model. One that is not built yet is built where the file says for what
            shape. From a checkpoint of a `kct.CheckpointManager` or of TensorFlow, also an
            optimizer, a `tf.Module`, a variable, or a list or dict of such:
            `{"model": model, "optimizer": optimizer, "step": step}`, by the names that they were
            saved under.
        path: A `.weights.h5`, the `.weights.json` of sharded weights, a `.keras` archive or
            directory, an `.h5` or `.hdf5` of a whole model or of weights, as Keras 1 and 2 laid
            them out, a checkpoint of a `kct.CheckpointManager`, or the directory of a run (the file
            that was saved last and is complete is taken). A TensorFlow checkpoint, as
            `tf.train.Checkpoint`, `tf.train.CheckpointManager` and `save_weights("cp.ckpt")` of
            Keras 2 write: its prefix or its directory. What `keras.callbacks.OrbaxCheckpoint`
            wrote: all of it (the newest whole step is taken) or one step. Or an open binary file
            (`io.BytesIO`), or an open `h5py.File`.
        strict: Whether everything has to match. If not, what matches is loaded, and the report
            says what did not.
        rename: What is called otherwise: `{"path in the checkpoint": "path in the model"}`, where
            `*` stands for any text (`"layers/dense/*": "layers/dense_1/*"`), or a function from the
            one to the other, which returns `None` for what is to be left out. Whoever renames has
            the last word: names of layers, and the kind of an optimizer, are not asked for these.
        include: A pattern, or several, of the paths in the model that are meant. Default: all.
            What is not meant is neither missing nor unexpected.
        exclude: Likewise, of those that are not: `"optimizer/*"` leaves the optimizer as it is.
        by_name: Whether a file of Keras 1 or 2 is matched by the names of layers alone. Files of
            Keras 3 are matched by names in any case.
        max_bytes: What the tensors in the file, and a model that is built for the shape that the
            file gives, may take. Default: the memory that this machine has left.

    Returns:
        The report; it is true if everything matched.

    Raises:
        RestoreError: something does not match and `strict`; nothing was changed. Its `report` says
            what.
        NotBuiltError: the model has no variables yet, and the file does not say for what shape.
        MigrationError: a class's `migrate_weights` failed; nothing was changed.
        ArtefactNotFoundError: nothing is at the path.
        ArtefactKindError: it holds no weights that could be read; says which call opens it.
        DamagedArtefactError: it is empty, truncated, or bytes have changed.
        UnsafeArtefactError: it has links, data in other files, or names that lead out of it.
        OverBudgetError: it would take more than it may.
        ArgumentError: an argument cannot work, or does not fit the paths that there are.

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
                f"`{name}` is True or False.",
                received=f"{name}={value!r}",
                remedy="Pass `strict=True` to load all or nothing, False to load what fits."
                if name == "strict"
                else "Pass `by_name=True` for files of Keras 1 and 2 that are matched by names.",
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
                f"Loaded {artefact.path!r}; passed over damaged checkpoints: {'; '.join(bad)}.",
                UserWarning,
                stacklevel=3,
            )
        return report
    raise DamagedArtefactError(
        f"No checkpoint of the directory can be loaded: {'; '.join(bad)}.",
        received=f"path={str(path)!r}",
        remedy="Fetch or copy what is missing or damaged again.",
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
    """How an artefact is to be opened.

    Attributes:
        limits: What it may take.
        build: Whether the target, and its optimizer, may be built; not to compare.
        by_name: Whether files of Keras 1 and 2 are matched by the names of layers alone.
    """

    limits: Limits
    build: bool = True
    by_name: bool = False


@dataclasses.dataclass(frozen=True)
class Opened:
    """Tensors under the paths of a target, and the open file behind them.

    Attributes:
        tensors: What is compared and filled in.
        source: The file.
        parts: The target, where it is not one model or layer, or may have more than Keras restores.
        migrated: The tensors as `migrate_weights` left them, where that may have had a part in it.
    """

    tensors: TensorSource
    source: ModelSource
    parts: Target | None = None
    migrated: TensorSource | None = None

    def told(self, report: RestoreReport) -> RestoreReport:
        """Return a report in which optimizer state that begins anew is set apart."""
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
    """Open any kind of artefact as tensors under the paths of a target.

    What is not built yet is built here. Everything behind it, which tensors are meant and whether
    they fit, is the same for every kind.
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
    """Build the optimizers in attributes of a model on what a record says that they update."""
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
    """Yield what is at a path, or the files of the directory of a run, the newest first.

    Args:
        path: Where to look.
        bad: Takes what is visibly damaged, as sentences.
        limits: What it may take.
        several: Whether only those are meant that may hold several objects.
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
    """Refuse what has no variables to restore into.

    Raises:
        ArgumentError: it is nothing that is restored.
    """
    if is_several(target):
        return
    if not hasattr(target, "variables") or isinstance(target, type):
        raise ArgumentError(
            "The first argument is a Keras model, the second a path.",
            received=f"target={target!r}",
            remedy="Call `kct.load_weights(model, path)`.",
        )

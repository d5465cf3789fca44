"""Report which tensors of a file match a model, without changing anything.

The comparison is the same that a restore makes before it changes anything. With two files, one
stands for the model. If both have the same layout, paths are compared. If not (an `.h5` and a
`.weights.h5`, for example), the model is needed, and is built from the file with a config, as
`kct.safe_load_model` does it.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    DamagedArtefactError,
    ObjectsNotFoundError,
)
from keras_ckpt_tools.formats.common.file_objects import PathOrFile, on_disk
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.keras2.translate import is_keras_2
from keras_ckpt_tools.formats.kinds import Artefact, Kind, plain_path, tell
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.tensor_source import ModelSource, Relabelled, TensorSource
from keras_ckpt_tools.inspection.wrong_kind import require
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.stores import Captured
from keras_ckpt_tools.live.target import is_several
from keras_ckpt_tools.loading.model import safe_load_model
from keras_ckpt_tools.loading.restore import Wanted, require_target, tensors_for, weights_at
from keras_ckpt_tools.loading.tensor_selection import places_of_object
from keras_ckpt_tools.matching import compare as comparison
from keras_ckpt_tools.matching.compare import Needed, compare_source
from keras_ckpt_tools.matching.report import RestoreReport
from keras_ckpt_tools.matching.selection import Rename, Selection

_KERAS_3 = "Keras 3"
_KERAS_2 = "Keras 2"
_OWN_LAYOUT = (Kind.H5_MODEL, Kind.H5_WEIGHTS_LEGACY, Kind.ORBAX)
_DESCRIBED = (Kind.KERAS, Kind.KERAS_DIR, Kind.H5_MODEL, Kind.ORBAX)
# Groups that only Keras 2 writes, in a `.weights.h5` without a version.
_OF_KERAS_2 = re.compile(r"(.*/)?(_layer_checkpoint_dependencies|_(query|key|value|output)_dense)/")


def compare(
    target_or_path: Any,
    path: PathOrFile,
    *,
    rename: Rename | None = None,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    by_name: bool = False,
) -> RestoreReport:
    """Compare a model, or a file, with the tensors in a file. Nothing is changed.

    Args:
        target_or_path: A built Keras model, or any other target of `kct.load_weights`; or any path
            that `kct.load_weights` opens, to compare two files.
        path: As for `kct.load_weights`.
        rename: As for `kct.load_weights`.
        include: As for `kct.load_weights`.
        exclude: As for `kct.load_weights`.
        by_name: As for `kct.load_weights`.

    Returns:
        The report that `kct.load_weights(model, path, strict=False)` would return. The state of an
        optimizer that is not built yet counts as skipped: comparing does not build it.

    Raises:
        NotBuiltError: the model has no variables yet.
        ObjectsNotFoundError: two files have different layouts, and the model that is needed to
            match them cannot be built.
        ArtefactNotFoundError: there is nothing at the path.
        ArtefactKindError: it holds no weights that can be read.
        DamagedArtefactError: it is visibly damaged; in a directory, all files are.
        ArgumentError: the first argument is neither a model nor a path, or another one cannot work.

    Example:

    >>> import os, tempfile
    >>> import keras
    >>> import keras_ckpt_tools as kct
    >>> path = os.path.join(tempfile.mkdtemp(), "model.weights.h5")
    >>> keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(path)
    >>> wider = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> print(kct.compare(wider, path).summary)
    0 matched, 2 of another shape
    """
    limits = Limits.of()
    with on_disk(path, limits) as place, on_disk(target_or_path, limits) as target:
        if place is not path or target is not target_or_path:
            chosen: Any = {"rename": rename, "include": include, "exclude": exclude}
            report = compare(target, place, by_name=by_name, **chosen)
            return dataclasses.replace(report, path=repr(place))
    selection = Selection.of(rename, include, exclude)
    wanted = Wanted(limits, build=False, by_name=by_name)
    if isinstance(target_or_path, (str, bytes, os.PathLike)):
        first = plain_path(target_or_path)  # type: ignore[arg-type]
        return _of_first_whole(
            first,
            lambda one: _of_first_whole(
                path, lambda other: _compare_files(one, other, wanted, selection)
            ),
        )
    require_target(target_or_path)
    return _of_first_whole(
        path,
        lambda artefact: _compare(target_or_path, artefact, wanted, selection),
        several=is_several(target_or_path),
    )


def _of_first_whole(
    path: str | os.PathLike[str],
    compared: Callable[[Artefact], RestoreReport],
    *,
    several: bool = False,
) -> RestoreReport:
    """Return the report on a path; for a directory, on its newest intact checkpoint."""
    damage: DamagedArtefactError | None = None
    for artefact in weights_at(path, [], several=several):
        try:
            return compared(artefact)
        except DamagedArtefactError as error:
            damage = damage or error
    if damage is not None:
        raise damage
    return compared(tell(path))


def _compare(
    target: Any, artefact: Artefact, wanted: Wanted, selection: Selection
) -> RestoreReport:
    with tensors_for(target, artefact, wanted) as opened:
        if opened.parts is not None:
            report = opened.parts.compare(opened.tensors, selection).report
        else:
            captured = state.capture(target)
            tensors = state.at_other_paths(opened.tensors, target, captured, selection)
            report = compare_source(_needed(target, captured), tensors, selection).report
        return opened.told(report)


def _needed(model: Any, captured: Captured) -> Needed:
    needed = captured.needed()
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or optimizer.built:
        return needed
    group = comparison.OPTIMIZER_GROUP
    own = {p: info for p, info in needed.tensors.items() if not p.startswith(group)}
    return Needed(own, needed.names, needed.optimizers, needed.variables)


def _compare_files(
    first: Artefact, second: Artefact, wanted: Wanted, selection: Selection
) -> RestoreReport:
    require(first)
    require(second)
    with (
        open_source(first.path, first, wanted.limits) as one,
        open_source(second.path, second, wanted.limits) as other,
    ):
        layouts = _layout_of(one), _layout_of(other)
        if layouts[0] == layouts[1]:
            return _compare_weights(_weights_in(one), _weights_in(other), selection)
        described = first if _is_described(one) else second if _is_described(other) else None
    if described is None:
        raise ArtefactKindError(
            f"The two files have their tensors under different paths (layout of {layouts[0]}, of "
            f"{layouts[1]}). The config of the model is needed to match them, and neither has "
            "it.",
            received=f"target_or_path={first.path!r}, path={second.path!r}",
            remedy="Build the model, and compare each file with it: "
            f"`kct.compare(model, {first.path!r})`, `kct.compare(model, {second.path!r})`.",
            path=first.path,
            kind=str(first.kind),
        )
    model = _model_of(described)
    with (
        tensors_for(model, first, wanted) as ours,
        tensors_for(model, second, wanted) as theirs,
    ):
        return theirs.told(_compare_weights(ours.tensors, theirs.tensors, selection))


def _compare_weights(
    first: TensorSource, second: TensorSource, selection: Selection
) -> RestoreReport:
    seeds = comparison.RANDOM_GROUP
    if not any(path.startswith(seeds) for path in first.tensors):
        # A file without them was written by Keras. That is no difference between the models.
        places = {path: path for path in second.tensors if not path.startswith(seeds)}
        second = Relabelled(second, places) if len(places) < len(second.tensors) else second
    return compare_source(Needed.by(first), second, selection).report


def _model_of(artefact: Artefact) -> Any:
    try:
        return safe_load_model(artefact.path)
    except ObjectsNotFoundError as error:
        remedy = (
            "The two files have different layouts, so the model is needed to match their tensors. "
            "Load it, and compare the other file with it: `kct.compare(model, "
            f"path)`. {error.remedy}"
        )
        raise ObjectsNotFoundError(
            error.what, received=error.received, remedy=remedy, **error.facts
        ) from error


def _is_described(source: ModelSource) -> bool:
    """Return whether the model can be built from a file."""
    return source.config is not None and source.kind in _DESCRIBED


def _layout_of(source: ModelSource) -> str:
    """Return the layout of a source; files of one layout have the same paths."""
    kind = source.kind
    if kind in _OWN_LAYOUT or (kind is Kind.TF_CHECKPOINT and not source.record):
        return str(kind)
    if is_keras_2(source.metadata.get("keras_version")):
        return _KERAS_2
    foreign = kind is Kind.H5_WEIGHTS and not source.record
    if foreign and any(map(_OF_KERAS_2.match, source.tensors)):
        return _KERAS_2
    return _KERAS_3


def _weights_in(source: ModelSource) -> TensorSource:
    """Return the tensors of the only model in a file, or all but the state of the run."""
    record, tensors = source.record, source.tensors
    if record is None or not record.objects_tracked:
        return source
    try:
        places = places_of_object(record, tensors, None, source.path)
    except ArgumentError:
        groups = tuple(f"{name}/" for name in record.objects_tracked)
        places = {path: path for path in tensors if path.startswith(groups)}
    return Relabelled(source, places)

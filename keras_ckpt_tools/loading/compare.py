"""Say what would fit, and touch nothing: source + model -> *report*.

The same comparison that a restore makes before it changes anything.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

from keras_ckpt_tools.errors import DamagedArtefactError
from keras_ckpt_tools.formats import comparison, state
from keras_ckpt_tools.formats.comparison import Needed, compare_source
from keras_ckpt_tools.formats.file_objects import PathOrFile, on_disk
from keras_ckpt_tools.formats.kinds import Artefact, tell
from keras_ckpt_tools.formats.limits import Limits
from keras_ckpt_tools.formats.report import RestoreReport
from keras_ckpt_tools.formats.selection import Rename, Selection
from keras_ckpt_tools.formats.source import open_source
from keras_ckpt_tools.formats.stores import Captured
from keras_ckpt_tools.loading.restore import Wanted, require_target, tensors_for, weights_at

__all__ = ["compare"]


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
        target_or_path: A built Keras model, or what else `kct.load_weights` takes; or a second file
            in its place.
        path: As for `kct.load_weights`.
        rename: Likewise.
        include: Likewise.
        exclude: Likewise.
        by_name: Likewise.

    Returns:
        The report that `kct.load_weights(model, path, strict=False)` would return. The state of an
        optimizer that is not built yet counts as skipped: comparing does not build it.

    Raises:
        NotBuiltError: the model has no variables yet.
        ArtefactNotFoundError: nothing is at the path.
        ArtefactKindError: it holds no weights that could be read.
        DamagedArtefactError: it is visibly damaged; in a directory, all that are there are.
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
    with on_disk(path) as place:
        if place is not path:
            chosen: Any = {"rename": rename, "include": include, "exclude": exclude}
            report = compare(target_or_path, place, by_name=by_name, **chosen)
            return dataclasses.replace(report, path=repr(place))
    selection = Selection.of(rename, include, exclude)
    if isinstance(target_or_path, (str, bytes, os.PathLike)):
        with open_source(target_or_path) as first, open_source(path) as second:  # type: ignore[arg-type]
            return compare_source(Needed.by(first), second, selection).report
    require_target(target_or_path)
    wanted = Wanted(Limits.of(), build=False, by_name=by_name)
    damage: DamagedArtefactError | None = None
    for artefact in weights_at(path, []):
        try:
            return _compare(target_or_path, artefact, wanted, selection)
        except DamagedArtefactError as error:
            damage = damage or error
    if damage is not None:
        raise damage
    return _compare(target_or_path, tell(path), wanted, selection)


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
    return Needed(own, needed.names, needed.optimizers)

"""Say what would fit, and touch nothing: source + model -> *report*.

The same comparison that a restore makes before it changes anything.
"""

from __future__ import annotations

import os
from typing import Any

from keras_ckpt_tools.formats import comparison, state
from keras_ckpt_tools.formats.kinds import Kind, tell
from keras_ckpt_tools.formats.limits import Limits
from keras_ckpt_tools.formats.orbax_checkpoint import OrbaxCheckpoint
from keras_ckpt_tools.formats.orbax_match import match_orbax
from keras_ckpt_tools.formats.report import RestoreReport
from keras_ckpt_tools.formats.source import open_source
from keras_ckpt_tools.loading.build import with_fresh_optimizer
from keras_ckpt_tools.loading.former_weights import as_they_are_now, with_lost_state
from keras_ckpt_tools.loading.orbax import with_step
from keras_ckpt_tools.loading.restore import (
    model_group,
    open_weights,
    require_model,
    weights_at,
    weights_in,
)
from keras_ckpt_tools.metadata import TensorInfo

__all__ = ["compare"]


def compare(model_or_path: Any, path: str | os.PathLike[str]) -> RestoreReport:
    """Compare a model, or a file, with the tensors in a file. Nothing is changed.

    Args:
        model_or_path: A built Keras model, or a second file in its place.
        path: As for `kct.load_weights`.

    Returns:
        The report that `kct.load_weights(model, path, strict=False)` would return. The state of an
        optimizer that is not built yet counts as skipped: comparing does not build it.

    Raises:
        NotBuiltError: the model has no variables yet.
        ArtefactNotFoundError: nothing is at the path.
        ArtefactKindError: it holds no weights that could be read.
        DamagedArtefactError: it is visibly damaged.
        ArgumentError: the first argument is neither a model nor a path.

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
    if isinstance(model_or_path, (str, bytes, os.PathLike)):
        with open_source(model_or_path) as first, open_source(path) as second:  # type: ignore[arg-type]
            return comparison.compare_tensors(second.path, dict(first.tensors), second.tensors)
    require_model(model_or_path)
    state.build_like(model_or_path, None, "model")
    artefact = next(weights_at(path, []), None) or tell(path)
    if artefact.kind is Kind.ORBAX:
        limits = Limits.of()
        return with_step(artefact, "latest", limits, lambda step: _of_orbax(step, model_or_path))
    with open_weights(artefact) as source:
        weights = weights_in(source, model_or_path)
        group = model_group(source)
        weights = as_they_are_now(weights, source.record, model_or_path, group=group)
        found = with_fresh_optimizer(weights, model_or_path).tensors
        report = comparison.compare_tensors(weights.path, _expected(model_or_path), found)
        return with_lost_state(report, weights)


def _of_orbax(step: OrbaxCheckpoint, model: Any) -> RestoreReport:
    weights = with_fresh_optimizer(match_orbax(step, model), model)
    return comparison.compare_tensors(weights.path, _expected(model), weights.tensors)


def _expected(model: Any) -> dict[str, TensorInfo]:
    infos = state.capture(model).infos()
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or optimizer.built:
        return infos
    return {p: info for p, info in infos.items() if not p.startswith(comparison.OPTIMIZER_GROUP)}

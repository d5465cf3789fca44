"""Build a model from a whole-model `.h5`: verdicts -> *build* -> fill.

Keras' reader of that format knows how weights are matched to layers, so it builds the model and
fills it, from the config that was judged. Compiling is done here, because in Keras 3 that part of
the reader fails on files that Keras itself wrote: a loss or metric given as `"mse"` cannot be
looked up again (the function's public name is another), and the optimizer is built for no
variables at all, so that its state is dropped with a line in the log.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import keras
import numpy as np

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import DamagedArtefactError, RestoreError
from keras_ckpt_tools.formats import comparison, state
from keras_ckpt_tools.formats.keras_2 import is_keras_2
from keras_ckpt_tools.formats.legacy_weights import legacy_weights
from keras_ckpt_tools.formats.report import Mismatch, RestoreReport
from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.loading.build import Plan
from keras_ckpt_tools.loading.builtin_names import CLASSES, IDENTIFIERS

__all__ = ["build_legacy"]

_GROUP = "optimizer_weights"


class _Rewritten(h5py.File):  # type: ignore[misc, unused-ignore]
    """An open file whose config is the one that was judged."""

    def __init__(self, file: h5py.File, config: Mapping[str, Any]):
        super().__init__(file.id)
        self._attributes = {"model_config": json.dumps(config)}

    @property
    def attrs(self) -> Mapping[str, str]:  # type: ignore[override, unused-ignore]
        """The config; Keras' reader asks the file's root for nothing else."""
        return self._attributes


def build_legacy(source: Source, plan: Plan, left: dict[str, str] | None = None) -> Any:
    """Build and fill a model from a whole-model `.h5`.

    Args:
        source: The file.
        plan: What is to be built.
        left: Where it is given, the state of the optimizer need not fit; it takes the reason.

    Raises:
        DamagedArtefactError: it cannot be read, or bytes have changed.
        RestoreError: the optimizer and its state do not fit.
    """
    problems = source.verify() if source.record is not None else ()
    if problems:
        raise _damaged(source.path, "; ".join(problems))
    try:
        with plan.room(source.path):
            model = internals.load_model_from_hdf5(
                _Rewritten(source.hdf5, plan.config),
                custom_objects=dict(plan.objects),
                compile=False,
                **_safe_mode(plan),
            )
            if plan.training_config is not None:
                model.compile(**_compile_arguments(plan.training_config, plan.objects))
        if plan.training_config is not None and model.optimizer is not None:
            try:
                _fill_optimizer(source, model)
            except RestoreError as error:
                if left is None:
                    raise
                left["optimizer"] = f"its tensors do not fit ({error.report.summary})"
    except OSError as error:
        raise _damaged(source.path, f"libhdf5 cannot read it ({error})") from error
    return model


def _safe_mode(plan: Plan) -> dict[str, bool]:
    # Later versions set their own safe mode, from an argument that Keras 3.10 does not have.
    known = inspect.signature(internals.load_model_from_hdf5).parameters
    return {"safe_mode": not plan.allowed.runs_code} if "safe_mode" in known else {}


def _compile_arguments(config: Mapping[str, Any], objects: Mapping[str, Any]) -> dict[str, Any]:
    metrics = keras.metrics.deserialize
    return {
        "optimizer": _nested(config.get("optimizer_config"), keras.optimizers.deserialize, objects),
        "loss": _nested(config.get("loss"), keras.losses.deserialize, objects),
        "metrics": _nested(config.get("metrics"), metrics, objects),
        "weighted_metrics": _nested(config.get("weighted_metrics"), metrics, objects),
        "loss_weights": config.get("loss_weights"),
    }


def _nested(value: Any, deserialize: Callable[[Any], Any], objects: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        # `compile` knows Keras' own by their identifiers.
        return objects.get(value, value)
    if isinstance(value, (list, tuple)):
        return [_nested(item, deserialize, objects) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value:
        return {key: _nested(item, deserialize, objects) for key, item in value.items()}
    inner = value.get("config")
    named = inner.get("fn") or inner.get("name") if isinstance(inner, dict) else inner
    if value["class_name"] in ("function", "LossFunctionWrapper") and isinstance(named, str):
        known = named in CLASSES or named in IDENTIFIERS
        return objects.get(named, named if known else value)
    return deserialize(value)


def _fill_optimizer(source: Source, model: Any) -> None:
    optimizer = model.optimizer
    unbuilt = [tuple(v.shape) for v in optimizer.variables]
    state.build_optimizer(optimizer, model.trainable_variables)
    if is_keras_2(source.metadata.get("keras_version")) and _GROUP in source.hdf5:
        _fill_from_keras_2(source, model)
        return
    saved = _saved_state(source)
    shapes = [tuple(array.shape) for array in saved]
    variables = list(optimizer.variables)
    if shapes not in ([tuple(v.shape) for v in variables], unbuilt):
        raise _misfit(source, optimizer, shapes)
    for variable, array in zip(variables, saved, strict=False):
        variable.assign(array)


def _fill_from_keras_2(source: Source, model: Any) -> None:
    weights = legacy_weights(source, model)
    present = state.capture(model).infos()
    report = comparison.compare_tensors(
        source.path, present, weights.tensors, optimizer_may_differ=False
    )
    ours = [path for path in report.matched if path.startswith(comparison.OPTIMIZER_GROUP)]
    variables = model.optimizer.variables
    if len(ours) != len(variables):
        raise _not_that_optimizer(source, model.optimizer, report)
    for path, array in weights.read_all(ours).items():
        variables[int(path.rpartition("/")[2])].assign(array)


def _saved_state(source: Source) -> list[np.ndarray[Any, Any]]:
    if _GROUP not in source.hdf5:
        return []
    group = source.hdf5[_GROUP]
    names = group.attrs.get("weight_names")
    if names is None:
        # An attribute has room for 64 kB; Keras writes longer lists in numbered pieces.
        pieces = sorted(
            (key for key in group.attrs if key.startswith("weight_names")),
            key=lambda key: int(key.removeprefix("weight_names")),
        )
        names = [name for key in pieces for name in group.attrs[key]]
    decoded = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    return [np.asarray(group[name]) for name in decoded]


def _misfit(source: Source, optimizer: Any, saved: list[tuple[int, ...]]) -> RestoreError:
    shapes = [tuple(v.shape) for v in optimizer.variables]
    paths = [f"{_GROUP}/{index}" for index in range(max(len(saved), len(shapes)))]
    both = list(zip(paths, saved, shapes, strict=False))
    report = RestoreReport(
        source.path,
        matched=tuple(path for path, theirs, ours in both if theirs == ours),
        missing=tuple(paths[len(saved) :]),
        unexpected=tuple(paths[len(shapes) :]),
        shape_mismatch=tuple(
            Mismatch(path, str(theirs), str(ours)) for path, theirs, ours in both if theirs != ours
        ),
    )
    return _not_that_optimizer(source, optimizer, report)


def _not_that_optimizer(source: Source, optimizer: Any, report: RestoreReport) -> RestoreError:
    return RestoreError(
        f"The state of the optimizer in the file does not fit the {type(optimizer).__name__} that "
        f"the file names.\n{report}\n",
        received=f"path={source.path!r}",
        remedy="Load it with `compile=False` and compile the model yourself; the optimizer then "
        "starts afresh.",
        path=source.path,
        report=report,
    )


def _damaged(path: str, how: str) -> DamagedArtefactError:
    return DamagedArtefactError(
        f"The file is damaged: {how}.",
        received=f"path={path!r}",
        remedy="Restore it from a copy, or load an earlier one.",
        path=path,
    )

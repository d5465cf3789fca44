"""Build a model from a whole-model `.h5` file.

Keras' reader builds the model from the checked config and assigns the weights. This module compiles
it, because that part of Keras 3's reader fails on files that Keras itself wrote: it cannot look up
a loss or metric given as `"mse"`, and it builds the optimizer on no variables, so that the
optimizer's state is lost.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

import h5py
import keras
import numpy as np

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import RestoreError, damaged
from keras_ckpt_tools.formats.keras2.translate import is_keras_2
from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.inspection.builtin_names import CLASSES, IDENTIFIERS
from keras_ckpt_tools.inspection.configs import is_class_of_keras
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.foreign.keras2_h5 import legacy_weights
from keras_ckpt_tools.loading.build import Plan, not_built
from keras_ckpt_tools.loading.unbuildable import frames_of
from keras_ckpt_tools.matching import compare
from keras_ckpt_tools.matching.report import Mismatch, RestoreReport
from keras_ckpt_tools.showing.messages import warn

_GROUP = "optimizer_weights"
# `compile` chooses the metric by the outputs.
_ACCURACIES = ("accuracy", "acc", "crossentropy", "ce")


class _Rewritten(h5py.File):  # type: ignore[misc, unused-ignore]
    """An open file with the checked config in place of its own."""

    def __init__(self, file: h5py.File, config: Mapping[str, Any]):
        super().__init__(file.id)
        self._attributes = {"model_config": json.dumps(config)}

    @property
    def attrs(self) -> Mapping[str, str]:  # type: ignore[override, unused-ignore]
        """The config; Keras' reader reads nothing else from the file's root."""
        return self._attributes


def build_legacy(source: Source, plan: Plan, left: dict[str, str] | None = None) -> Any:
    """Build and fill a model from a whole-model `.h5`.

    Args:
        source: The file.
        plan: What to build, and how.
        left: If given, the state of the optimizer may fail to match; it collects the reason.

    Raises:
        DamagedArtefactError: it cannot be read, or bytes have changed.
        NotBuiltError: it is a subclassed model, whose shapes are not in such a file.
        RestoreError: the optimizer and its state do not match.
    """
    problems = source.verify() if source.record is not None else ()
    if problems:
        raise damaged(source.path, "; ".join(problems))
    try:
        with plan.room(source.path):
            model = internals.load_model_from_hdf5(
                _Rewritten(source.hdf5, plan.config),
                custom_objects=dict(plan.objects),
                compile=False,
                **_safe_mode(plan),
            )
            _warn_of_no_vocabulary(source.path, model)
            if plan.training_config is not None:
                compile_as_saved(model, plan.training_config, plan.objects)
        if plan.training_config is not None and model.optimizer is not None:
            try:
                _fill_optimizer(source, model)
            except RestoreError as error:
                if left is None:
                    raise
                left["optimizer"] = f"its tensors do not match ({error.report.summary})"
    except ValueError as error:
        if "count mismatch" in str(error) and is_subclassed(plan):
            name = str(plan.config["class_name"]).rpartition(">")[2]
            raise not_built(source.path, name, "call it on one batch of data") from error
        raise
    except OSError as error:
        names = (str(frame.f_globals.get("__name__")) for frame in frames_of(error))
        if not any(name.partition(".")[0] == "h5py" for name in names):
            raise  # Of the user's own code.
        raise damaged(source.path, f"libhdf5 cannot read it ({error})") from error
    return model


def is_subclassed(plan: Plan) -> bool:
    """Return whether a config has no layers; such a file contains no shapes."""
    inner = plan.config.get("config")
    return not (isinstance(inner, dict) and "layers" in inner)


def _warn_of_no_vocabulary(path: str, model: Any) -> None:
    """Warn about empty lookups: Keras writes their arguments, not the result of `adapt`."""
    empty = [
        repr(layer.name)
        for layer in model._flatten_layers()
        if isinstance(layer, internals.IndexLookup) and layer.input_vocabulary is None
    ]
    if empty:
        warn(
            f"{path!r} has no vocabulary for {', '.join(empty)}: Keras does not write the "
            "result of `adapt` to `.h5`. Call `adapt` or `set_vocabulary` of each before you use "
            "the model. `.keras` files, and `.h5` files of `kct.ModelCheckpoint`, contain it.",
            UserWarning,
            stacklevel=7,
        )


def _safe_mode(plan: Plan) -> dict[str, bool]:
    # Later versions set their own safe mode, from an argument that Keras 3.10 does not have.
    known = inspect.signature(internals.load_model_from_hdf5).parameters
    return {"safe_mode": not plan.allowed.runs_code} if "safe_mode" in known else {}


def compile_as_saved(model: Any, config: Mapping[str, Any], objects: Mapping[str, Any]) -> None:
    """Compile a model with the arguments of a `training_config`."""

    def made(key: str, module: Any) -> Any:
        return _nested(config.get(key), module, objects)

    model.compile(
        optimizer=made("optimizer_config", keras.optimizers),
        loss=made("loss", keras.losses),
        metrics=made("metrics", keras.metrics),
        weighted_metrics=made("weighted_metrics", keras.metrics),
        loss_weights=config.get("loss_weights"),
    )


def _nested(value: Any, module: Any, objects: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return objects.get(value) or _of_keras(value, module)
    if isinstance(value, (list, tuple)):
        return [_nested(item, module, objects) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value:
        return {key: _nested(item, module, objects) for key, item in value.items()}
    inner, name = value.get("config"), value["class_name"]
    place = f"keras.{module.__name__.rpartition('.')[2]}"
    named = inner.get("fn") or inner.get("name") if isinstance(inner, dict) else inner
    if name in ("function", "LossFunctionWrapper") and isinstance(named, str):
        known = named in CLASSES or named in IDENTIFIERS
        return objects.get(named) or (_of_keras(named, module) if known else value)
    if name not in objects and is_class_of_keras(name, place):
        # The table of `module.deserialize` lacks some of them; it returns their name unchanged.
        own = {**value, "module": place, "registered_name": None}
        return keras.saving.deserialize_keras_object(own)
    return module.deserialize(value)


def _of_keras(name: str, module: Any) -> str:
    """Return a name if `compile` knows it; Keras itself would fail only at the first batch."""
    if module is not keras.metrics or name not in _ACCURACIES:
        module.get(name)
    return name


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
    report = compare.compare_tensors(
        source.path, present, weights.tensors, optimizer_may_differ=False
    )
    ours = [path for path in report.matched if path.startswith(compare.OPTIMIZER_GROUP)]
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
        # An attribute holds up to 64 kB; Keras writes longer lists in numbered pieces.
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
        f"The state of the optimizer in the file does not match the {type(optimizer).__name__} "
        f"that the file names.\n{report}\n",
        received=f"path={source.path!r}",
        remedy="Load it with `compile=False` and compile the model yourself; the optimizer then "
        "is reinitialized.",
        path=source.path,
        report=report,
    )

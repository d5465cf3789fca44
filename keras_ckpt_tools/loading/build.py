"""Build a model from a file after all of its names were checked, and load its weights.

Keras builds in isolation, from the checked config and not from the one in the file, so a class's
`migrate` and a dropped compile config take effect. The weights are read by this package, completely
or not at all. `whole_model_h5` does the same for `.h5`.

The optimizer is built before its state is loaded: on the variables in the record, else on those
that are trainable now. A file whose optimizer had no state yet leaves it as it is.

Weights must match exactly. State of optimizers, metrics and random generators that does not fit is
reinitialized with one warning. With `compile=True` it is an error.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools.errors import (
    ArtefactKindError,
    NotBuiltError,
    RestoreError,
)
from keras_ckpt_tools.formats.keras2.translate import is_keras_2
from keras_ckpt_tools.formats.layer_names import group_name
from keras_ckpt_tools.formats.orbax import METRICS, OPTIMIZER, OrbaxCheckpoint
from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.formats.tensor_source import (
    ModelSource,
    Relabelled,
    TensorSource,
    names_of,
    optimizers_of,
    places_of,
)
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.foreign.keras2_archive import in_places_of_keras_3
from keras_ckpt_tools.live.foreign.orbax import match_orbax
from keras_ckpt_tools.live.keras_walk import has_state, is_whole
from keras_ckpt_tools.live.migration import (
    warn_of_lost_state,
    with_current_weights,
    with_new_variables,
)
from keras_ckpt_tools.live.restore import fill
from keras_ckpt_tools.live.stores import Captured
from keras_ckpt_tools.loading.deadline import Clock
from keras_ckpt_tools.loading.isolation import Allowed, closed_room
from keras_ckpt_tools.loading.lazy_initializers import random_numbers_put_off
from keras_ckpt_tools.loading.run_checkpoint import built_on_in
from keras_ckpt_tools.matching import compare
from keras_ckpt_tools.matching.report import RestoreReport
from keras_ckpt_tools.metadata import OptimizerState, TensorInfo
from keras_ckpt_tools.registry import Registry

# Groups that hold no weights of a model.
_AROUND = (compare.OPTIMIZER_GROUP, compare.RANDOM_GROUP, "metrics/", OPTIMIZER, METRICS)


@dataclass(frozen=True)
class Plan:
    """What to build, and how.

    Attributes:
        config: The model's config, migrated, without compile configs where they were dropped.
        training_config: Compile arguments of an `.h5`, or `None`.
        allowed: The objects behind the names in them, and what else may be looked up.
        renamed: The names of classes when the file was saved, by their present names.
        registry: The registry with the versions of classes, or `None`.
        clock: Ends the build in time, or `None`.
    """

    config: dict[str, Any]
    training_config: dict[str, Any] | None
    allowed: Allowed
    renamed: Mapping[str, str] = field(default_factory=dict)
    registry: Registry | None = None
    clock: Clock | None = None

    @property
    def objects(self) -> Mapping[str, Any]:
        """The objects behind the names in the file, without Keras' own."""
        return self.allowed.objects

    @contextmanager
    def room(self, path: str) -> Iterator[None]:
        """Isolate the build, and add to errors what was being built."""
        with closed_room(self.allowed, self.config, self.training_config, path=path):
            try:
                # Innermost: the clock must not interrupt the cleanup of the isolation.
                with self.clock.running() if self.clock else nullcontext():
                    yield
            except Exception as error:
                error.add_note(f"Raised while the model of {path!r} was built from its config.")
                raise


def build_model(source: ModelSource, plan: Plan, left: dict[str, str] | None = None) -> Any:
    """Build and fill a model from a `.keras` archive or directory.

    Raises:
        ArtefactKindError: the config is not a model's.
        NotBuiltError: the file does not contain what the model has to be built with.
        RestoreError: the model and the tensors do not fit.
        DamagedArtefactError: tensors have changed.
    """
    optimizers_of(source)  # Now, because Keras removes inner optimizers from the config.
    with random_numbers_put_off() as put_off:
        model, captured = _model_of(source, plan, left is not None)
    if plan.config.get("compile_config") and _compiles_itself(model):
        why = f"`{type(model).__name__}` has a `compile` of its own, and no `compile_from_config`"
        if left is None:
            raise _not_compiled(source, why)
        left["compile"] = f"{why}; call `model.compile(...)` before you train it"
        model.compiled = False  # Keras has set it.
    optimizer = getattr(model, "optimizer", None)
    weights = _weights_for(source, model, plan)
    warn_of_lost_state(weights)
    if left is not None and (anew := with_new_variables(weights, model)) is not None:
        weights = anew
        left["optimizer"] = (
            "variables that are trainable now, but were not at the save, start without state; "
            "the state of the others is restored"
        )
    if plan.renamed:
        weights = with_old_names(weights, state.capture(model).values, plan.renamed)
    with tempfile.TemporaryDirectory(prefix=".kct-assets-") as folder:
        fill(
            model,
            with_fresh_optimizer(weights, model),
            assets=partial(source.extract_assets, folder) if source.has_assets else None,
            optimizer_may_differ=optimizer is None,
            left=left,
            exactly=True,
            captured=captured,
        )
    put_off.draw()
    return model


def _weights_for(source: ModelSource, model: Any, plan: Plan) -> TensorSource:
    if isinstance(source, OrbaxCheckpoint):
        return match_orbax(source, model)
    weights: TensorSource = source
    if isinstance(source, Source) and is_keras_2(source.metadata.get("keras_version")):
        weights = in_places_of_keras_3(source, model)
    return with_current_weights(weights, source.record, {"": model}, plan.registry)


def _model_of(source: ModelSource, plan: Plan, covering: bool) -> tuple[Any, Captured | None]:
    """Return the model with all of its variables, and what was captured of it or `None`."""
    with plan.room(source.path), warnings.catch_warnings():
        # It is part of the one warning.
        warnings.filterwarnings("ignore", message=r"`compile\(\)` was not called as part of")
        model = keras.saving.deserialize_keras_object(plan.config, custom_objects=plan.objects)
    # The preprocessing that `FeatureSpace.save()` writes is in the same format.
    if not isinstance(model, (keras.Model, keras.utils.FeatureSpace)):
        raise ArtefactKindError(
            f"The file holds a {type(model).__name__}, not a model.",
            received=f"path={source.path!r}",
            remedy="Save the model it belongs to with `model.save(path)`.",
            path=source.path,
            kind=type(model).__name__,
        )
    if not has_state(model) and _has_weights(source):
        raise not_built(source.path, type(model).__name__, _how_to_build(model))
    _wrap_optimizer_as_saved(model, source)
    captured = build_optimizers_as_saved(model, source, covering=covering)
    optimizer = getattr(model, "optimizer", None)
    # If the model was saved before it was built, its optimizer is built later.
    unbuilt = optimizer is not None and not optimizer.built
    if unbuilt and (is_whole(model) or _has_slots(source)):
        state.build_optimizer(optimizer, model.trainable_variables)
        captured = None
    return model, captured


def _has_weights(source: ModelSource) -> bool:
    """Return whether a source has more than the state of an optimizer, metrics and generators."""
    return any(not path.startswith(_AROUND) for path in source.tensors)


def _has_slots(source: ModelSource) -> bool:
    state_of = [path for path in source.tensors if path.startswith(compare.OPTIMIZER_GROUP)]
    return len(state_of) > compare.OF_NO_VARIABLE


def not_built(path: str, name: str, how: str) -> NotBuiltError:
    """Return the error for a subclassed model whose file does not contain its input shape."""
    return NotBuiltError(
        f"The file does not contain the input shape of the {name}, so the model has no variables "
        "to load weights into.",
        received=f"path={path!r}",
        remedy=f"Make the {name} yourself, {how}, and call `kct.load_weights(model, {path!r})`.",
        name=name,
    )


def _wrap_optimizer_as_saved(model: Any, source: ModelSource) -> None:
    """Use loss scaling only if the saved optimizer did.

    `compile` decides by the dtype policy of the model. Without one in the config, that is the
    program's.
    """
    optimizer = getattr(model, "optimizer", None)
    group = compare.OPTIMIZER_GROUP
    if optimizer is None or not any(path.startswith(group) for path in source.tensors):
        return
    inner = f"{group}inner_optimizer/"
    scaled = any(path.startswith(inner) for path in source.tensors)
    kind = keras.optimizers.LossScaleOptimizer
    if scaled and not hasattr(optimizer, "inner_optimizer"):
        model.optimizer = kind(optimizer, name="loss_scale_optimizer")
    elif not scaled and type(optimizer) is kind:
        model.optimizer = optimizer.inner_optimizer


def build_optimizers_as_saved(
    model: Any, source: Any, *, covering: bool = False
) -> Captured | None:
    """Build optimizers on the same variables as when they were saved.

    Args:
        model: The model.
        source: The file; its record has these variables.
        covering: Whether the compiled optimizer is also built on all variables that are trainable
            now, so that training can resume. An optimizer that Keras built otherwise is replaced.

    Returns:
        What was captured of the model; `None` if nothing was, or if an optimizer was built since.
    """
    compiled = getattr(model, "optimizer", None)
    if source.record is None or not source.record.optimizers:
        return None
    captured = state.capture(model)
    variables = captured.values
    changed = False
    for group, optimizer in state.optimizers_by_group(captured, model).items():
        known = built_on_in(source, group)
        if not all(path in variables for path in known):
            variables = captured.with_raw().values
        if not known or not all(path in variables for path in known):
            continue
        wanted = [variables[path] for path in known]
        if covering and optimizer is compiled:
            own = {id(v) for v in wanted}
            wanted += [v for v in model.trainable_variables if id(v) not in own]
        if not optimizer.built:
            optimizer.build(wanted)
            changed = True
        elif optimizer is compiled and not _is_built_on(optimizer, wanted):
            anew = type(compiled).from_config(compiled.get_config())
            anew.build(wanted)
            model.optimizer = anew
            changed = True
    return None if changed else captured


def _is_built_on(optimizer: Any, variables: Sequence[Any]) -> bool:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return [id(v) for v in getattr(inner, "_trainable_variables", ())] == [id(v) for v in variables]


def _not_compiled(source: ModelSource, why: str) -> RestoreError:
    return RestoreError(
        f"The file cannot compile its model: {why}. Nothing was loaded.",
        received=f"path={source.path!r}",
        remedy="Load it with `compile=False` and call `model.compile(...)`; or write "
        "`compile_from_config(self, config)` in the class, which calls `self.compile`, and "
        "`get_compile_config(self)`, which returns that config.",
        path=source.path,
        report=RestoreReport(source.path),
    )


def _compiles_itself(model: Any) -> bool:
    own = type(model)
    stock = keras.Model
    return own.compile is not stock.compile and own.compile_from_config is stock.compile_from_config


def _how_to_build(model: Any) -> str:
    if type(model).call in (keras.Model.call, keras.layers.Layer.call):
        return "call each of its layers on one batch of data (it has no `call` itself)"
    return "call it on one batch of data"


class _WithFreshOptimizer:
    """A source without optimizer state, completed with the state of a new optimizer."""

    def __init__(self, source: TensorSource, fresh: Mapping[str, Any]):
        self.path = source.path
        self.names = names_of(source)
        self.optimizers = {
            # It was not built on any variables yet.
            group: OptimizerState(one.class_name)
            for group, one in optimizers_of(source).items()
        }
        self.places = places_of(source)
        self._source = source
        self._fresh = fresh
        infos = {
            path: TensorInfo(path, tuple(value.shape), str(value.dtype))
            for path, value in fresh.items()
        }
        self.tensors = {**infos, **source.tensors}

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        paths = list(paths)
        fresh = {p: state.to_numpy(value) for p, value in self._fresh.items() if p in paths}
        return fresh | self._source.read_all(p for p in paths if p in self._source.tensors)


def with_fresh_optimizer(source: TensorSource, model: Any) -> TensorSource:
    """Return the source, completed if it was written before its optimizer had any state.

    Keras builds the state of an optimizer when training begins. A file that was saved earlier has
    only its step and learning rate. That is complete: there is nothing else to restore.
    """
    optimizer = getattr(model, "optimizer", None)
    group = compare.OPTIMIZER_GROUP
    saved = {path for path in source.tensors if path.startswith(group)}
    if optimizer is None or not saved or len(saved) >= len(optimizer.variables):
        return source
    unbuilt = type(optimizer).from_config(optimizer.get_config())
    if saved != {f"{group}{path}" for path in state.capture(unbuilt).values}:
        return source
    if int(optimizer.iterations) > 0:
        # Its present state is not a new one.
        unbuilt.build(model.trainable_variables)
        optimizer = unbuilt
    fresh = state.capture(optimizer).values
    return _WithFreshOptimizer(source, {f"{group}{path}": value for path, value in fresh.items()})


def with_old_names(
    source: TensorSource, expected: Iterable[str], renamed: Mapping[str, str]
) -> TensorSource:
    """Return the source with the tensors of renamed classes under their present paths.

    Args:
        source: The tensors, under the paths that the file has.
        expected: The paths that the model has.
        renamed: The name of each renamed class in the file, by its present name.
    """
    wanted = set(expected)
    old = {group_name(now): group_name(then) for now, then in renamed.items()}
    places: dict[str, str] = {}
    for path in wanted - set(source.tensors):
        place = "/".join(_translate(segment, old) for segment in path.split("/"))
        if place in source.tensors and place not in wanted:
            places[path] = place
    now = {then: now for now, then in renamed.items()}
    moved = set(places.values())
    stayed = {path: path for path in source.tensors if path not in moved}
    others = any(one.class_name in now for one in optimizers_of(source).values())
    if not places and not others:
        return source
    found = Relabelled(source, stayed | places)
    found.optimizers = {
        group: OptimizerState(now.get(one.class_name, one.class_name), one.built_on)
        for group, one in found.optimizers.items()
    }
    return found


def _translate(segment: str, old: Mapping[str, str]) -> str:
    if segment in old:
        return old[segment]
    # The second object of a class in one place is `residual_block_1`.
    name, _, number = segment.rpartition("_")
    return f"{old[name]}_{number}" if number.isdigit() and name in old else segment

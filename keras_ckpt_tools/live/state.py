"""Convert live Keras objects to named tensors and back.

Keras' own walk finds and names the state; this package's stores collect it. This module does not
know the source or target of the tensors. `restore` compares and undoes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import NotBuiltError
from keras_ckpt_tools.formats.layer_names import group_name
from keras_ckpt_tools.formats.tensor_source import Relabelled, TensorSource, left_alone_by
from keras_ckpt_tools.live.keras_walk import (
    has_call,
    has_state,
    is_whole,
    load_state,
    optimizers_of,
    parts_of,
    save_state,
    variables_of,
)
from keras_ckpt_tools.live.stores import (
    AssetsProbe,
    AssetsWhenAsked,
    Captured,
    CaptureStore,
    FillStore,
    Visited,
)
from keras_ckpt_tools.live.variables import (
    as_array,
    handle_of,
    read,
    variable_of,
)
from keras_ckpt_tools.matching.compare import (
    RANDOM_GROUP,
    RAW,
    is_raw,
    vars_beside,
)
from keras_ckpt_tools.matching.selection import ALL, Selection

# Variables are looked for in lists and dicts that are not nested deeper.
_LEVELS = 4
_MAY_HOLD = (keras.Variable, keras.random.SeedGenerator, list, tuple, dict)
# Number of paths by which an object is searched in a file.
_PATHS = 4


def capture(saveable: Any, skip: Iterable[Any] = ()) -> Captured:
    """Collect references to the state of an object, without copying any of it.

    That is all that Keras would save, and the state of the seed generators, which it leaves out.

    Args:
        saveable: A model, layer, optimizer or metric.
        skip: Objects inside it to leave out.
    """
    store = CaptureStore()
    skip = {id(item) for item in skip}
    optimizers = [one for one in optimizers_of(saveable) if id(one) not in skip]
    visited = Visited(store, skip)
    probe = AssetsProbe()
    with _silent_until_filled(saveable, store.captured), _by_reference(optimizers):
        save_state(saveable, weights_store=store, assets_store=probe, visited_saveables=visited)
    groups = visited.groups
    store.captured.optimizers.update(
        (groups[id(one)], (type(one).__name__, trained_by(one)))
        for one in optimizers
        if id(one) in groups
    )
    values = store.captured.values
    seeds = _seed_states(saveable)
    for index, variable in enumerate(seeds):
        values[f"{RANDOM_GROUP}{index}"] = variable
    return dataclasses.replace(
        store.captured,
        has_assets=probe.asked_for,
        visited=frozenset(visited),
        groups=groups,
        find_raw=functools.partial(_raw_of, saveable, groups, values.values()),
        holders=_holders(saveable, groups, store.captured.asked),
    )


@contextmanager
def _by_reference(optimizers: Iterable[Any]) -> Iterator[None]:
    """Let optimizers of Keras' own hand out their variables, where Keras would copy each."""
    stock = [one for one in optimizers if _hands_out_copies(one)]
    for one in stock:
        # Not by `setattr`, which Keras and TensorFlow would track.
        vars(one)["save_own_variables"] = functools.partial(_hand_out, one)
    try:
        yield
    finally:
        for one in stock:
            del vars(one)["save_own_variables"]


def _hand_out(optimizer: Any, store: Any) -> None:
    store.update((str(index), variable) for index, variable in enumerate(optimizer.variables))


def optimizers_by_group(captured: Captured, saveable: Any) -> dict[str, Any]:
    """Return the optimizers of an object by the group that each has in what was captured."""
    return {
        captured.groups[id(one)]: one
        for one in optimizers_of(saveable)
        if id(one) in captured.groups
    }


def _raw_of(saveable: Any, groups: Mapping[int, str], written: Iterable[Any]) -> dict[str, Any]:
    """Return the variables of layers that Keras' layout does not hold as they are, by path.

    A layer may not save all variables (the states of a stateful RNN), or save a derived value (a
    kernel with its adapters merged). They are found by comparing a layer's variables with what it
    saved.
    """
    known = {id(value) for value in written}
    for optimizer in optimizers_of(saveable):
        known.update(map(id, optimizer.variables))
    found: dict[str, Any] = {}
    for number, part in enumerate(parts_of(saveable)):
        kind = group_name(type(part).__name__)
        # Keras before 3.13 skips layers in nested containers.
        group = groups.get(id(part), f"{RAW}/{kind}_{number}")
        prefix = f"{group}/{RAW}/" if group else f"{RAW}/"
        own = [v for v in _own_variables(part) if id(v) not in known]
        known.update(map(id, own))
        found |= {f"{prefix}{index}": variable for index, variable in enumerate(own)}
    return found


def _own_variables(layer: Any) -> Iterator[Any]:
    """Yield the variables in the attributes of a layer, those of other objects not included."""
    yield from layer._trainable_variables
    yield from layer._non_trainable_variables
    for name, value in list(vars(layer).items()):
        # TensorFlow's second names for the same objects begin so.
        if isinstance(value, _MAY_HOLD) and not name.startswith("_self_"):
            yield from _variables_in(value, ())


def _variables_in(value: Any, around: tuple[int, ...]) -> Iterator[Any]:
    if isinstance(value, keras.Variable):
        yield value
    elif isinstance(value, keras.random.SeedGenerator):
        yield value.state
    elif (
        isinstance(value, (list, tuple, dict))
        and len(around) < _LEVELS
        and id(value) not in around  # A list may contain itself.
    ):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _variables_in(item, (*around, id(value)))


def _holders(saveable: Any, groups: Mapping[int, str], asked: Iterable[str]) -> frozenset[str]:
    """Return the groups above others that belong to objects and not to lists, and have no name."""
    objects = {
        groups[id(one)]: one
        for one in (*parts_of(saveable), *optimizers_of(saveable))
        if id(one) in groups
    }
    objects.setdefault("", saveable)
    named = {path.removesuffix("vars").rstrip("/") for path in asked}
    above = {group.rpartition("/")[0] for group in named} - named - {""}
    found = set()
    for group in sorted(above):
        parent, _, attribute = group.rpartition("/")
        value = getattr(objects.get(parent), attribute, None)
        if isinstance(value, internals.KerasSaveable):
            objects[group] = value
            found.add(group)
    return frozenset(found)


@contextmanager
def _silent_until_filled(saveable: Any, captured: Captured) -> Iterator[None]:
    """Let lookup layers without a table return nothing, where Keras' own method would raise."""
    empty = [layer for layer in parts_of(saveable) if _has_no_weights_yet(layer)]
    for layer in empty:
        layer.save_own_variables = lambda store: captured.unknown.append(store.prefix)
    try:
        yield
    finally:
        for layer in empty:
            del layer.save_own_variables


def _has_no_weights_yet(layer: Any) -> bool:
    # TF-IDF, whose weights are set with the vocabulary.
    looks_up = getattr(layer, "output_mode", None) == "tf_idf" and hasattr(layer, "get_vocabulary")
    return looks_up and not hasattr(layer, "idf_weights_const")


def at_other_paths(
    source: TensorSource, saveable: Any, captured: Captured, selection: Selection = ALL
) -> TensorSource:
    """Return the source with tensors under the paths by which the walk finds their objects first.

    Keras' walk reads properties too, so an object may have several paths: an attribute, and the
    property that kept its old name. Keras looks at all of them; a file has one.

    Args:
        source: The tensors.
        saveable: A model, layer, optimizer or metric.
        captured: What `capture` has found in it.
        selection: Which tensors are meant. Where the user has renamed some, nothing is done.
    """
    ours = {path.rpartition("/")[0] for path in captured.values}
    theirs = {path.rpartition("/")[0] for path in source.tensors}
    lacking, surplus = ours - theirs, theirs - ours
    if not lacking or not surplus or selection.rename is not None:
        return source
    moved: dict[str, str] = {}
    for path, others in _paths_of_objects(saveable, captured):
        if path in lacking and (other := next((p for p in others if p in surplus), None)):
            moved[other] = path
            surplus.remove(other)
    if not moved:
        return source
    groups = {path: path.rpartition("/")[0] for path in source.tensors}
    found = Relabelled(
        source,
        {moved.get(group, group) + path[len(group) :]: path for path, group in groups.items()},
    )
    found.left_alone = left_alone_by(source)
    return found


class _Counted(set[int]):
    """The objects that a walk has met, each of which it may meet a few times."""

    def __init__(self, store: CaptureStore):
        super().__init__()
        self._store = store
        self.paths: dict[int, list[str | None]] = {}

    def __contains__(self, key: object) -> bool:
        return len(self.paths.get(key, ())) >= _PATHS  # type: ignore[call-overload]

    def add(self, key: int) -> None:
        last, self._store.last = self._store.last, None
        self.paths.setdefault(key, []).append(None if last is None else _own_of(last))


def _own_of(group: str) -> str:
    return f"{group}/vars" if group else "vars"


def _paths_of_objects(saveable: Any, captured: Captured) -> Iterator[tuple[str, list[str]]]:
    """Yield the path of the state of each object, and the others by which the walk meets it."""
    store = CaptureStore()
    met = _Counted(store)
    optimizers = optimizers_of(saveable)
    with _silent_until_filled(saveable, store.captured), _by_reference(optimizers):
        save_state(saveable, weights_store=store, assets_store=None, visited_saveables=met)
    for key, group in captured.groups.items():
        yield _own_of(group), [path for path in met.paths.get(key, ()) if path is not None]


def trained_by(optimizer: Any) -> list[Any]:
    """Return the variables that an optimizer was built on and has state of, in its order."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    trained = getattr(inner, "_trainable_variables", ())
    # Scales of float8 are overwritten, not updated: an optimizer has no state of them, and where
    # they stand among the others depends on when the layer was quantized.
    return [v for v in trained if not getattr(v, "overwrite_with_gradient", False)]


def _hands_out_copies(optimizer: Any) -> bool:
    """Return whether it is known what an optimizer would save: copies of its variables."""
    method = type(optimizer).save_own_variables
    return method is keras.optimizers.Optimizer.save_own_variables


def _seed_states(saveable: Any) -> list[Any]:
    # They are among the variables of a model and of no layer's own.
    return [
        variable
        for variable in getattr(saveable, "non_trainable_variables", ())
        if variable.name == "seed_generator_state"
    ]


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """Return the present value of a variable or array as a NumPy array of its own."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if (handle := handle_of(value)) is not None:
        return np.array(as_array(read(handle)))  # A tenth of the time that `.numpy()` takes.
    value = variable_of(value)
    if hasattr(value, "numpy") and keras.backend.backend() != "torch":
        return np.asarray(value.numpy())
    return np.array(ops.convert_to_numpy(value))  # JAX returns its own memory, and reuses it.


class Refused(Exception):
    """Layers refused their state. Attribute: `reasons`, pairs of a layer and its error."""

    def __init__(self, reasons: list[tuple[Any, Exception]]):
        super().__init__("; ".join(str(error) for _, error in reasons))
        self.reasons = reasons


def completed(arrays: Mapping[str, Any], captured: Captured) -> dict[str, Any]:
    """Return what is to be restored, and the present values of all that is not.

    A layer of which nothing is restored keeps its variables as they are. One that is restored from
    Keras' layout alone has made its other variables of that.
    """
    restored = {path.rpartition("/")[0] for path in arrays}
    return dict(arrays) | {
        path: to_numpy(value)
        for path, value in captured.with_raw().values.items()
        if path not in arrays and not (is_raw(path) and vars_beside(path) in restored)
    }


def pour(
    saveable: Any,
    arrays: dict[str, Any],
    assets: Callable[[str], str | None] | None = None,
    skip: Iterable[Any] = (),
    captured: Captured | None = None,
) -> None:
    """Assign arrays to an object through Keras' own walk. If it raises, `remember` undoes it.

    Args:
        saveable: The object.
        arrays: What it is to have, by path.
        assets: See `AssetsWhenAsked`, or `None`.
        skip: Objects inside it to leave out.
        captured: What `capture` has found in it, where that is known.

    Raises:
        Refused: layers refused their state.
    """
    direct: dict[str, Any] = {}
    complete: list[Any] = []
    if any(map(is_raw, arrays)):
        captured = captured or capture(saveable, skip)
        direct, complete = _known_as_they_are(saveable, captured, arrays)
    for index, variable in enumerate(_seed_states(saveable)):
        if (path := f"{RANDOM_GROUP}{index}") in arrays:
            variable.assign(arrays[path])
    refused: dict[int, tuple[Any, Exception]] = {}
    with _not_asked(complete):
        load_state(
            saveable,
            weights_store=FillStore(arrays),
            assets_store=AssetsWhenAsked(assets) if assets else None,
            visited_saveables={id(item) for item in skip},
            failed_saveables=set(),
            error_msgs=refused,
        )
    if refused:
        raise Refused(list(refused.values()))
    # Last, because a layer's own method may have changed them.
    for path, variable in direct.items():
        variable.assign(arrays[path])


def _known_as_they_are(
    saveable: Any, captured: Captured, arrays: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    """Return the variables of layers of which each is in `arrays`, by path; and those layers.

    Keras' own layers need not be asked to load what they have made of their variables for a save:
    some refuse that, or count as calibrated from then on. A layer of the user's is asked, because
    there may be more to it than variables.
    """
    groups = {path.rpartition(f"{RAW}/")[0] for path in captured.raw if path in arrays}
    direct = {
        path: value
        for path, value in captured.with_raw().values.items()
        if path in arrays
        and isinstance(value, keras.Variable)
        and path.rpartition("/")[0].removesuffix(RAW).removesuffix("vars") in groups
    }
    layers = _by_group(saveable, captured).items()
    return direct, [
        layer
        for group, layer in layers
        if (f"{group}/" if group else "") in groups
        and type(layer).load_own_variables.__module__.startswith("keras.")
    ]


@contextmanager
def _not_asked(layers: Iterable[Any]) -> Iterator[None]:
    layers = list(layers)
    for layer in layers:
        vars(layer)["load_own_variables"] = lambda store: None
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["load_own_variables"]


def remember(saveable: Any) -> Callable[[], None]:
    """Return what gives an object's variables and flags of calibration their present values."""
    own = [variable for part in parts_of(saveable) for variable in _own_variables(part)]
    variables = {id(one): one for one in (*variables_of(saveable), *own)}
    before = [(variable, held(variable)) for variable in variables.values()]
    flags = calibrated(saveable)

    def undo() -> None:
        for variable, value in before:
            variable.assign(value)
        set_calibrated(saveable, flags)

    return undo


def held(variable: Any) -> Any:
    """Return the present value of a variable, which no later assignment changes."""
    if (handle := handle_of(variable)) is not None:
        return read(handle)
    value = variable_of(variable)
    if hasattr(value, "read_value"):  # TensorFlow: shares the buffer until the next assignment.
        return value.read_value()
    if hasattr(value, "detach"):  # PyTorch: assignments write into the buffer.
        return value.detach().clone()
    return value


def build_like(
    saveable: Any,
    build_config: Mapping[str, Any] | None,
    name: str,
    parts: Mapping[str, Any] | None = None,
) -> None:
    """Build a model or layer that has no variables yet from what it was built with when saved.

    Args:
        saveable: The model or layer.
        build_config: What it was built with.
        name: What it is called, for messages.
        parts: What its layers were built with, by group; see `built_parts`.

    Raises:
        NotBuiltError: the shape is not on record, or does not build it.
    """
    if not parts_of(saveable) or is_whole(saveable):
        return
    if build_config and not getattr(saveable, "built", True):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            saveable.build_from_config(dict(build_config))
        failed = any("cannot be built automatically" in str(one.message) for one in told)
        if saveable.variables and not failed:
            # Keras builds the layers of a subclassed model by a trial run, and forgets its flag.
            saveable.built = True
    if parts and not is_whole(saveable):
        _build_parts(saveable, parts)
    if not has_state(saveable):
        raise not_built(saveable, name, "restored")


def built_parts(saveable: Any) -> dict[str, Any]:
    """Return what the layers of a model were built with, by group, where its own does not say.

    A model without `call` has no build config, and may have layers that the first batch builds. So
    may one that Keras has marked as built, and could not build by a trial run of its `call`.
    """
    if hasattr(saveable, "operations") or not parts_of(saveable):
        return {}  # A functional model (in one that is sequential, too) is built when it is made.
    configs = {
        group: layer.get_build_config() for group, layer in _layers_by_group(saveable).items()
    }
    return {group: config for group, config in configs.items() if group and config}


def _build_parts(saveable: Any, parts: Mapping[str, Any]) -> None:
    layers = _layers_by_group(saveable)
    for group in sorted(parts):
        layer = layers.get(group)
        if layer is not None and not layer.built:
            # Layers that cannot be built are missing in the comparison that follows.
            with contextlib.suppress(Exception):
                layer.build_from_config(dict(parts[group]))


def calibrated(saveable: Any) -> dict[str, dict[str, bool]]:
    """Return whether quantized layers have been calibrated, by group.

    Keras keeps that in attributes (`is_gptq_calibrated`), computes by them, and sets them at every
    load.
    """
    if all(getattr(part, "quantization_mode", None) is None for part in parts_of(saveable)):
        return {}
    flags = {group: _flags_of(layer) for group, layer in _layers_by_group(saveable).items()}
    return {group: found for group, found in flags.items() if found}


def set_calibrated(saveable: Any, flags: Mapping[str, Mapping[str, bool]]) -> None:
    """Give quantized layers what `calibrated` returned."""
    layers = _layers_by_group(saveable) if flags else {}
    for group, layer in layers.items():
        for name, value in flags.get(group, {}).items():
            if name in _flags_of(layer):
                setattr(layer, name, bool(value))


def _flags_of(layer: Any) -> dict[str, bool]:
    return {
        name: value
        for name, value in vars(layer).items()
        if isinstance(value, bool) and name.startswith("is_") and name.endswith("_calibrated")
    }


def _layers_by_group(saveable: Any) -> dict[str, Any]:
    return _by_group(saveable, capture(saveable))


def _by_group(saveable: Any, captured: Captured) -> dict[str, Any]:
    groups = captured.groups
    return {groups[id(one)]: one for one in parts_of(saveable) if id(one) in groups}


def not_built(saveable: Any, name: str, what: str) -> NotBuiltError:
    """Return the error about an object without variables.

    Args:
        saveable: The object.
        name: What it is called.
        what: What cannot be done with it: `"saved"` or `"restored"`.
    """
    kind = type(saveable).__name__
    remedy = "Call it on one batch of data, or call its `build(input_shape)`, first."
    if not has_call(saveable):
        layers = [lay.name for lay in saveable._flatten_layers(False, False) if not lay.built]
        remedy = (
            f"{kind} has no `call`, so build its layers first, with `layer.build(input_shape)` or "
            f"by calling each on one batch of data: {', '.join(layers) or 'it has none yet'}."
        )
    return NotBuiltError(
        f"The {kind} {name!r} is not built: it has no variables yet that can be {what}.",
        received=f"{name}={saveable!r}",
        remedy=remedy,
        name=name,
    )


def build_optimizer(optimizer: Any, variables: Iterable[Any]) -> None:
    """Make the state of an optimizer exist, so that it can be compared and restored."""
    variables = list(variables)
    if isinstance(optimizer, keras.optimizers.Optimizer) and not optimizer.built and variables:
        optimizer.build(variables)

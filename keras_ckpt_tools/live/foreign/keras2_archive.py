"""Read the tensors of a `.keras` file of Keras 2 under Keras 3's paths.

The layouts differ in a few names. Keras 2 walks the attributes of a model in reverse alphabetical
order, and `layers` is one of them: layers in attributes after `layers` in the alphabet are saved
under their attribute, others under `layers`. Optimizer state is found by `keras_2_slots`.

Source: `saving_lib.py` of Keras 2.15, `_walk_trackable`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.layer_names import group_name
from keras_ckpt_tools.formats.tensor_source import ModelSource, TensorSource
from keras_ckpt_tools.live import state
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP, RANDOM_GROUP
from keras_ckpt_tools.metadata import TensorInfo
from keras_ckpt_tools.showing.messages import warn

_VARS = f"{OPTIMIZER_GROUP}vars/"
# Attributes of a layer of Keras 2 that Keras 3 has under another name.
_ATTRIBUTES = re.compile(r"/_(query|key|value|output)_dense/")


_CONTAINERS = (list, tuple, set, ValuesView)
_NOT_WEIGHTS = (OPTIMIZER_GROUP, RANDOM_GROUP)


class _Moved:
    """Tensors of a source under other names, plus some arrays in memory."""

    def __init__(self, source: TensorSource, places: dict[str, str], fresh: dict[str, Any]):
        self.path = source.path
        self._source, self._places, self._fresh = source, places, fresh
        self._dtypes = {path: str(value.dtype) for path, value in fresh.items()}
        self.tensors = {
            path: TensorInfo(path, tuple(value.shape), str(value.dtype))
            for path, value in fresh.items()
        }
        for path, place in places.items():
            info = source.tensors[place]
            self.tensors[path] = TensorInfo(path, info.shape, info.dtype)

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by path."""
        paths = list(paths)
        stored = {path: self._places[path] for path in paths if path in self._places}
        arrays = self._source.read_all(stored.values())
        found = {path: arrays[place] for path, place in stored.items()}
        return found | {p: state.to_numpy(v) for p, v in self._fresh.items() if p in paths}


def weights_of_keras_2(source: ModelSource, model: Any) -> TensorSource | None:
    """Return the tensors of a `.weights.h5`, if only a file of Keras 2 has them at such places.

    Such a file does not say which version wrote it.
    """
    if source.kind is not Kind.H5_WEIGHTS or source.record is not None:
        return None
    expected = {p for p in state.capture(model).values if not p.startswith(_NOT_WEIGHTS)}
    found = source.tensors.keys()
    if expected <= found and all(p.startswith(_NOT_WEIGHTS) for p in found - expected):
        return None
    moved = in_places_of_keras_3(source, model, may_lack_optimizer=True)
    return moved if expected <= moved.tensors.keys() else None


def in_places_of_keras_3(
    source: ModelSource, model: Any, *, may_lack_optimizer: bool = False
) -> TensorSource:
    """Return the tensors of a `.keras` that Keras 2 wrote, under the paths of a live model.

    Args:
        source: The file.
        model: The model that was built from it, its optimizer built as well.
        may_lack_optimizer: Whether it may have been saved without an optimizer.
    """
    # Metrics hold the state of a past epoch.
    metrics = [n for n, v in vars(model).items() if isinstance(v, keras.metrics.Metric)]
    passed_over = (_VARS, "metrics/", *(f"{name}/" for name in metrics))
    groups = dict(_moved_groups(model, state.capture(model).groups, ""))
    places = {
        _present(path, groups): path for path in source.tensors if not path.startswith(passed_over)
    }
    optimizer = getattr(model, "optimizer", None)
    count = sum(path.startswith(_VARS) for path in source.tensors)
    if optimizer is None or (may_lack_optimizer and not count):
        return _Moved(source, places | {f"{_VARS}{i}": f"{_VARS}{i}" for i in range(count)}, {})
    live = {f"{_VARS}{index}": value for index, value in enumerate(optimizer.variables)}
    if not count:
        warn(
            f"{source.path!r} has no state of its {type(optimizer).__name__}, as Keras 2 did not "
            "save that of its older optimizers in `.keras`; the optimizer is reinitialized.",
            UserWarning,
            stacklevel=6,
        )
        return _Moved(source, places, live)
    shapes = [source.tensors[f"{_VARS}{index}"].shape for index in range(count)]
    found = arrange(optimizer, shapes)
    if not found.fits:
        return _Moved(source, places | {f"{_VARS}{i}": f"{_VARS}{i}" for i in range(count)}, {})
    taken = {p: f"{_VARS}{found.places[id(v)]}" for p, v in live.items() if id(v) in found.places}
    fresh = {path: value for path, value in live.items() if path not in taken}
    product = getattr(optimizer, "_u_product", None)
    if product is not None:
        steps = int(source.read(f"{_VARS}{found.places[id(optimizer._iterations)]}"))
        fresh |= {
            path: np.asarray(momentum_product(optimizer, steps), str(product.dtype))
            for path, value in fresh.items()
            if value is product
        }
    return _Moved(source, places | taken, fresh)


def _present(path: str, groups: Mapping[str, str]) -> str:
    path = path.replace("_layer_checkpoint_dependencies", "layers")
    above = max((g for g in groups if path.startswith(f"{g}/")), key=len, default=None)
    if above is not None:
        path = groups[above] + path[len(above) :]
    return _ATTRIBUTES.sub(r"/\1_dense/", path)


def _moved_groups(model: Any, groups: Mapping[int, str], then: str) -> Iterator[tuple[str, str]]:
    """Yield what Keras 2 called the groups of the layers of a model, and what they are called now.

    Args:
        model: The model.
        groups: The group of each object, by its `id`.
        then: The group of the model in the file, with a slash behind it, or empty.
    """
    behind = dict(_layers_behind(model))
    counted = _Counted()
    for layer in model.layers:
        group = groups.get(id(layer))
        if group is None:
            continue
        was = then + (behind.get(id(layer)) or f"layers/{counted.name(layer)}")
        yield was, group
        if isinstance(layer, keras.Model):
            yield from _moved_groups(layer, groups, f"{was}/")


def _layers_behind(model: Any) -> Iterator[tuple[int, str]]:
    """Yield each layer in an attribute whose name comes behind `layers`, and where it is saved."""
    seen: set[int] = set()
    for name, value in sorted(vars(model).items(), reverse=True):
        if name <= "layers":
            return
        alone = isinstance(value, keras.layers.Layer)
        items = value.values() if isinstance(value, dict) else value
        counted = _Counted()
        for item in [value] if alone else items if isinstance(items, _CONTAINERS) else ():
            if isinstance(item, keras.layers.Layer) and id(item) not in seen:
                seen.add(id(item))
                yield id(item), name if alone else f"{name}/{counted.name(item)}"


class _Counted:
    """Names in one container: the class of each, with a number where there are several."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def name(self, layer: Any) -> str:
        kind = group_name(type(layer).__name__)
        number = self._used[kind] = self._used.get(kind, -1) + 1
        return f"{kind}_{number}" if number else kind


_ADAM = {"m": "_momentums", "v": "_velocities", "vhat": "_velocity_hats"}
# What Keras 2 calls a slot, and where Keras 3 keeps it; by class, in the order of Keras 2.
_SLOTS: dict[str, dict[str, str]] = {
    "Adadelta": {
        "accumulated_grad": "_accumulated_grads",
        "accumulated_delta_var": "_accumulated_delta_vars",
        "accum_grad": "_accumulated_grads",
        "accum_var": "_accumulated_delta_vars",
    },
    "Adagrad": {"accumulator": "_accumulators"},
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "Adamax": {"m": "_m", "u": "_u", "v": "_u"},
    "Ftrl": {"accumulator": "_accumulators", "linear": "_linears"},
    "Lion": {"m": "_momentums"},
    "Nadam": {"m": "_momentums", "v": "_velocities"},
    "RMSprop": {
        "velocity": "_velocities",
        "rms": "_velocities",
        "momentum": "_momentums",
        "average_gradient": "_average_gradients",
        "mg": "_average_gradients",
    },
    "SGD": {"m": "momentums", "momentum": "momentums"},
}
_AVERAGE = ("average", "_model_variables_moving_average")
# Kept one after the other, each for all variables; all others are kept variable by variable.
_APART = ("_velocity_hats", _AVERAGE[1])
# After this, each step multiplies by the same; the number of steps comes from the file.
_SETTLED = 1000
_ITERATION = ("iteration", "iter", "iterations")


@dataclass(frozen=True)
class Arranged:
    """Where the values of a file belong.

    Attributes:
        places: The index in the file of each live variable's value, by `id` of the variable.
        fits: Whether each value of the file has its place, and each slot its value.
    """

    places: Mapping[int, int]
    fits: bool


def arrange(
    optimizer: Any,
    shapes: Sequence[tuple[int, ...]],
    names: Sequence[str] = (),
    variables: Mapping[str, int] | None = None,
) -> Arranged:
    """Match what a file has of an optimizer with a live one.

    Args:
        optimizer: The live one, built.
        shapes: Of the values in the file, in their order.
        names: Their names, where the file has them.
        variables: The index of each trained variable, by its name in the file.
    """
    kind = next((k.__name__ for k in type(optimizer).__mro__ if k.__name__ in _SLOTS), None)
    if kind is None:
        return Arranged({}, not shapes)
    parts = list(_by_name(kind, names, variables or {}) if names else _by_order(kind, optimizer))
    trained = list(getattr(optimizer, "_trainable_variables", ()))
    places: dict[int, int] = {}
    fits = len(parts) == len(shapes)
    for position, (attribute, index) in enumerate(parts[: len(shapes)]):
        if attribute == "_iterations":
            places[id(optimizer._iterations)] = position
            continue
        slots = getattr(optimizer, attribute, None) or ()
        if attribute == "momentums" and not slots and 0 <= index < len(trained):
            continue  # SGD without momentum: Keras 2 keeps zeros.
        slot = slots[index] if 0 <= index < len(slots) else None
        if slot is not None and tuple(slot.shape) == shapes[position] and id(slot) not in places:
            places[id(slot)] = position
        else:
            fits = False
    needed = sum(len(getattr(optimizer, slot, None) or ()) for slot in _attributes(kind))
    return Arranged(places, fits and len(places) == needed + 1)


def momentum_product(optimizer: Any, steps: int) -> float:
    """Return the product of momenta that Nadam has after so many steps; Keras 2 does not save it.

    >>> class Nadam:
    ...     beta_1 = 0.9
    >>> round(momentum_product(Nadam, 1), 6)
    0.468
    """
    beta, product = float(optimizer.beta_1), 1.0
    for step in range(1, min(steps, _SETTLED) + 1):
        product *= beta * (1.0 - 0.5 * math.pow(0.96, step))
    with np.errstate(all="ignore"):
        return product * float(np.power(beta, max(steps - _SETTLED, 0)))


def _attributes(kind: str) -> list[str]:
    return list(dict.fromkeys([_AVERAGE[1], *_SLOTS[kind].values()]))


def _by_order(kind: str, optimizer: Any) -> Iterator[tuple[str, int]]:
    """Yield the slots in the order in which the newer optimizers of Keras 2 keep them."""
    yield "_iterations", 0
    number = len(getattr(optimizer, "_trainable_variables", ()))
    present = [a for a in _attributes(kind) if getattr(optimizer, a, None)]
    if kind == "SGD" and "momentums" not in present:
        present.append("momentums")
    # RMSprop keeps all of them so.
    together = [] if kind == "RMSprop" else [a for a in present if a not in _APART]
    apart = [a for a in present if a not in together]
    if _AVERAGE[1] in apart:
        apart.remove(_AVERAGE[1])
        yield from ((_AVERAGE[1], index) for index in range(number))
    yield from ((attribute, index) for index in range(number) for attribute in together)
    yield from ((attribute, index) for attribute in apart for index in range(number))


def _by_name(
    kind: str, names: Sequence[str], variables: Mapping[str, int]
) -> Iterator[tuple[str, int]]:
    slots = dict([_AVERAGE]) | _SLOTS[kind]
    known = {_plain(name): index for name, index in variables.items()}
    unique = len(known) == len(variables)
    counts: dict[str, int] = {}
    for name in names:
        parts = _plain(name).split("/")
        if parts[-1] in _ITERATION:
            yield "_iterations", 0
            continue
        if len(parts) > 2 and parts[1] in slots:
            slot, rest = parts[1], parts[2:]
        else:
            slot, rest = parts[-1].rstrip("_0123456789"), parts[:-1]
        if slot not in slots:
            yield "", -1
            continue
        at = counts[slot] = counts.get(slot, -1) + 1
        found = _longest(rest, known) if unique else None
        yield slots[slot], at if found is None else found


def _longest(parts: Sequence[str], known: Mapping[str, int]) -> int | None:
    """Return the variable whose name ends a slot's; the longest such name counts."""
    for start in range(len(parts)):
        if (found := known.get("/".join(parts[start:]))) is not None:
            return found
    return None


def _plain(name: str) -> str:
    return name.partition(":")[0]

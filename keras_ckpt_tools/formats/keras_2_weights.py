"""The tensors of a `.keras` that Keras 2 wrote, under Keras 3's paths: source -> *names* -> fill.

The two lay weights out alike but for a few names. Keras 2 goes through the attributes of a model
from the last letter to the first, and `layers` is one of them: what an attribute in front of that
holds is not under its name, but under `layers`. The state of an optimizer stands there by its
order, which `keras_2_slots` knows.

Source: `saving_lib.py` of Keras 2.15, `_walk_trackable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, ValuesView
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools.formats import state
from keras_ckpt_tools.formats.comparison import OPTIMIZER_GROUP, RANDOM_GROUP
from keras_ckpt_tools.formats.keras_2_slots import arrange, momentum_product
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.naming import group_name
from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.metadata import TensorInfo
from keras_ckpt_tools.showing.messages import warn

__all__ = ["in_places_of_keras_3", "weights_of_keras_2"]

_VARS = f"{OPTIMIZER_GROUP}vars/"
# Attributes of a layer of Keras 2 that Keras 3 has under another name.
_ATTRIBUTES = re.compile(r"/_(query|key|value|output)_dense/")


_CONTAINERS = (list, tuple, set, ValuesView)
_NOT_WEIGHTS = (OPTIMIZER_GROUP, RANDOM_GROUP)


class _Moved:
    """Tensors of a source under other names, beside some that are here already."""

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


def weights_of_keras_2(source: Source, model: Any) -> TensorSource | None:
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
    source: Source, model: Any, *, may_lack_optimizer: bool = False
) -> TensorSource:
    """Return the tensors of a `.keras` that Keras 2 wrote, under the paths of a live model.

    Args:
        source: The file.
        model: The model that was built from it, its optimizer built as well.
        may_lack_optimizer: Whether it may have been saved without an optimizer.
    """
    # What metrics counted is of an epoch that is over.
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
            "save that of its older optimizers in `.keras`; the optimizer starts afresh.",
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

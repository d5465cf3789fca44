"""The tensors of a `.keras` that Keras 2 wrote, under Keras 3's paths: source -> *names* -> fill.

The two lay weights out alike but for a few names. The state of an optimizer stands there by its
order, which `keras_2_slots` knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_ckpt_tools.formats import state
from keras_ckpt_tools.formats.comparison import OPTIMIZER_GROUP
from keras_ckpt_tools.formats.keras_2_slots import arrange, momentum_product
from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.metadata import TensorInfo
from keras_ckpt_tools.showing.messages import warn

__all__ = ["in_places_of_keras_3"]

_VARS = f"{OPTIMIZER_GROUP}vars/"
# Attributes of a layer of Keras 2 that Keras 3 has under another name.
_ATTRIBUTES = re.compile(r"/_(query|key|value|output)_dense/")


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


def in_places_of_keras_3(source: Source, model: Any) -> TensorSource:
    """Return the tensors of a `.keras` that Keras 2 wrote, under the paths of a live model.

    Args:
        source: The file.
        model: The model that was built from it, its optimizer built as well.
    """
    # What metrics counted is of an epoch that is over.
    passed_over = (_VARS, "metrics/")
    places = {_present(path): path for path in source.tensors if not path.startswith(passed_over)}
    optimizer = getattr(model, "optimizer", None)
    count = sum(path.startswith(_VARS) for path in source.tensors)
    if optimizer is None:
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


def _present(path: str) -> str:
    path = path.replace("_layer_checkpoint_dependencies", "layers")
    return _ATTRIBUTES.sub(r"/\1_dense/", path)

"""Collect what a `.keras` file holds besides weights: config, metadata and files of layers.

Describing a model of 1,000 layers takes Keras a third of a second, so the config is reused while
the fingerprint of the model is unchanged. Files of layers (vocabularies) are collected at each
save.
"""

from __future__ import annotations

import functools
import json
import operator
import time
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.formats.common.contents import Documents
from keras_ckpt_tools.live.keras_walk import save_state
from keras_ckpt_tools.live.state import to_numpy

__all__ = ["ASSETS_FOLDER", "Describer", "Documents"]

ASSETS_FOLDER = "assets"


class Describer:
    """Describes one model repeatedly. Holds references to the model's parts."""

    def __init__(self) -> None:
        self._fingerprint: Fingerprint | None = None
        self._config = ""

    def describe(self, model: Any, *, has_assets: bool) -> Documents:
        """Return the present documents of a model.

        Args:
            model: The model.
            has_assets: Whether anything in it saves files.
        """
        found = fingerprint(model)
        if found is None or found != self._fingerprint:
            self._config, _ = internals.serialize_model_as_json(model)
        self._fingerprint = found
        return Documents(self._config, _metadata(), _assets_of(model) if has_assets else {})


def _metadata() -> str:
    now = time.strftime("%Y-%m-%d@%H:%M:%S")
    return json.dumps({"keras_version": keras.__version__, "date_saved": now})


def _assets_of(model: Any) -> dict[str, bytes]:
    store = internals.DiskIOStore(ASSETS_FOLDER, mode="w")
    try:
        save_state(
            model,
            weights_store=_NoWeights(),
            assets_store=store,
            visited_saveables=set(),
        )
        root = Path(store.working_dir)
        files = (path for path in sorted(root.rglob("*")) if path.is_file())
        return {f"{ASSETS_FOLDER}/{p.relative_to(root).as_posix()}": p.read_bytes() for p in files}
    finally:
        store.close()


class _NoWeights(internals.H5IOStore):
    """Keras before 3.12 insists on a weights store even where only assets are saved."""

    def __init__(self) -> None:
        """Open nothing."""

    def __bool__(self) -> bool:
        return False


# Compared as they are. That 1, 1.0 and True are equal is as Keras takes them.
_AS_IT_IS = frozenset(
    {str, int, bool, float, complex, bytes, types.NoneType, types.EllipsisType}
    | {types.FunctionType, types.BuiltinFunctionType, types.ModuleType}
)
# What no config is made of: bookkeeping, variables, compiled functions, and what `fit` leaves
# behind. Tests change every attribute of every class of Keras, so what is wrong here is found.
_ASIDE = tuple(
    "_self_ _tracker _tracked _obj_reference_counts _call_ _input_spec "
    "_trainable_variables _non_trainable_variables _loss _metrics _seed_generators "
    "train_function test_function predict_function "
    "history stop_training _initial_epoch _eval_epoch_iterator _outbound_nodes".split()
)
_RATE = "_learning_rate"  # The one variable whose value a config holds.
_MOST_NUMBERS = 1000


class _CannotTell(Exception):
    """There is something whose part in a config is not known."""


# Objects that were met, with their marks, by `id`: many are shared, and some refer to each other.
_Seen = dict[int, tuple[Any, Any]]


class Fingerprint:
    """The parts of a model that its config depends on. Holds references to them.

    Two are equal only if the configs are the same.
    """

    def __init__(self, model: Any):
        self._seen: _Seen = {}
        optimizer = getattr(model, "optimizer", None)
        parts = [*model._flatten_layers(), *([] if optimizer is None else [optimizer])]
        self._marks = [_of_part(part, self._seen) for part in parts]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and self._marks == other._marks

    __hash__ = None  # type: ignore[assignment]


def fingerprint(model: Any) -> Fingerprint | None:
    """Return a fingerprint of the config; equal only if the configs are equal. `None` if unknown.

    >>> layer = keras.layers.Dense(3)
    >>> model = keras.Sequential([keras.Input((2,)), layer])
    >>> before = fingerprint(model)
    >>> before == fingerprint(model)
    True
    >>> layer.trainable = False
    >>> before == fingerprint(model)
    False
    """
    try:
        return Fingerprint(model)
    except _CannotTell:
        return None


def _of_part(part: Any, seen: _Seen) -> Any:
    kind = type(part)
    seen[id(part)] = part, id(part)
    if _is_keras(kind):
        return kind, _attributes(part, seen)
    compiled = _mark(getattr(part, "_compile_config", None), seen)
    return keras.saving.get_registered_name(kind), part.name, _asked(part, seen), compiled


def _attributes(part: Any, seen: _Seen) -> Any:
    attributes = vars(part)
    values = _getter(tuple(attributes))(attributes)
    marks = [value if type(value) in _AS_IT_IS else _mark(value, seen) for value in values]
    rate = attributes.get(_RATE)
    if isinstance(rate, keras.Variable):
        marks.append(float(to_numpy(rate)))
    return marks


@functools.lru_cache(maxsize=4096)
def _getter(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Iterable[Any]]:
    used = [name for name in names if not name.startswith(_ASIDE)]
    if len(used) < 2:
        return lambda attributes: [attributes[name] for name in used]
    return operator.itemgetter(*used)


def _mark(value: Any, seen: _Seen) -> Any:
    kind = type(value)
    if kind in _AS_IT_IS:
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    if issubclass(kind, (list, tuple)):
        return kind, [item if type(item) in _AS_IT_IS else _mark(item, seen) for item in value]
    if issubclass(kind, dict):
        return kind, [(key, _mark(item, seen)) for key, item in value.items()]
    if issubclass(kind, (set, frozenset)):
        return kind, set(value)
    if issubclass(kind, (keras.Variable, *tf_kinds("Variable"))):
        return None
    if issubclass(kind, tf_kinds("Tensor")) and hasattr(value, "numpy"):
        return _of_array(value.numpy())
    if issubclass(kind, (np.ndarray, np.generic)):
        return _of_array(value)
    if issubclass(kind, type):
        return value
    seen[id(value)] = value, id(value)
    mark = _of_object(value, kind, seen)
    seen[id(value)] = value, mark
    return mark


def _of_object(value: Any, kind: type, seen: _Seen) -> Any:
    # Layers are parts of their own. What stands between them in a graph is never changed, but
    # replaced.
    if issubclass(kind, (keras.Layer, keras.KerasTensor)) or kind.__name__ == "Node":
        return id(value)
    if _is_keras(kind):
        return kind, _attributes(value, seen)
    if kind.__module__.partition(".")[0] in ("tensorflow", "inspect", "weakref"):
        return None  # Keras writes none of these into a config.
    if hasattr(value, "get_config"):
        return keras.saving.get_registered_name(kind), _asked(value, seen)
    raise _CannotTell


def _asked(part: Any, seen: _Seen) -> Any:
    """Return the config of a user's object."""
    try:
        told = [part.get_config()]
        if hasattr(part, "get_build_config"):
            told.append(part.get_build_config())
    except Exception as error:
        raise _CannotTell from error  # It is raised where the config is made.
    return _mark(told, seen)


def _of_array(array: Any) -> Any:
    if not isinstance(array, (np.ndarray, np.generic)):
        array = np.asarray(array)
    if array.size > _MOST_NUMBERS or array.dtype.hasobject:
        raise _CannotTell
    return array.dtype, array.shape, array.tobytes()


def _is_keras(kind: type) -> bool:
    return kind.__module__.startswith("keras.")

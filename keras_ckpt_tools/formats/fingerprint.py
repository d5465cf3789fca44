"""Tell whether a model's config is still the one that was written last: model -> *fingerprint*.

A config is made by asking every layer, which for 1,000 layers takes a third of a second, and
training changes next to nothing in it. What Keras' own layers, optimizers, losses, metrics,
initializers and so on say in it comes from their plain attributes, so these are compared; a class
of the user's may say anything, so it is asked. Where something is met of which neither is known,
there is no fingerprint, and the config is made anew.
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_ckpt_tools.formats.state import to_numpy

# Compared as they are. That 1, 1.0 and True are equal is as Keras takes them.
_AS_IT_IS = frozenset(
    {str, int, bool, float, complex, bytes, types.NoneType, types.EllipsisType}
    | {types.FunctionType, types.BuiltinFunctionType, types.ModuleType}
)
# What no config is made of: bookkeeping, variables, compiled functions, what `fit` leaves behind,
# and the graph of a functional model, which is fixed when it is made.
_ASIDE = tuple(
    "_self_ _tracker _tracked _obj_reference_counts _call_ _auto_config _input_spec "
    "_trainable_variables _non_trainable_variables _loss _metrics _seed_generators "
    "train_function test_function predict_function "
    "history stop_training _initial_epoch _eval_epoch_iterator "
    "_inbound_nodes _outbound_nodes _nodes _operations _inputs _outputs".split()
)
_RATE = "_learning_rate"  # The one variable whose value a config holds.
_MOST_NUMBERS = 1000

Seen = dict[int, tuple[Any, Any]]
"""Objects and their marks, by `id`: many are shared, and some refer back to what holds them."""


class _CannotTell(Exception):
    """There is something whose part in a config is not known."""


def fingerprint(model: Any) -> Any:
    """Return what is equal later only if the model's config is the same, or `None`.

    >>> layer = keras.layers.Dense(3)
    >>> model = keras.Sequential([keras.Input((2,)), layer])
    >>> before = fingerprint(model)
    >>> before == fingerprint(model)
    True
    >>> layer.trainable = False
    >>> before == fingerprint(model)
    False
    """
    parts = [*model._flatten_layers(), getattr(model, "optimizer", None)]
    try:
        seen: Seen = {}
        return tuple(_of_part(part, seen) for part in parts if part is not None)
    except _CannotTell:
        return None


def _of_part(part: Any, seen: Seen) -> Any:
    kind = type(part)
    seen[id(part)] = part, id(part)
    if _is_keras(kind):
        return kind, _attributes(part, seen)
    name = keras.saving.get_registered_name(kind)
    compiled = _mark(getattr(part, "_compile_config", None), seen)
    return kind, name, part.name, _asked(part, seen), compiled


def _attributes(part: Any, seen: Seen) -> Any:
    attributes = vars(part)
    values = _getter(tuple(attributes))(attributes)
    marks = [value if type(value) in _AS_IT_IS else _mark(value, seen) for value in values]
    rate = attributes.get(_RATE)
    return [*marks, float(to_numpy(rate))] if isinstance(rate, keras.Variable) else marks


@functools.lru_cache(maxsize=4096)
def _getter(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Iterable[Any]]:
    used = [name for name in names if not name.startswith(_ASIDE)]
    if len(used) < 2:
        return lambda attributes: [attributes[name] for name in used]
    return operator.itemgetter(*used)


def _mark(value: Any, seen: Seen) -> Any:
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
    if issubclass(kind, (keras.Variable, tf.Variable)):
        return None
    if issubclass(kind, (np.ndarray, np.generic)):
        return _of_array(value)
    if issubclass(kind, type):
        return value
    seen[id(value)] = value, id(value)
    mark = _of_object(value, kind, seen)
    seen[id(value)] = value, mark
    return mark


def _of_object(value: Any, kind: type, seen: Seen) -> Any:
    if issubclass(kind, (keras.Layer, keras.KerasTensor)):
        return id(value)  # Layers are parts of their own.
    if _is_keras(kind):
        return kind, _attributes(value, seen)
    if kind.__module__.startswith(("tensorflow.", "inspect", "weakref")):
        return None  # Keras writes none of these into a config.
    if hasattr(value, "get_config"):
        return kind, keras.saving.get_registered_name(kind), _asked(value, seen)
    raise _CannotTell


def _asked(part: Any, seen: Seen) -> Any:
    """Return what an object of the user's says of itself."""
    try:
        told = [part.get_config()]
        if hasattr(part, "get_build_config"):
            told.append(part.get_build_config())
    except Exception as error:
        raise _CannotTell from error  # It is raised where the config is made.
    return _mark(told, seen)


def _of_array(array: Any) -> Any:
    if array.size > _MOST_NUMBERS or array.dtype.hasobject:
        raise _CannotTell
    return array.dtype, array.shape, array.tobytes()


def _is_keras(kind: type) -> bool:
    return kind.__module__.startswith("keras.")

"""Read the values of a callback's attributes for a save, and restore them.

Keras' callbacks and custom ones keep their state in attributes. Some values can be created from a
file (numbers, text, lists, arrays). Others can only be filled: a variable, a `deque` with its
length, a random generator, a metric. Such an object must already exist at a restore, with the same
type and in the same place, and it stays the same object. Other values can be neither: functions,
open files, objects of unknown classes.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import keras
import numpy as np
import xxhash

from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.live.variable_trees import is_generator, is_variable
from keras_ckpt_tools.training.state.random_generators import Access, state_access
from keras_ckpt_tools.training.state.trees import take_arrays

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_HANDLES = ("string", "resource", "variant")
_STATE_METHODS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))

MISSING: Any = type("Missing", (), {"__slots__": (), "__repr__": lambda self: "MISSING"})()
"""Stands for a missing attribute or item."""


class Elsewhere:
    """Objects that are saved separately: the variables of a model, and other callbacks.

    The variables are listed when the first variable is found. Most callbacks contain none, and
    listing the variables of a large model takes longer than everything else here.
    """

    def __init__(self, model: Any = None, others: Iterable[Any] = ()):
        self._model = model
        self._others = {id(other) for other in others}
        self._variables: set[int] | None = None

    def has(self, value: Any) -> bool:
        """Return whether an object is saved separately."""
        if not is_variable(value):
            return id(value) in self._others
        if self._variables is None:
            self._variables = set(self._find())
        return id(value) in self._variables

    def _find(self) -> Iterator[int]:
        model = self._model
        optimizer = getattr(model, "optimizer", None)
        for holder, name in (
            (model, "variables"),
            (model, "metrics_variables"),
            (optimizer, "variables"),
        ):
            for variable in getattr(holder, name, ()):
                yield id(variable)
                # A Keras variable wraps one of TensorFlow's.
                if isinstance(variable, keras.Variable):
                    yield id(variable.value)


_NOWHERE = Elsewhere()


@dataclasses.dataclass(frozen=True)
class View:
    """A value as it was read at one time.

    Attributes:
        tree: The value, for `take_arrays`; complete only if `opaque` is empty.
        digest: Differs if the value does.
        kinds: The types of objects that can only be filled, by place.
        opaque: Objects that cannot be saved; referenced, so that their IDs are not reused.
    """

    tree: Any
    digest: bytes
    kinds: Mapping[str, type]
    opaque: tuple[Any, ...]

    def can_be_restored(self, fresh: View | None) -> bool:
        """Return whether the value can be restored if a new process has `fresh` in its place."""
        there = {} if fresh is None else fresh.kinds
        return not self.opaque and self.kinds.items() <= there.items()


def look(value: Any, elsewhere: Elsewhere = _NOWHERE) -> View:
    """Read the current value of an object.

    Args:
        value: Any object.
        elsewhere: Objects that are saved separately.
    """
    looking = _Looking(elsewhere)
    try:
        tree = looking.at(value, "")
        arrays: dict[str, Any] = {}
        digest = xxhash.xxh3_128(json.dumps(take_arrays(tree, arrays, "it")).encode())
    except RecursionError:
        # It contains itself.
        return View(None, b"", {}, (value,))
    for array in map(np.asarray, arrays.values()):
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return View(tree, digest.digest(), looking.kinds, tuple(looking.opaque))


class _Looking:
    def __init__(self, elsewhere: Elsewhere):
        self.elsewhere = elsewhere
        self.kinds: dict[str, type] = {}
        self.opaque: list[Any] = []

    def at(self, value: Any, path: str, inside: bool = False) -> Any:
        kind = type(value)
        if kind in _PLAIN or _is_number(value) or (kind is np.ndarray and _is_numeric(value)):
            return value
        if isinstance(value, tf_kinds("Tensor")) and _has_numbers(value):
            return to_numpy(value)
        if kind is dict and all(_is_key(key) for key in value):
            return {k: self.at(v, f"{path}/{k!r}", inside) for k, v in value.items()}
        if kind in (list, tuple):
            return kind(self.at(v, f"{path}/{i}", inside) for i, v in enumerate(value))
        if kind in (set, frozenset) and all(_is_key(item) for item in value):
            return value
        known = inside or self.elsewhere.has(value)
        access = None if known else _access(value, self.elsewhere)
        if access is not None:
            self.kinds[path] = kind
            return self.at(access[0](), f"{path}/", inside)
        self.opaque.append(value)
        # For an object that cannot be saved, detect at least that its contents have changed.
        rest = {} if known or not _may_be_looked_into(value) else vars(value)
        return {"id": id(value), "inside": {k: self.at(v, "", True) for k, v in rest.items()}}


def _is_numeric(value: Any) -> bool:
    return value.dtype.kind in "biufcV" and value.dtype.names is None


def _is_number(value: Any) -> bool:
    return isinstance(value, np.generic) and _is_numeric(value)


def _is_key(value: Any) -> bool:
    if type(value) is tuple:
        return all(_is_key(item) for item in value)
    return type(value) in _PLAIN


def _may_be_looked_into(value: Any) -> bool:
    # The contents of these are saved separately, are not state of the callback, or are too large.
    far = (
        ModuleType,
        type,
        logging.Logger,
        keras.layers.Layer,
        *tf_kinds("data.Dataset", "Module"),
    )
    if not hasattr(value, "__dict__") or callable(value) or is_variable(value):
        return False
    return not isinstance(value, far)


def _access(value: Any, elsewhere: Elsewhere) -> Access | None:
    """Return the functions that get and set the contents of an object that can only be filled."""
    if is_variable(value):
        return lambda: to_numpy(value), value.assign
    found = state_access(value)
    if found is not None:
        return found
    variables = _variables_in(value)
    if variables is not None:
        own = [v for v in variables if not elsewhere.has(v)]
        return (lambda: [to_numpy(v) for v in own], _assigning(value, own)) if own else None
    for get, put in _STATE_METHODS:
        if callable(getattr(value, get, None)) and callable(getattr(value, put, None)):
            return getattr(value, get), getattr(value, put)
    if isinstance(value, dict):
        return lambda: dict(value), lambda content: _fill_mapping(value, content)
    if isinstance(value, (list, collections.deque)):
        return lambda: list(value), lambda content: _fill_sequence(value, content)
    if isinstance(value, set):
        return lambda: set(value), lambda content: _fill_set(value, content)
    if isinstance(value, enum.Enum):
        return lambda: value.name, lambda content: None
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return lambda: list(value), lambda content: None
    return None


def holds_values(kind: type) -> bool:
    """Return whether an object that can only be filled is a container of other values."""
    if any(callable(getattr(kind, get, None)) for get, _ in _STATE_METHODS):
        return False
    return issubclass(kind, (dict, list, collections.deque, set, tuple))


def _has_numbers(tensor: Any) -> bool:
    return hasattr(tensor, "numpy") and tensor.dtype.name not in _HANDLES


def _variables_in(value: Any) -> list[Any] | None:
    if is_generator(value):
        return [value.state]
    kinds = (
        keras.layers.Layer,
        keras.metrics.Metric,
        keras.optimizers.Optimizer,
        *tf_kinds("Module"),
    )
    return list(value.variables) if isinstance(value, kinds) else None


def _assigning(value: Any, variables: list[Any]) -> Callable[[Any], None]:
    def assign(content: Any) -> None:
        if len(content) != len(variables):
            raise ArgumentError(
                "Its variables are not those that it had when it was saved.",
                received=f"{value!r}: {len(variables)} variables, {len(content)} saved",
                remedy="Build it before training begins, by calling it on one batch of data.",
            )
        for variable, array in zip(variables, content, strict=True):
            variable.assign(array)

    return assign


def fill(present: Any, content: Any, elsewhere: Elsewhere = _NOWHERE) -> Any:
    """Return a value with the given contents: the present one, filled, or a new one.

    Lists, dicts and sets are filled in place, because other parts of the program may reference
    them.

    Args:
        present: The present value.
        content: The tree of a `View`.
        elsewhere: As for `look`.
    """
    if content is None:
        return None
    if isinstance(present, tf_kinds("Tensor")):
        import tensorflow as tf

        return tf.convert_to_tensor(content)
    if type(present) is dict and isinstance(content, dict):
        _fill_mapping(present, content, elsewhere)
    elif type(present) is list and isinstance(content, list):
        _fill_sequence(present, content, elsewhere)
    elif type(present) is set and isinstance(content, set):
        _fill_set(present, content)
    elif isinstance(present, enum.Enum) and isinstance(content, str):
        return type(present)[content]
    elif isinstance(present, tuple) and isinstance(content, (list, tuple)):
        children = _filled(list(present), content, elsewhere)
        return type(present)._make(children) if hasattr(present, "_make") else tuple(children)
    elif type(present) not in (*_PLAIN, np.ndarray, frozenset) and (
        access := _access(present, elsewhere)
    ):
        access[1](content)
    elif isinstance(content, np.ndarray) and not content.flags.writeable:
        return content.copy()  # A callback may change its arrays in place.
    elif isinstance(content, (dict, list, tuple)):
        return _made(content)
    else:
        return content
    return present


def _made(content: Any) -> Any:
    # New containers: the caller may use those that were read.
    if isinstance(content, dict):
        return {key: fill(None, child) for key, child in content.items()}
    return type(content)(fill(None, child) for child in content)


def _filled(present: list[Any], content: Any, elsewhere: Elsewhere) -> list[Any]:
    missing = [None] * (len(content) - len(present))
    pairs = zip([*present, *missing], content, strict=False)
    return [fill(old, new, elsewhere) for old, new in pairs]


def _fill_mapping(
    present: Any, content: Mapping[Any, Any], elsewhere: Elsewhere = _NOWHERE
) -> None:
    filled = {key: fill(present.get(key), child, elsewhere) for key, child in content.items()}
    present.clear()
    for key, child in filled.items():
        present[key] = child


def _fill_sequence(present: Any, content: Any, elsewhere: Elsewhere = _NOWHERE) -> None:
    filled = _filled(list(present), content, elsewhere)
    present.clear()
    present.extend(filled)


def _fill_set(present: Any, content: Any) -> None:
    present.clear()
    present.update(content)

"""Adapters for all objects that a run can track, including objects without variables.

An object with state can be tracked under a name that the user chooses: Keras models, layers,
optimizers and metrics; TensorFlow and Keras variables, alone or in lists and dicts; `tf.Module`;
random generators; and objects with `state_dict` or `get_state`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.live.adapters import Adapter, Arrays, VariablesAdapter, adapter_of
from keras_ckpt_tools.live.keras_walk import Structure
from keras_ckpt_tools.live.stores import Captured
from keras_ckpt_tools.live.variable_trees import is_generator, is_variable
from keras_ckpt_tools.metadata import TrackedObject
from keras_ckpt_tools.training.state.random_generators import state_access
from keras_ckpt_tools.training.state.trees import give_arrays, take_arrays


class StateAdapter(Adapter):
    """Adapter for objects that return and accept their state: arrays in it become tensors."""

    kind = "state"

    def __init__(self, name: str, target: Any, get: Callable[[], Any], put: Callable[[Any], Any]):
        super().__init__(name, target)
        self._get = get
        self._put = put
        self._rest: Any = None

    def captured(self) -> Captured:
        # Called once for each save: tensors and the rest must be of the same time.
        arrays: dict[str, Any] = {}
        self._rest = take_arrays(self._get(), arrays, self.name)
        return Captured(arrays)

    def needed(self) -> Captured:
        # An object without variables may have other arrays at another time.
        return Captured(unknown=[""])

    def structure(self) -> Structure:
        return Structure([], keeps=False)

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        return TrackedObject(self.kind, state=self._rest)

    def remember(self, arrays: Arrays | None = None) -> Callable[[], None]:
        before = copy.deepcopy(self._get())
        return lambda: self._put(before)

    def put_back(self, arrays: Arrays, described: TrackedObject | None = None) -> None:
        assert described is not None
        self._put(give_arrays(described.state, arrays))


def adapt(name: str, target: Any, elsewhere: Any = None) -> Adapter | None:
    """Return the adapter for an object, or `None` if it cannot be tracked.

    Args:
        name: The tracked name.
        target: The object.
        elsewhere: An optimizer in it that is tracked under another name.

    Raises:
        ArgumentError: a list or dict contains variables and other values.
        NotBuiltError: a list or dict contains an object that has no variables yet.
    """
    kinds = (keras.optimizers.Optimizer, keras.metrics.Metric, internals.KerasSaveable)
    if is_variable(target) or isinstance(target, kinds):
        return adapter_of(name, target, () if elsewhere is None else (elsewhere,))
    if (access := state_access(target)) is not None:
        return StateAdapter(name, target, *access)
    if isinstance(target, tf_kinds("data.Iterator")):
        from keras_ckpt_tools.data.iterators import iterator_state, restore_iterator

        return StateAdapter(
            name,
            target,
            lambda: {"iterator": iterator_state(target)},
            lambda taken: restore_iterator(target, taken["iterator"]),
        )
    if is_generator(target):
        return VariablesAdapter(name, target.state)
    for get, put in (("get_state", "set_state"), ("state_dict", "load_state_dict")):
        if callable(getattr(target, get, None)) and callable(getattr(target, put, None)):
            return StateAdapter(name, target, getattr(target, get), getattr(target, put))
    if isinstance(target, (list, tuple, Mapping, *tf_kinds("Module"))):
        adapter = VariablesAdapter(name, target)
        if not adapter.variables() and not isinstance(target, tf_kinds("Module")):
            return None
        if strange := adapter.strange():
            raise ArgumentError(
                "Some values among the variables would not be saved.",
                received="; ".join(f"{name}: {path}={one!r}" for path, one in strange.items()),
                remedy="Wrap a number in `tf.Variable(...)`, or remove it.",
            )
        return adapter
    return None

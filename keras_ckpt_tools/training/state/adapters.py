"""What a manager tracks, and how each kind of it is taken and put back: snapshot, and resume.

Anything with state can be tracked under a name of the user's choice: Keras models, layers,
optimizers and metrics; TensorFlow and Keras variables, alone or in lists and dicts; `tf.Module`;
random generators; and whatever gives its state as `state_dict` or `get_state`. Each kind is an
adapter with four verbs: say which tensors it needs, give them, say what it holds beside tensors,
take both back.

Names, not discovery, decide where a tensor stands (`critic/layers/dense/vars/0`,
`weights/1/vars/0`), so two variables of the same name never meet, and what was saved is found again
by the name it was given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.errors import ArgumentError, NotBuiltError
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.keras_walk import Structure, has_state, is_whole, structure_of
from keras_ckpt_tools.live.stores import Captured
from keras_ckpt_tools.live.variable_trees import collect_variables, is_generator, is_variable
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP
from keras_ckpt_tools.metadata import TrackedObject
from keras_ckpt_tools.training.state.random_generators import state_access
from keras_ckpt_tools.training.state.trees import give_arrays, take_arrays

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Adapter:
    """How one kind of object is taken and put back. This one is for plain variables."""

    kind = "variable"
    # Groups below its name with what is tracked by a name of its own. Earlier versions wrote the
    # inner optimizer of a `LossScaleOptimizer` there once more.
    elsewhere: tuple[str, ...] = ()

    def __init__(self, name: str, target: Any):
        self.name = name
        self.target = target

    def captured(self) -> Captured:
        """Return references to its tensors, by path below its name."""
        return Captured(self.variables())

    def variables(self) -> dict[str, Any]:
        """Return its variables, by path below its name."""
        return {"vars/0": self.target}

    def structure(self) -> Structure:
        """Return what `captured` depends on."""
        return Structure(list(self.variables().values()))

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        """Return what it holds beside tensors.

        Args:
            paths: The full path of each tracked variable, by its `id`.
        """
        return TrackedObject(self.kind)

    def prepare(self, described: TrackedObject, variables: Mapping[str, Any]) -> None:
        """Make its variables exist, before they are compared and restored.

        Args:
            described: What `described` said when it was saved.
            variables: All tracked variables that exist, by full path.
        """

    def remember(self) -> Callable[[], None]:
        """Return what gives it back its present state."""
        before = {path: state.to_numpy(variable) for path, variable in self.variables().items()}
        return lambda: self._assign(before)

    def put_back(self, arrays: Arrays, described: TrackedObject) -> None:
        """Restore it. If this raises, `remember` is what undoes it."""
        self._assign(arrays)

    def _assign(self, values: Arrays) -> None:
        for path, variable in self.variables().items():
            variable.assign(values[path])


class MetricAdapter(Adapter):
    """Metrics, whose state Keras itself never saves."""

    kind = "keras"

    def variables(self) -> dict[str, Any]:
        return {f"vars/{index}": v for index, v in enumerate(self.target.variables)}

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        return TrackedObject(self.kind, state=len(self.target.variables))

    def prepare(self, described: TrackedObject, variables: Mapping[str, Any]) -> None:
        if not self.target.variables and described.state:
            raise NotBuiltError(
                f"The metric {self.name!r} is not built: it makes its variables at its first "
                "update, so there is nothing yet that could be restored.",
                received=f"{self.name}={self.target!r}",
                remedy="Call its `build(y_true_shape, y_pred_shape)`, or `update_state` on one "
                "batch of data, and restore after that.",
                name=self.name,
            )


class VariablesAdapter(Adapter):
    """Lists, tuples and dicts of variables and of what is made of them, nested; `tf.Module`."""

    def __init__(self, name: str, target: Any):
        super().__init__(name, target)
        self.kind = "module" if isinstance(target, tf_kinds("Module")) else "container"

    def variables(self) -> dict[str, Any]:
        return self._split()[0]

    def strange(self) -> list[str]:
        """Return what lies in a list or dict and would not be saved, as `name=value`."""
        return [f"{self.name}: {path}={item!r}" for path, item in self._split()[1].items()]

    def _split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return collect_variables(self.target)


class KerasAdapter(Adapter):
    """Models, layers, metrics: whatever Keras itself saves."""

    def __init__(self, name: str, target: Any, elsewhere: Any = None):
        super().__init__(name, target)
        self.kind = "model" if isinstance(target, keras.Model) else "keras"
        # The compiled optimizer, where it is tracked by a name of its own.
        self._elsewhere = elsewhere
        if elsewhere is not None:
            self.elsewhere = (OPTIMIZER_GROUP,)

    def captured(self) -> Captured:
        if not has_state(self.target):
            raise state.not_built(self.target, self.name, "saved")
        return state.capture(self.target, skip=self._skip()).with_raw()

    def structure(self) -> Structure:
        return structure_of(self.target)

    def _skip(self) -> tuple[Any, ...]:
        return () if self._elsewhere is None else (self._elsewhere,)

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        get = getattr(self.target, "get_build_config", None)
        return TrackedObject(
            self.kind,
            build_config=_plain(get()) if get else None,
            parts=_plain(state.built_parts(self.target)),
            flags=state.calibrated(self.target),
        )

    def prepare(self, described: TrackedObject, variables: Mapping[str, Any]) -> None:
        state.build_like(self.target, described.build_config, self.name, described.parts)
        build_compiled_optimizer(self.target)

    def remember(self) -> Callable[[], None]:
        return state.remember(self.target)

    def put_back(self, arrays: Arrays, described: TrackedObject) -> None:
        state.pour(self.target, dict(arrays), skip=self._skip())
        state.set_calibrated(self.target, described.flags)


class OptimizerAdapter(KerasAdapter):
    """Keras optimizers, which have no state before they are built on the variables they update."""

    def __init__(self, name: str, target: Any):
        super().__init__(name, target)
        self.kind = "optimizer"

    def captured(self) -> Captured:
        return state.capture(self.target)

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        variables = _built_on(self.target)
        if not variables:
            return TrackedObject(self.kind)
        # What is not tracked is named as Keras names it, so that a restore can say what it lacks.
        return TrackedObject(
            self.kind,
            built_on=tuple(paths.get(id(v)) or str(getattr(v, "path", v.name)) for v in variables),
        )

    def prepare(self, described: TrackedObject, variables: Mapping[str, Any]) -> None:
        if self.target.built:
            return
        if described.built_on and all(path in variables for path in described.built_on):
            self.target.build([variables[path] for path in described.built_on])
        elif described.built_on:
            lacking = [path for path in described.built_on if path not in variables]
            raise NotBuiltError(
                f"The optimizer {self.name!r} is not built, and was built on variables that are "
                f"not tracked here: {', '.join(lacking)}.",
                received=f"{self.name}={self.target!r}",
                remedy="Call its `build(model.trainable_variables)`, and restore after that.",
                name=self.name,
            )


def build_compiled_optimizer(target: Any) -> None:
    """Build the optimizer that a model was compiled with, so that its state can be saved."""
    optimizer = getattr(target, "optimizer", None)
    # A scheduler of PyTorch has one, too.
    if isinstance(optimizer, keras.optimizers.Optimizer) and is_whole(target):
        state.build_optimizer(optimizer, target.trainable_variables)


def _built_on(optimizer: Any) -> list[Any]:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(inner, "_trainable_variables", ()))


class StateAdapter(Adapter):
    """Objects that give their state away and take it back: arrays in it become tensors."""

    kind = "state"

    def __init__(self, name: str, target: Any, get: Callable[[], Any], put: Callable[[Any], Any]):
        super().__init__(name, target)
        self._get = get
        self._put = put
        self._rest: Any = None

    def captured(self) -> Captured:
        # Asked once a save: tensors and the rest have to be of one moment.
        arrays: dict[str, Any] = {}
        self._rest = take_arrays(self._get(), arrays, self.name)
        return Captured(arrays)

    def structure(self) -> Structure:
        return Structure([], keeps=False)

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        return TrackedObject(self.kind, state=self._rest)

    def remember(self) -> Callable[[], None]:
        before = copy.deepcopy(self._get())
        return lambda: self._put(before)

    def put_back(self, arrays: Arrays, described: TrackedObject) -> None:
        self._put(give_arrays(described.state, arrays))


def _plain(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {str(key): _plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple, tf_kinds("TensorShape"))):
        return [_plain(value) for value in config]
    return config


def adapt(name: str, target: Any, elsewhere: Any = None) -> Adapter | None:
    """Return the adapter for an object, or `None` where there is none.

    Args:
        name: The name it is tracked by.
        target: The object.
        elsewhere: An optimizer in it that is tracked by a name of its own.

    Raises:
        ArgumentError: among variables there is something that is none.
        NotBuiltError: likewise, something that has no variables yet.
    """
    if is_variable(target):
        return Adapter(name, target)
    if isinstance(target, keras.optimizers.Optimizer):
        return OptimizerAdapter(name, target)
    if isinstance(target, keras.metrics.Metric):
        return MetricAdapter(name, target)
    if isinstance(target, internals.KerasSaveable):
        return KerasAdapter(name, target, elsewhere)
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
        return Adapter(name, target.state)
    for get, put in (("get_state", "set_state"), ("state_dict", "load_state_dict")):
        if callable(getattr(target, get, None)) and callable(getattr(target, put, None)):
            return StateAdapter(name, target, getattr(target, get), getattr(target, put))
    if isinstance(target, (list, tuple, Mapping, *tf_kinds("Module"))):
        adapter = VariablesAdapter(name, target)
        if not adapter.variables() and not isinstance(target, tf_kinds("Module")):
            return None
        if strange := adapter.strange():
            raise ArgumentError(
                "Beside variables there is something that would not be saved.",
                received="; ".join(strange),
                remedy="Wrap a number in `tf.Variable(...)`, or take it out.",
            )
        return adapter
    return None

"""Capture, prepare and restore each kind of live object: one adapter class per kind.

`kct.load_weights` and the tracked objects of a run use the same adapters; `restore` calls them. The
place of a tensor depends on names (`critic/layers/dense/vars/0`, `weights/1/vars/0`), so two
variables with the same name never collide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.errors import NotBuiltError
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.keras_walk import Structure, has_state, is_whole, structure_of
from keras_ckpt_tools.live.stores import Captured
from keras_ckpt_tools.live.variable_trees import collect_variables, is_variable
from keras_ckpt_tools.live.variables import (
    as_tensor,
    asks_for_files,
    assign,
    handles_of,
    read,
)
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP, is_raw
from keras_ckpt_tools.metadata import TrackedObject

Arrays = Mapping[str, np.ndarray[Any, Any]]
Assets = Callable[[str], str | None]


class Adapter:
    """One object with state.

    Args:
        name: The name that it is restored or tracked with; `""` for a single object.
        target: The object.

    Attributes:
        kind: As in `TrackedObject`.
        extra: Further variables, by path: in a file, but not saved by Keras.
    """

    kind = "variable"
    is_optimizer = False
    is_keras = False  # Whether Keras itself walks it.
    has_files = False  # Whether there are files that it may ask for.
    # Groups below its name with objects that are tracked with their own name. Earlier versions
    # wrote the inner optimizer of a `LossScaleOptimizer` there once more.
    elsewhere: tuple[str, ...] = ()

    def __init__(self, name: str, target: Any):
        self.name = name
        self.target = target
        self.extra: dict[str, Any] = {}

    @property
    def optimizer(self) -> Any:
        """The optimizer that a model was compiled with, where it is restored with the model."""
        return None

    def captured(self) -> Captured:
        """Return references to its tensors, by path below its name."""
        return Captured(self.variables() | self.extra)

    def to_save(self) -> Captured:
        """Return references to everything that a save of a run writes."""
        return self.captured()

    def needed(self) -> Captured:
        """Return what is compared before a restore; `remember` and `put_back` follow."""
        return self.captured()

    def variables(self) -> dict[str, Any]:
        """Return its variables, by path below its name."""
        raise NotImplementedError

    def structure(self) -> Structure:
        """Return what `captured` depends on."""
        return Structure(list(self.variables().values()))

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        """Return its state other than tensors.

        Args:
            paths: The full path of each tracked variable, by its `id`.
        """
        return TrackedObject(self.kind)

    def check_built(self) -> None:
        """Refuse an object without variables to restore.

        Raises:
            NotBuiltError: it has none.
        """

    def prepare(self, described: TrackedObject, variables: Mapping[str, Any]) -> None:
        """Make its variables exist, before they are compared and restored.

        Args:
            described: The result of `described` at the save.
            variables: All variables that exist, by full path.
        """

    def remember(self, arrays: Arrays | None = None) -> Callable[[], None]:
        """Return a function that restores its present state.

        Args:
            arrays: What will be assigned to it. Default: anything in it may change.
        """
        held = [(variable, state.held(variable)) for variable in self.captured().values.values()]

        def undo() -> None:
            for variable, value in held:
                variable.assign(value)

        return undo

    def put_back(self, arrays: Arrays, described: TrackedObject | None = None) -> None:
        """Assign what was read. If this raises, the result of `remember` undoes it.

        Args:
            arrays: Its new values, by path; other variables are unchanged.
            described: Its state other than tensors at the save, if recorded.
        """
        for path, variable in self.captured().values.items():
            if path in arrays:
                variable.assign(arrays[path])


class VariablesAdapter(Adapter):
    """A variable; lists, tuples and dicts of variables and what is made of them; `tf.Module`."""

    def __init__(self, name: str, target: Any):
        super().__init__(name, target)
        if not is_variable(target):
            self.kind = "module" if isinstance(target, tf_kinds("Module")) else "container"

    def variables(self) -> dict[str, Any]:
        return collect_variables(self.target)[0]

    def strange(self) -> dict[str, Any]:
        """Return the items of a list or dict that would not be saved, by path."""
        return collect_variables(self.target)[1]


class MetricAdapter(Adapter):
    """Metrics, whose state Keras itself never saves."""

    kind = "keras"

    def variables(self) -> dict[str, Any]:
        return {f"vars/{index}": v for index, v in enumerate(self.target.variables)}

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        return TrackedObject(self.kind, state=len(self.target.variables))

    def check_built(self) -> None:
        if not self.target.variables:
            raise not_built(
                f"The metric {self.name or 'target'!r}",
                "it makes its variables at its first update, so there is nothing yet that can "
                "be restored",
                "Call its `build(y_true_shape, y_pred_shape)`, or `update_state` on one batch of "
                "data, and restore after that.",
                self,
            )

    def prepare(self, described: TrackedObject, variables: Mapping[str, Any]) -> None:
        if described.state:
            self.check_built()


class KerasAdapter(Adapter):
    """Models and layers: what Keras itself saves.

    Args:
        name: The name that it is restored or tracked by.
        target: The object.
        skip: Optimizers that are restored under their own names, or not at all.
        assets: Returns the folder of the files that a layer saved; `None` without such files.
    """

    is_keras = True

    def __init__(
        self, name: str, target: Any, skip: tuple[Any, ...] = (), assets: Assets | None = None
    ):
        super().__init__(name, target)
        self.kind = "model" if isinstance(target, keras.Model) else "keras"
        self._skip = skip
        self._assets = assets
        self.has_files = assets is not None
        # The build configs of its layers, and the number of variables at that time.
        self._parts: tuple[int, Any] = (-1, {})
        self._known: Captured | None = None
        self._walked: Captured | None = None

    @property
    def optimizer(self) -> Any:
        optimizer = getattr(self.target, "optimizer", None)
        return None if any(optimizer is one for one in self._skip) else optimizer

    @property
    def elsewhere(self) -> tuple[str, ...]:  # type: ignore[override]
        return (OPTIMIZER_GROUP,) if self._skip and self.optimizer is None else ()

    def leave_out(self, optimizer: Any) -> None:
        """Leave the optimizer of a model as it is."""
        self._skip = (*self._skip, optimizer)

    def captured(self) -> Captured:
        return self._walk().with_more(self.extra)

    def _walk(self) -> Captured:
        return state.capture(self.target, skip=self._skip)

    def to_save(self) -> Captured:
        self._check("saved")
        return self.captured().with_raw()

    def needed(self) -> Captured:
        known, self._known = self._known, None
        self._walked = known or self._walk()
        return self._walked.with_more(self.extra)

    def knows(self, captured: Captured) -> None:
        """Use the result of a walk that was made just now."""
        self._known = captured

    def structure(self) -> Structure:
        return structure_of(self.target)

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        get = getattr(self.target, "get_build_config", None)
        return TrackedObject(
            self.kind,
            build_config=_plain(get()) if get else None,
            parts=self._built_parts(),
            flags=state.calibrated(self.target),
        )

    def _built_parts(self) -> Any:
        count = len(getattr(self.target, "variables", ()))
        if count != self._parts[0]:
            self._parts = count, _plain(state.built_parts(self.target))
        return self._parts[1]

    def check_built(self) -> None:
        self._check("restored")

    def _check(self, what: str) -> None:
        if not has_state(self.target):
            raise state.not_built(self.target, self.name or "target", what)

    def prepare(self, described: TrackedObject, variables: Mapping[str, Any]) -> None:
        state.build_like(self.target, described.build_config, self.name, described.parts)

    def _handles(self, captured: Captured) -> Mapping[str, Any] | None:
        if self._assets is not None and asks_for_files(self.target, captured):
            return None
        return handles_of(self.target, captured)

    def remember(self, arrays: Arrays | None = None) -> Callable[[], None]:
        captured = None if arrays is None else self._walked
        if captured is not None and any(map(is_raw, arrays or ())):
            captured = captured.with_raw()
        handles = None if captured is None else self._handles(captured)
        more = [(variable, state.held(variable)) for variable in self.extra.values()]
        if handles is None:
            walked = state.remember(self.target)
        else:
            held = [(handle, read(handle)) for handle in handles.values()]

            def walked() -> None:
                for handle, value in held:
                    assign(handle, value)

        def undo() -> None:
            walked()
            for variable, value in more:
                variable.assign(value)

        return undo

    def put_back(self, arrays: Arrays, described: TrackedObject | None = None) -> None:
        walked, self._walked = self._walked or self._walk(), None
        for path, variable in self.extra.items():
            if path in arrays:
                variable.assign(arrays[path])
        inside = {path: array for path, array in arrays.items() if path not in self.extra}
        captured = walked.with_raw() if any(map(is_raw, arrays)) else walked
        handles = self._handles(captured)
        if handles is not None:
            for path, array in inside.items():
                assign(handles[path], as_tensor(array))
        else:
            present = state.completed(inside, captured)
            state.pour(self.target, present, self._assets, skip=self._skip, captured=captured)
        if described is not None:
            state.set_calibrated(self.target, described.flags)


class OptimizerAdapter(KerasAdapter):
    """Keras optimizers, which have no state before they are built on the variables they update."""

    is_optimizer = True

    def __init__(self, name: str, target: Any):
        super().__init__(name, target)
        self.kind = "optimizer"

    def _check(self, what: str) -> None:
        """Nothing: it is built when its variables are known."""

    def described(self, paths: Mapping[int, str]) -> TrackedObject:
        inner = getattr(self.target, "inner_optimizer", self.target)
        variables = list(getattr(inner, "_trainable_variables", ()))
        if not variables:
            return TrackedObject(self.kind)
        # Untracked variables have Keras' names, so that a restore can name what is missing.
        return TrackedObject(
            self.kind,
            built_on=tuple(paths.get(id(v)) or str(getattr(v, "path", v.name)) for v in variables),
        )

    def prepare(self, described: TrackedObject, variables: Mapping[str, Any]) -> None:
        if self.target.built or not described.built_on:
            return
        if lacking := [path for path in described.built_on if path not in variables]:
            raise not_built(
                f"The optimizer {self.name or 'target'!r}",
                f"it was built on variables that are missing here: {', '.join(lacking)}",
                "Call its `build(model.trainable_variables)` first; or pass the model as well: "
                '`kct.load_weights({"model": model, "optimizer": optimizer}, path)`.',
                self,
            )
        self.target.build([variables[path] for path in described.built_on])


def adapter_of(name: str, target: Any, skip: tuple[Any, ...] = ()) -> Adapter:
    """Return the adapter of an object that is made of variables.

    Args:
        name: The name that it is restored or tracked by.
        target: The object.
        skip: Optimizers that are restored under names of their own.
    """
    if isinstance(target, keras.optimizers.Optimizer):
        return OptimizerAdapter(name, target)
    if isinstance(target, keras.metrics.Metric):
        return MetricAdapter(name, target)
    if isinstance(target, internals.KerasSaveable):
        return KerasAdapter(name, target, skip)
    return VariablesAdapter(name, target)


def build_compiled_optimizer(target: Any) -> None:
    """Build the optimizer that a model was compiled with, so that its state can be saved."""
    optimizer = getattr(target, "optimizer", None)
    # A scheduler of PyTorch has one, too.
    if isinstance(optimizer, keras.optimizers.Optimizer) and is_whole(target):
        state.build_optimizer(optimizer, target.trainable_variables)


def not_built(what: str, why: str, remedy: str, adapter: Adapter) -> NotBuiltError:
    """Return the error about an object without variables."""
    return NotBuiltError(
        f"{what} is not built: {why}.",
        received=f"{adapter.name or 'target'}={adapter.target!r}",
        remedy=remedy,
        name=adapter.name or "target",
    )


def _plain(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {str(key): _plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple, tf_kinds("TensorShape"))):
        return [_plain(value) for value in config]
    return config

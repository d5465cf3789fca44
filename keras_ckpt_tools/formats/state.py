"""From live Keras objects to named tensors, and back: snapshot -> write, and source -> restore.

Keras decides where the state of a layer stands in a file (`layers/dense/vars/0`) while it walks
the model and hands each object a store. Handing it stores of our own keeps that layout, including
whatever a layer's own `save_own_variables` does, without opening a file: one store collects
references, the other hands out tensors. Nothing here knows where the tensors come from or go to.

A restore is all or nothing. Everything is compared and everything is read before the first
variable changes; should a layer's own `load_own_variables` fail after that, the variables get
back what they had.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import NotBuiltError
from keras_ckpt_tools.formats.comparison import RANDOM_GROUP, compare_tensors, misfit
from keras_ckpt_tools.formats.dtypes import dtype_name
from keras_ckpt_tools.formats.report import RestoreReport
from keras_ckpt_tools.metadata import TensorInfo


class TensorSource(Protocol):
    """What a restore reads from: named tensors."""

    @property
    def path(self) -> str: ...
    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...
    def read(self, path: str) -> np.ndarray[Any, Any]: ...


@dataclass(frozen=True)
class Captured:
    """References to the tensors of an object, by the path that Keras gives them.

    Attributes:
        values: A variable, an array, or whatever a layer put into its store.
        names: Names of objects, by the path of their group, as Keras keeps them in attributes.
    """

    values: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def under(self, prefix: str) -> Captured:
        """Return the same with all paths below `prefix`."""
        return Captured(
            {f"{prefix}/{path}": value for path, value in self.values.items()},
            {f"{prefix}/{path}": name for path, name in self.names.items()},
        )

    def infos(self) -> dict[str, TensorInfo]:
        """Return the shape and dtype of each tensor."""
        return {path: _info(path, value) for path, value in self.values.items()}


def _info(path: str, value: Any) -> TensorInfo:
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        value = np.asarray(value)
    shape = tuple(int(n) for n in value.shape)
    return TensorInfo(path, shape, dtype_name(value.dtype))


def capture(saveable: Any, skip: Iterable[Any] = ()) -> Captured:
    """Collect references to the state of an object, without copying any of it.

    That is all that Keras would save, and the state of the seed generators, which it leaves out.

    Args:
        saveable: A model, layer, optimizer or metric.
        skip: Objects inside it to leave out.
    """
    store = _CaptureStore()
    internals.save_state(
        saveable,
        weights_store=store,
        assets_store=None,
        inner_path="",
        visited_saveables={id(item) for item in skip},
    )
    for index, variable in enumerate(_seed_states(saveable)):
        store.captured.values[f"{RANDOM_GROUP}{index}"] = variable
    return store.captured


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
    if hasattr(value, "numpy"):
        return np.asarray(value.numpy())
    return np.asarray(ops.convert_to_numpy(value))


class _Group(MutableMapping[str, Any]):
    """What `save_own_variables` and `load_own_variables` are given."""

    def __init__(self, values: dict[str, Any], prefix: str):
        self._values = values
        self._prefix = prefix

    def __getitem__(self, key: str) -> Any:
        return self._values[f"{self._prefix}{key}"]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[f"{self._prefix}{key}"] = value

    def __delitem__(self, key: str) -> None:
        del self._values[f"{self._prefix}{key}"]

    def __iter__(self) -> Iterator[str]:
        start = len(self._prefix)
        return (
            path[start:]
            for path in self._values
            if path.startswith(self._prefix) and "/" not in path[start:]
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Store(internals.H5IOStore):
    """A store that Keras' walk accepts (it insists on the class) and that opens no file."""

    def __init__(self, values: dict[str, Any]):
        self._values = values
        self._groups: dict[str, dict[str, Any]] | None = None

    def __bool__(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


class _CaptureStore(_Store):
    def __init__(self) -> None:
        self.captured = Captured()
        super().__init__(self.captured.values)

    def make(self, path: str, metadata: Mapping[str, str] | None = None) -> _Group:
        group = f"{path}/vars" if path else "vars"
        if metadata:
            self.captured.names[group] = metadata["name"]
        return _Group(self._values, f"{group}/")


class _FillStore(_Store):
    def get(self, path: str) -> Mapping[str, Any]:
        groups = self._by_group()
        # Keras 2.13 called the group of a model's layers by another name.
        old = path.replace("layers", "_layer_checkpoint_dependencies")
        for candidate in (path, old):
            group = f"{candidate}/vars" if candidate else "vars"
            if group in groups:
                return groups[group]
        return {}

    def has_path(self, path: str) -> bool:
        return any(group == path or group.startswith(f"{path}/") for group in self._by_group())

    def _by_group(self) -> dict[str, dict[str, Any]]:
        if self._groups is None:
            self._groups = {}
            for path, value in self._values.items():
                group, _, key = path.rpartition("/")
                self._groups.setdefault(group, {})[key] = value
        return self._groups


def fill(
    saveable: Any,
    source: TensorSource,
    *,
    strict: bool = True,
    assets: str | None = None,
    optimizer_may_differ: bool = True,
) -> RestoreReport:
    """Restore the state of a Keras object from named tensors.

    Args:
        saveable: A model, layer, optimizer or metric, built.
        source: Where the tensors come from.
        strict: Whether everything has to match. If not, what matches is loaded.
        assets: Directory of files that layers saved (vocabularies), or `None`.
        optimizer_may_differ: See `compare_tensors`.

    Returns:
        The report.

    Raises:
        RestoreError: something does not fit and `strict`, or a layer refused its state. Nothing
            was changed.
    """
    captured = capture(saveable)
    report = compare_tensors(
        source.path, captured.infos(), source.tensors, optimizer_may_differ=optimizer_may_differ
    )
    if strict and not report:
        raise misfit(report)
    matched = frozenset(report.matched)
    arrays = {
        path: source.read(path) if path in matched else to_numpy(value)
        for path, value in captured.values.items()
    }
    try:
        pour(saveable, arrays, assets)
    except _Refused as error:
        raise misfit(report, error.reasons) from error.reasons[0][1]
    return report


class _Refused(Exception):
    """Layers refused their state; everything is as it was."""

    def __init__(self, reasons: list[tuple[Any, Exception]]):
        super().__init__("; ".join(str(error) for _, error in reasons))
        self.reasons = reasons


def pour(
    saveable: Any, arrays: dict[str, Any], assets: str | None = None, skip: Iterable[Any] = ()
) -> Callable[[], None]:
    """Hand arrays to an object through Keras' own walk; undo all of it if any part refuses.

    Returns:
        What undoes it.
    """
    before = [(v, _held(v)) for v in _variables(saveable)]

    def undo() -> None:
        for variable, value in before:
            variable.assign(value)

    for index, variable in enumerate(_seed_states(saveable)):
        if (path := f"{RANDOM_GROUP}{index}") in arrays:
            variable.assign(arrays[path])
    refused: dict[int, tuple[Any, Exception]] = {}
    internals.load_state(
        saveable,
        weights_store=_FillStore(arrays),
        assets_store=internals.DiskIOStore(assets, mode="r") if assets else None,
        inner_path="",
        visited_saveables={id(item) for item in skip},
        failed_saveables=set(),
        error_msgs=refused,
    )
    if refused:
        undo()
        raise _Refused(list(refused.values()))
    return undo


def _held(variable: Any) -> Any:
    """Return the present value of a variable, which no later assignment changes."""
    value = variable.value
    if hasattr(value, "read_value"):  # TensorFlow: shares the buffer until the next assignment.
        return value.read_value()
    if hasattr(value, "detach"):  # PyTorch: assignments write into the buffer.
        return value.detach().clone()
    return value


def _variables(saveable: Any) -> list[Any]:
    variables = list(getattr(saveable, "variables", ()))
    optimizer = getattr(saveable, "optimizer", None)
    return variables + list(getattr(optimizer, "variables", ()))


def build_like(saveable: Any, build_config: Mapping[str, Any] | None, name: str) -> None:
    """Build a model or layer that has no variables yet from what it was built with when saved.

    Raises:
        NotBuiltError: the shape is not on record, or does not build it.
    """
    if getattr(saveable, "built", True):
        return
    if build_config:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Keras warns where it fails; the error below says more.
            saveable.build_from_config(dict(build_config))
    if not saveable.built:
        raise NotBuiltError(
            f"The {type(saveable).__name__} {name!r} is not built: it has no variables yet, so "
            "there is nothing that could be restored.",
            received=f"{name}={saveable!r}",
            remedy="Call it on one batch of data, or call its `build(input_shape)`, and restore "
            "after that.",
            name=name,
        )


def build_optimizer(optimizer: Any, variables: Iterable[Any]) -> None:
    """Make the state of an optimizer exist, so that it can be compared and restored."""
    if isinstance(optimizer, keras.optimizers.Optimizer) and not optimizer.built:
        optimizer.build(list(variables))

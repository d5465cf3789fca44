"""Define the stores that Keras' walk through a model reads and writes.

Keras names the state of a layer (`layers/dense/vars/0`) while it walks the model and gives each
object a store. These stores keep that layout, including a layer's own `save_own_variables`, without
a file: one collects references, the other returns tensors.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.formats.common.dtypes import dtype_name
from keras_ckpt_tools.matching.compare import Needed
from keras_ckpt_tools.metadata import OptimizerState, TensorInfo


@dataclass(frozen=True)
class Captured:
    """References to the tensors of an object, by the path that Keras gives them.

    Attributes:
        values: A variable, an array, or whatever a layer put into its store.
        names: Names of objects, by the path of their group, as Keras keeps them in attributes.
        asked: The group of each object that was asked for its state, whether it has any or not.
        has_assets: Whether one of them saves files besides tensors.
        unknown: Groups, with a slash at the end, of objects whose needs are not known yet.
        visited: The `id` of each object that was asked.
        optimizers: The class of each optimizer, and the variables it was built on, by its group.
        groups: The group of each object that was asked, by its `id`.
        holders: Groups of objects without variables of their own that hold others: losses, say.
        find_raw: Returns `raw`; finding it takes as long as all of the rest.
    """

    values: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    has_assets: bool = False
    unknown: list[str] = field(default_factory=list)
    visited: frozenset[int] = frozenset()
    optimizers: dict[str, tuple[str, list[Any]]] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    holders: frozenset[str] = frozenset()
    find_raw: Callable[[], Mapping[str, Any]] = dict

    @functools.cached_property
    def raw(self) -> Mapping[str, Any]:
        """Variables that Keras' layout leaves out, or has another value of, by path."""
        return self.find_raw()

    def with_raw(self) -> Captured:
        """Return the same with the variables of `raw` among its values."""
        raw = self.raw
        return dataclasses.replace(self, values={**self.values, **raw}, find_raw=lambda: raw)

    def with_more(self, values: Mapping[str, Any]) -> Captured:
        """Return the same with further values."""
        return dataclasses.replace(self, values={**self.values, **values}) if values else self

    @classmethod
    def of_all(cls, named: Iterable[tuple[str, Captured]]) -> Captured:
        """Return what several objects are made of, below their names."""
        found = [one.under(name) if name else one for name, one in named]
        whole = cls()
        for one in found:
            whole.values.update(one.values)
            whole.names.update(one.names)
            whole.unknown.extend(one.unknown)
            whole.optimizers.update(one.optimizers)
        return dataclasses.replace(
            whole,
            holders=frozenset().union(*(one.holders for one in found)),
            find_raw=lambda: {path: value for one in found for path, value in one.raw.items()},
        )

    def under(self, prefix: str) -> Captured:
        """Return the same with all paths below `prefix`."""
        return Captured(
            {f"{prefix}/{path}": value for path, value in self.values.items()},
            {f"{prefix}/{path}": name for path, name in self.names.items()},
            [f"{prefix}/{path}" for path in self.asked],
            self.has_assets,
            [f"{prefix}/{path}" for path in self.unknown],
            self.visited,
            {f"{prefix}/{path}".rstrip("/"): one for path, one in self.optimizers.items()},
            {key: f"{prefix}/{path}".rstrip("/") for key, path in self.groups.items()},
            frozenset(f"{prefix}/{path}" for path in self.holders),
            lambda: {f"{prefix}/{path}": value for path, value in self.raw.items()},
        )

    def needed(self) -> Needed:
        """Return what the object needs, to be compared with what a checkpoint has."""
        optimizers = built_on(self.optimizers, self.values)
        return Needed(
            self.infos(),
            self.named(),
            optimizers,
            variable_paths(self.values),
            overwritten_in(self.values),
        )

    def named(self) -> dict[str, str]:
        """Return `called`, and empty names of what has none, so that it is not taken for a list."""
        return dict.fromkeys(self.holders, "") | self.called()

    def called(self) -> dict[str, str]:
        """Return what its parts are called, by the path of their group."""
        return {path.removesuffix("vars").rstrip("/"): name for path, name in self.names.items()}

    def infos(self) -> dict[str, TensorInfo]:
        """Return the shape and dtype of each tensor."""
        return {path: _info(path, value) for path, value in self.values.items()}


def variable_paths(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what Keras calls the variables among some values, by the path of each."""
    called = {path: getattr(value, "path", None) for path, value in values.items()}
    return {path: name for path, name in called.items() if isinstance(name, str)}


def overwritten_in(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the paths of variables that optimizers overwrite (the scales of float8)."""
    return frozenset(
        path for path, value in values.items() if getattr(value, "overwrite_with_gradient", False)
    )


def built_on(
    optimizers: Mapping[str, tuple[str, list[Any]]], values: Mapping[str, Any]
) -> dict[str, OptimizerState]:
    """Return what optimizers are and were built on, by the path of their group.

    Args:
        optimizers: The class and the variables of each.
        values: All variables that have a path.
    """
    if not optimizers:
        return {}
    paths = {id(value): path for path, value in values.items()}
    return {
        group: OptimizerState(
            kind, tuple(paths.get(id(v)) or str(getattr(v, "path", v.name)) for v in variables)
        )
        for group, (kind, variables) in optimizers.items()
    }


def _info(path: str, value: Any) -> TensorInfo:
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        value = np.asarray(value)
    shape = tuple(int(n) for n in value.shape)
    return TensorInfo(path, shape, dtype_name(value.dtype))


class _Group(MutableMapping[str, Any]):
    """What `save_own_variables` and `load_own_variables` are given. `prefix` is its path."""

    def __init__(self, values: dict[str, Any], prefix: str):
        self._values = values
        self.prefix = prefix

    def __getitem__(self, key: str) -> Any:
        return self._values[f"{self.prefix}{key}"]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[f"{self.prefix}{key}"] = value

    def __delitem__(self, key: str) -> None:
        del self._values[f"{self.prefix}{key}"]

    def __iter__(self) -> Iterator[str]:
        start = len(self.prefix)
        return (
            path[start:]
            for path in self._values
            if path.startswith(self.prefix) and "/" not in path[start:]
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Store(internals.H5IOStore):
    """A store that Keras' walk accepts (it insists on the class) and that opens no file."""

    def __init__(self, values: dict[str, Any]):
        self._values = values

    def __bool__(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


class CaptureStore(_Store):
    """Collects references to all values that are put into it."""

    def __init__(self) -> None:
        self.captured = Captured()
        self.last: str | None = None
        super().__init__(self.captured.values)

    def make(self, path: str, metadata: Mapping[str, str] | None = None) -> _Group:
        group = f"{path}/vars" if path else "vars"
        self.last = path
        self.captured.asked.append(group)
        if metadata:
            self.captured.names[group] = metadata["name"]
        return _Group(self._values, f"{group}/")


class Visited(set[int]):
    """The objects that a walk has met. Keras adds each after it has asked it for its state.

    Args:
        store: What the objects are asked with.
        skip: The `id` of each object that is left out.

    Attributes:
        groups: The group of each object that was asked, by its `id`.
    """

    def __init__(self, store: CaptureStore, skip: Iterable[int]):
        super().__init__(skip)
        self._store = store
        self.groups: dict[int, str] = {}

    def add(self, key: int) -> None:
        if self._store.last is not None:
            self.groups[key] = self._store.last
        self._store.last = None
        super().add(key)


class AssetsProbe(internals.DiskIOStore):
    """Records whether any object saves files: the walk tests the store only then."""

    def __init__(self) -> None:
        self.asked_for = False

    def __bool__(self) -> bool:
        self.asked_for = True
        return False

    def close(self) -> None:
        """Nothing was made."""


class AssetsWhenAsked(internals.DiskIOStore):
    """Files that layers saved, unpacked when a layer asks for its own, and not before.

    What no layer asks for stays packed: it may unpack to hundreds of times its size.

    Args:
        unpack: Unpacks the files of the object at a path; returns the folder with all of them, or
            `None` where there are none.
    """

    def __init__(self, unpack: Callable[[str], str | None]):
        self._unpack = unpack
        super().__init__("", mode="r")

    def get(self, path: str) -> str | None:
        folder = self._unpack(path)
        if folder is None:
            return None
        self.working_dir = folder
        found: str | None = super().get(path)
        return found

    def has_path(self, path: str) -> bool:
        return self.get(path) is not None


class FillStore(_Store):
    """Returns tensors, by the path of the object that loads them."""

    def __init__(self, values: dict[str, Any]):
        super().__init__(values)
        self._groups: dict[str, dict[str, Any]] = {}
        for path, value in values.items():
            group, _, key = path.rpartition("/")
            self._groups.setdefault(group, {})[key] = value
        self._paths = {path for group in self._groups for path in _and_above(group)}

    def get(self, path: str) -> Mapping[str, Any]:
        # Keras 2.13 has another name for the group of a model's layers.
        old = path.replace("layers", "_layer_checkpoint_dependencies")
        for candidate in (path, old):
            group = f"{candidate}/vars" if candidate else "vars"
            if group in self._groups:
                return self._groups[group]
        return {}

    def has_path(self, path: str) -> bool:
        return path in self._paths


def _and_above(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]

"""Find state that a save would leave out, before anything is written.

Keras saves what it tracks: weights, layers and optimizers in attributes, lists and dicts. It does
not save a `tf.Variable`, a layer inside a plain Python object or a random generator, which start
over after a restart without a warning. So custom objects are searched at their first save and when
their parts have changed, and each finding names a remedy.

Only `__dict__` and `__slots__` are read, because a property may run any code. Objects of Keras,
TensorFlow and other libraries are not searched, and large containers only in part. State that Keras
leaves out on purpose (metrics, losses, seed generators, which this package saves) is not reported.
"""

from __future__ import annotations

import random
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.errors import ArgumentError, UntrackedStateError
from keras_ckpt_tools.live.keras_walk import attributes_of_any, optimizers_of
from keras_ckpt_tools.live.snapshot import Part
from keras_ckpt_tools.live.stores import Captured
from keras_ckpt_tools.showing.messages import warn

__all__ = ["Finding", "OnUntracked", "UntrackedWatch", "check_on_untracked", "find_untracked"]

OnUntracked = Literal["warn", "error", "ignore"]

_LEVELS = 8
_ITEMS = 1_000
_OBJECTS = 50_000
_SHOWN = 10
# Not searched: these libraries save their objects by their own rules.
_LIBRARIES = sys.stdlib_module_names | {
    *("absl", "google", "grpc", "h5py", "jax", "jaxlib", "keras", "keras_ckpt_tools", "matplotlib"),
    *("ml_dtypes", "numpy", "optree", "pandas", "rich", "scipy", "sklearn", "tensorboard"),
    *("tensorflow", "tensorflow_text", "tf_keras", "torch", "wrapt"),
}
_CONTAINERS = (list, tuple, set, frozenset, deque, Mapping)
_ATOMS = (bool, bytes, complex, float, int, str, type, type(None), np.ndarray, np.generic)
_OPAQUE = (types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)

_WEIGHT = (
    "make it with `self.add_weight(...)`, or as a `keras.Variable` that is an attribute of a layer"
)
_ATTRIBUTE = "assign it to an attribute of a layer or model (a list or dict in one also works)"
_BY_NAME = "or track it by a name: `CheckpointManager(..., {name}=...)`"


class Finding(NamedTuple):
    """Something that would not be saved.

    Attributes:
        path: Its path, starting with the layer: `layer 'head' (Head).scale`.
        what: A description of it.
        remedy: What to do about it.
    """

    path: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.remedy}"


def check_on_untracked(value: Any) -> OnUntracked:
    """Return an `on_untracked=` argument if it is valid.

    Raises:
        ArgumentError: it is invalid.
    """
    if value == "warn" or value == "error" or value == "ignore":  # noqa: PLR1714 (for mypy)
        return value  # type: ignore[no-any-return]
    raise ArgumentError(
        "`on_untracked` must be 'warn', 'error' or 'ignore'.",
        received=f"on_untracked={value!r}",
        remedy="Pass 'warn' to get a warning about state that would not be saved.",
    )


class UntrackedWatch:
    """Searches objects at each save if their parts have changed.

    Args:
        on_untracked: What to do about findings.
    """

    def __init__(self, on_untracked: OnUntracked = "warn"):
        self.on_untracked = on_untracked
        self._looked: dict[str, list[str]] = {}

    def look(
        self,
        parts: Mapping[str, tuple[Any, Part]],
        walk: Callable[[Part], Captured],
        tracked: Callable[[], Iterable[Any]] = tuple,
    ) -> None:
        """Search the objects that are about to be saved.

        Args:
            parts: Keras objects by name, with the parts of a snapshot.
            walk: Returns the saved parts of an object, cached if unchanged.
            tracked: Returns the other saved objects.

        Raises:
            UntrackedStateError: some state would not be saved, and `on_untracked="error"`.
        """
        if self.on_untracked == "ignore":
            return
        # An object that chooses at each save what it saves is searched once.
        if self._looked.keys() == parts.keys() and not any(
            one.structure.keeps for _, one in parts.values()
        ):
            return
        captured = {name: (target, walk(one)) for name, (target, one) in parts.items()}
        asked = {name: one.asked for name, (_, one) in captured.items()}
        if asked == self._looked:
            return
        found = find_untracked(captured, tracked())
        if found and self.on_untracked == "error":
            raise _error(found)
        self._looked = asked
        targets = [target for target, _ in captured.values()]
        if new := [one for one in found if _is_new(one, targets)]:
            warn(str(_error(new, saved=True)), UserWarning, stacklevel=5)


_told: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def _is_new(finding: Finding, targets: Sequence[Any]) -> bool:
    """Return whether this was not reported before for any of these objects."""
    known = any(finding.path in _told.get(target, ()) for target in targets)
    for target in targets:
        _told.setdefault(target, set()).add(finding.path)
    return not known


def _error(found: Sequence[Finding], *, saved: bool = False) -> UntrackedStateError:
    lines = "".join(f"\n  {one}" for one in found[:_SHOWN])
    more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    what = "is not saved" if saved else "would not be saved; nothing was written"
    return UntrackedStateError(
        f"State that Keras does not track {what}:{lines}{more}\n",
        remedy="Or pass `on_untracked='ignore'` if it may start over after a restart.",
        untracked=tuple(tuple(one) for one in found),
    )


def find_untracked(
    parts: Mapping[str, tuple[Any, Captured]], tracked: Iterable[Any] = ()
) -> list[Finding]:
    """Return the state that a save of Keras objects would leave out.

    Args:
        parts: The objects by name, with the saved parts of each.
        tracked: Other saved objects.
    """
    visited = {key for _, captured in parts.values() for key in captured.visited}
    saveables: dict[int, Any] = {}
    for target, _ in parts.values():
        for part in _parts_of(target):
            saveables.setdefault(id(part), part)
    written = [value for _, captured in parts.values() for value in captured.values.values()]
    look = _Look(visited, saveables, tracked, written)
    found: list[Finding] = []
    for part in saveables.values():
        found += look.through(part, _label(part))
    return found


def _parts_of(target: Any) -> Iterator[Any]:
    yield target
    yield from optimizers_of(target)
    yield from getattr(target, "_flatten_layers", tuple)()


def _label(part: Any) -> str:
    kind = "model" if isinstance(part, keras.Model) else "layer"
    kind = "optimizer" if isinstance(part, keras.optimizers.Optimizer) else kind
    return f"{kind} {getattr(part, 'name', '')!r} ({type(part).__name__})"


class _Look:
    """One search through several objects; each object is searched once."""

    def __init__(
        self,
        visited: set[int],
        saveables: Mapping[int, Any],
        tracked: Iterable[Any],
        written: Iterable[Any],
    ):
        self._visited = visited
        self._saveables = saveables
        self._known = {id(one) for one in tracked}
        self._left = _OBJECTS
        self._know(written)
        for part in saveables.values():
            if id(part) in visited or isinstance(part, keras.Model):
                self._know(_own_variables(part))
            self._know(getattr(part, "metrics_variables", ()))
        for one in tracked:
            self._know(one.variables if hasattr(one, "variables") else (one,))
        self._seen = set(saveables)

    def _know(self, variables: Iterable[Any]) -> None:
        for variable in variables:
            # The TensorFlow variable inside a Keras variable may be referenced as well.
            self._known |= {id(variable), id(getattr(variable, "_value", None))}
        self._known.discard(id(None))

    def through(self, part: Any, label: str) -> Iterator[Finding]:
        """Yield the state that is left out of one layer, model or optimizer."""
        lost = [v for v in _own_variables(part) if id(v) not in self._known]
        if id(part) not in self._visited and lost:
            yield Finding(label, f"a layer with {_weights(lost)} in nested containers", _ATTRIBUTE)
        if _decides_for_itself(part):
            return
        of_keras = not _is_of_user(type(part))
        if of_keras and not isinstance(part, keras.Model):
            return  # A Keras layer saves its own state; a model may have additional attributes.
        skipped = _attributes_of_keras() | _kept_by_keras(part)
        for name, value in list(vars(part).items()):
            if name in skipped or name.startswith("_self_") or (of_keras and name[0] == "_"):
                continue
            yield from self._at(f"{label}.{name}", name, value, 0)

    def _at(self, path: str, name: str, value: Any, level: int) -> Iterator[Finding]:
        if isinstance(value, _ATOMS) or id(value) in self._known or id(value) in self._seen:
            return
        self._left -= 1
        if self._left < 0 or level > _LEVELS:
            return
        self._seen.add(id(value))
        finding = self._judge(path, name, value)
        if finding is not None:
            yield finding
        elif not isinstance(value, (internals.KerasSaveable, *_OPAQUE)):
            for inner, key, item in _inside(value):
                yield from self._at(path + inner, key or name, item, level + 1)

    def _judge(self, path: str, name: str, value: Any) -> Finding | None:
        by_name = _BY_NAME.format(name=name if name.isidentifier() else "name")
        if isinstance(value, tf_kinds("Variable")):
            return Finding(path, f"a tf.Variable of shape {value.shape}", f"{_WEIGHT}, {by_name}")
        if isinstance(value, keras.Variable):
            what = f"a keras.Variable of shape {tuple(value.shape)}"
            return Finding(path, what, f"{_ATTRIBUTE}, {by_name}")
        if isinstance(value, (keras.metrics.Metric, keras.losses.Loss)):
            return None
        if isinstance(value, internals.KerasSaveable):
            variables = [v for v in getattr(value, "variables", ()) if id(v) not in self._known]
            lost = [v for v in variables if v.name != "seed_generator_state"]
            kind = "an optimizer" if isinstance(value, keras.optimizers.Optimizer) else "a layer"
            what = f"{kind}, {type(value).__name__}, with {_weights(lost)}"
            return Finding(path, what, f"{_ATTRIBUTE}, {by_name}") if lost else None
        if isinstance(value, (*_GENERATORS, *tf_kinds("random.Generator"))):
            remedy = f"use a `keras.random.SeedGenerator`, {by_name}"
            return Finding(path, "a random generator", remedy)
        if _gives_state(value):
            return Finding(path, f"a {type(value).__name__} with a state of its own", by_name[3:])
        return None


def _decides_for_itself(part: Any) -> bool:
    """Return whether a class defines with its own methods what is saved."""
    methods = (getattr(type(part), name, None) for name in ("save_own_variables", "save_assets"))
    return any(_is_of_user_module(getattr(method, "__module__", "keras")) for method in methods)


def _own_variables(part: Any) -> list[Any]:
    if isinstance(part, keras.optimizers.Optimizer):
        return list(part.variables)
    lists = ("_trainable_variables", "_non_trainable_variables")
    own = [v for name in lists for v in vars(part).get(name) or ()]
    seeds = [s.state for s in vars(part).get("_seed_generators") or ()]
    metrics = [v for m in vars(part).get("_metrics") or () for v in m.variables]
    return own + seeds + metrics


def _weights(variables: Sequence[Any]) -> str:
    return f"{len(variables)} weight{'s' if len(variables) != 1 else ''}"


def _attributes_of_keras() -> frozenset[str]:
    kinds = ("Functional", "Layer", "Optimizer", "Sequential")
    return frozenset().union(*(attributes_of_any(kind) or () for kind in kinds))


def _kept_by_keras(part: Any) -> frozenset[str]:
    """Return the attributes that a Keras class leaves out of a save on purpose."""
    if isinstance(part, keras.layers.RNN):
        return frozenset({"states"})
    return frozenset({"idf_weights", "num_documents"} if hasattr(part, "get_vocabulary") else ())


def _gives_state(value: Any) -> bool:
    cls = type(value)
    return _is_of_user(cls) and any(
        callable(getattr(cls, get, None)) and callable(getattr(cls, put, None))
        for get, put in (("get_state", "set_state"), ("state_dict", "load_state_dict"))
    )


def _is_of_user(cls: type) -> bool:
    return _is_of_user_module(cls.__module__)


def _is_of_user_module(module: str) -> bool:
    return module.partition(".")[0] not in _LIBRARIES


def _inside(value: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the contents of an object: path, name and value."""
    if isinstance(value, _CONTAINERS):
        yield from _items(value)
        return
    cls = type(value)
    if not _is_of_user(cls) and cls is not types.SimpleNamespace:
        return
    try:
        held = object.__getattribute__(value, "__dict__")
    except AttributeError:
        held = {}
    for name, item in list(held.items())[:_ITEMS]:
        yield f".{name}", str(name), item
    for base in cls.__mro__:
        for name, slot in vars(base).items():
            if isinstance(slot, types.MemberDescriptorType):
                try:
                    yield f".{name}", name, slot.__get__(value)
                except AttributeError:
                    continue  # The slot is empty.


def _items(container: Any) -> Iterator[tuple[str, str, Any]]:
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(container, Mapping):
        # For a subclass of a user, use only the methods of dict.
        pairs = container.items() if isinstance(container, dict) else ()
    else:
        pairs = enumerate(container)
    for number, (key, item) in enumerate(pairs):
        if number >= _ITEMS:
            return
        name = key if isinstance(key, str) else ""
        yield f"[{key!r}]" if isinstance(key, (int, str)) else f"[{number}]", name, item

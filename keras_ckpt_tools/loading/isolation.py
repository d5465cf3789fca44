"""Limit what Keras can look up while it builds a model from a file.

The config was walked and all names in it were judged. This is a second check that does not trust
the walk: everything that the thread looks up by name during the build must be allowed, also a name
that the walk missed, or that Keras derives from another name (`adam` from `Adam`).

* Keras' table of registered objects contains, for the names in the file, exactly the objects that
  were resolved. Other names need to be allowed by the caller. (In Keras 3.15 a global entry
  silently replaces an explicit argument.)
* Of Keras' own objects, only those that models are made of are found. No module is imported.
* Bytecode in the file becomes a function only if its layer is trusted. The path of a file is opened
  only if it is trusted.

A refused lookup raises an error with the name and its place in the file. Code of the user may still
call constructors, and finds Keras' own objects by name.

Keras' safe mode is always on, except where code in the file was trusted by name. One build runs at
a time, and other threads are not affected. Afterwards all process-wide settings are restored, also
after a failure. Objects that were registered meanwhile stay registered.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, KeysView, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import ObjectsNotFoundError
from keras_ckpt_tools.inspection.configs import is_class_of_keras, is_function_of_keras, strings_of
from keras_ckpt_tools.inspection.verdicts import CODE_LAYERS
from keras_ckpt_tools.showing.messages import literal

__all__ = ["POINTS", "Allowed", "closed_room"]

# Keys of Keras' state of the thread: safe mode, and the objects that several places of one config
# share. Keras has no public setting for either.
_SAFE_MODE = "safe_mode_saving"
_SHARED = ("shared_objects/id_to_obj_map", "shared_objects/id_to_config_map")
# Values that Keras 3 writes to `.h5`, and that its reader converts too early.
_LATER = ("__bytes__", "__ellipsis__")
# Counters and collections, which change with every layer.
_NO_SETTINGS = (dict, list, set)

_NOTHING = object()

_building = threading.RLock()


@dataclass(frozen=True)
class Allowed:
    """What a build may look up, besides Keras' own objects.

    Attributes:
        objects: The resolved objects, by the names in the file.
        runs_code: Whether code in the file may run.
        code: The strings of that code.
        vouches_for: Whether an object may be looked up by a name that the file does not contain.
        trusts: Whether `trusted=` allows a name.
        instead: The caller's objects that replace Keras' own, by the names of those.
        asked: Collects the names that the user's code looks up.
    """

    objects: Mapping[str, Any]
    runs_code: bool = False
    code: frozenset[str] = frozenset()
    vouches_for: Callable[[str, Any], bool] = lambda name, obj: False
    trusts: Callable[[str], bool] = lambda name: False
    instead: Mapping[str, Any] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)


@contextmanager
def closed_room(allowed: Allowed, *configs: Any, path: str = "") -> Iterator[None]:
    """Give Keras exactly the allowed objects while it builds from a file.

    Args:
        allowed: What may be looked up.
        *configs: The configs that Keras builds from; their strings cannot reach anything else.
        path: The file, for messages.

    Raises:
        ObjectsNotFoundError: something else was looked up.
    """
    state = internals.global_state
    lock = _Lock(allowed, configs, path)
    with _building, _settings_kept():
        before = {name: state.get_global_attribute(name) for name in _ATTRIBUTES}
        state.set_global_attribute(internals.CUSTOM_OBJECTS_SCOPE, dict(allowed.objects))
        state.set_global_attribute(_SAFE_MODE, not allowed.runs_code)
        for name in _SHARED:
            state.set_global_attribute(name, {})
        try:
            with lock.closed():
                yield
        except Exception as error:
            if lock.refusal is not None and error is not lock.refusal:
                raise lock.refusal from error
            raise
        finally:
            for name, value in before.items():
                state.set_global_attribute(name, value)
        if lock.refusal is not None:
            raise lock.refusal  # Keras catches some errors and continues with half a model.


_ATTRIBUTES = (internals.CUSTOM_OBJECTS_SCOPE, _SAFE_MODE, *_SHARED)


class _Table(MutableMapping[str, Any]):
    """Keras' table of registered objects: one thread sees what is allowed, others see all."""

    def __init__(self, allowed: Allowed, said: frozenset[str]):
        self._allowed = allowed
        self._said = said
        self._thread = threading.get_ident()
        self._all: dict[str, Any] = internals.GLOBAL_CUSTOM_OBJECTS
        self._seen: dict[str, Any] | None = None
        self._shown: dict[str, Any] = {}

    def _here(self) -> dict[str, Any]:
        """Return all visible entries, for iteration."""
        if threading.get_ident() != self._thread:
            return self._all
        if self._seen != self._all:  # Something was registered meanwhile.
            self._seen = dict(self._all)
            found = {name: self.get(name, _NOTHING) for name in self._seen}
            self._shown = {name: obj for name, obj in found.items() if obj is not _NOTHING}
            self._shown.update(self._allowed.objects)
        return self._shown

    def in_file(self, name: str) -> bool:
        """Return whether the file contains a name, qualified or bare."""
        return name in self._said or name.rpartition(">")[2] in self._said

    def hides(self, name: Any) -> bool:
        """Return whether a name is in Keras' table, but hidden."""
        return isinstance(name, str) and name in self._all and name not in self

    def copy(self) -> dict[str, Any]:
        """Return the visible value of a name, as `dict.get` does."""
        return dict(self._here())

    def keys(self) -> KeysView[str]:
        """Return the visible names; Keras reads them for each object that it makes."""
        return self._here().keys()

    def get(self, name: Any, default: Any = None) -> Any:
        """Return the visible object of one name, without building the whole table."""
        if threading.get_ident() != self._thread:
            return self._all.get(name, default)
        if name in self._allowed.objects:
            return self._allowed.objects[name]
        found = self._all.get(name, _NOTHING)
        if found is _NOTHING or self.in_file(name) or not self._allowed.vouches_for(name, found):
            return default
        return found

    def __contains__(self, name: Any) -> bool:
        if isinstance(name, str):
            self._allowed.asked.add(name)
        return self.get(name, _NOTHING) is not _NOTHING

    def __getitem__(self, name: str) -> Any:
        if isinstance(name, str):
            self._allowed.asked.add(name)
        found = self.get(name, _NOTHING)
        if found is _NOTHING:
            raise KeyError(name)
        return found

    def __setitem__(self, name: str, obj: Any) -> None:
        self._all[name] = obj

    def __delitem__(self, name: str) -> None:
        del self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._here())

    def __len__(self) -> int:
        return len(self._here())


class _Lock:
    """Compares each lookup during a build with what is allowed."""

    def __init__(self, allowed: Allowed, configs: tuple[Any, ...], path: str):
        self.refusal: ObjectsNotFoundError | None = None
        self._allowed = allowed
        self._configs = configs
        self._path = path
        self._said = frozenset(strings_of(*configs))
        self._table = _Table(allowed, self._said)
        # Keras' own objects that were allowed before, by all facts that decided it.
        self._own: dict[tuple[Any, ...], Any] = {}

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Isolate this thread."""
        registration = internals.object_registration
        with ExitStack() as stack:
            stack.enter_context(_replaced(registration, "GLOBAL_CUSTOM_OBJECTS", self._table))
            for holder, name, method in POINTS:
                checked = functools.partial(method, self)
                stack.enter_context(_in_this_thread(holder, name, checked))
            yield

    def _refuse(self, name: str, what: str, node: Any) -> ObjectsNotFoundError:
        place = _place_of(node, self._configs)
        if place:
            where = f"at {place}, which the inspection of the file has missed"
            remedy = (
                "Please report it with the config of the file; this is a bug of keras_ckpt_tools."
            )
        else:
            where = "by code that runs while the model is built"
            trusted = f"trusted=[{literal(name)}]"
            remedy = f"Allow it with `{trusted}`, or let that code create the object directly."
        self.refusal = ObjectsNotFoundError(
            f"The file needs 1 object that cannot be used: {what} {name!r}, {where}. It was not "
            "imported, built or run.",
            received=f"path={self._path!r}",
            remedy=remedy,
            path=self._path,
            missing=(),
            untrusted=(name,),
            refused=(),
        )
        return self.refusal

    def _is_of_keras(self, name: str, module: str | None, kind: str) -> bool:
        if name in CODE_LAYERS:
            return is_class_of_keras(name, module) and self._allowed.trusts(name)
        of_kind = is_function_of_keras if kind == "function" else is_class_of_keras
        return of_kind(name, module)

    def retrieve(
        self,
        original: Any,
        name: Any,
        registered_name: Any,
        module: Any,
        obj_type: str,
        full_config: Any,
        custom_objects: Any = None,
    ) -> Any:
        key = name if obj_type == "function" else registered_name
        asked = (name, registered_name, module, obj_type)
        # For a name of the file, only a scope that code has opened can return another object.
        own = self._own.get(asked)
        if own is not None and key not in _scope() and key not in (custom_objects or ()):
            return own
        registered = internals.object_registration.get_registered_object
        custom = registered(key, custom_objects=custom_objects)
        arguments = (name, registered_name, module, obj_type, full_config, custom_objects)
        if custom is not None:
            return _with_from_config(original(*arguments))
        stated = None if obj_type == "function" and module == "builtins" else module
        of_keras = self._is_of_keras(str(name), stated, obj_type)
        if of_keras and name in self._allowed.instead:
            return _with_from_config(self._allowed.instead[name])
        if module and module != "builtins" and not of_keras:
            raise self._refuse(str(key or name), f"the {obj_type}, of {module},", full_config)
        try:
            found = original(*arguments)
        except TypeError as error:
            if self._table.hides(key):
                raise self._refuse(str(key), f"the {obj_type}", full_config) from error
            raise
        if not of_keras and not any(found is own for own in (custom_objects or {}).values()):
            raise self._refuse(str(name), f"the {obj_type}", full_config)
        answer = _with_from_config(found)
        if of_keras and (key is None or key in self._said):
            self._own[asked] = answer
        return answer

    def registered(
        self, original: Any, name: Any, custom_objects: Any = None, module_objects: Any = None
    ) -> Any:
        found = original(name, custom_objects=custom_objects)
        if found is None and module_objects and self._is_of_keras(str(name), None, "class"):
            # The rest of that module are Keras' own tools, such as `deserialize`.
            return module_objects.get(name)
        return found

    def legacy_class(
        self,
        original: Any,
        config: Any,
        module_objects: Any = None,
        custom_objects: Any = None,
        printable_module_name: str = "object",
    ) -> Any:
        name = config.get("class_name") if isinstance(config, dict) else None
        if isinstance(name, str):
            registered = internals.object_registration.get_registered_object
            there = name in (module_objects or {}) or self._table.hides(name)
            if there and registered(name, custom_objects, module_objects) is None:
                raise self._refuse(name, "the class", config)
        return original(config, module_objects, custom_objects, printable_module_name)

    def decode(self, original: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(obj, dict) and obj.get("class_name") in ("TypeSpec", "CompositeTensor"):
            raise self._refuse(str(obj["class_name"]), "the class", obj)
        if isinstance(obj, dict) and obj.get("class_name") in _LATER and "config" in obj:
            return obj
        return original(obj, *args, **kwargs)

    def load_code(
        self, original: Any, code: Any, defaults: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        text = code[0] if isinstance(code, (list, tuple)) and code else code
        if text in self._said and text not in self._allowed.code:
            raise self._refuse("lambda", "the bytecode", text)
        # JSON has no tuples, and Python needs one for defaults: `lambda t, k=k: ...`.
        defaults = tuple(defaults) if isinstance(defaults, list) else defaults
        return original(code, defaults, *args, **kwargs)

    def set_vocabulary(
        self, original: Any, layer: Any, vocabulary: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if isinstance(vocabulary, str) and vocabulary in self._said:
            name = f"path:{vocabulary}"
            if not self._allowed.trusts(name):
                raise self._refuse(name, "the file", vocabulary)
        return original(layer, vocabulary, *args, **kwargs)


def _scope() -> Any:
    return internals.global_state.get_global_attribute(internals.CUSTOM_OBJECTS_SCOPE) or ()


def _with_from_config(found: Any) -> Any:
    """Return a class with a `from_config`, which Keras requires.

    As in Keras' own base classes, `from_config` of a plain class is `cls(**config)`.
    """
    if not inspect.isclass(found) or hasattr(found, "from_config"):
        return found
    return _Plain(found)


class _Plain:
    """Gives a class the `from_config` that Keras' deserialization requires."""

    def __init__(self, cls: type):
        self._cls = cls

    def from_config(self, config: Mapping[str, Any]) -> Any:
        return self._cls(**config)

    def __repr__(self) -> str:
        return repr(self._cls)


# The functions with which Keras looks up names, and the check of each.
POINTS: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (internals.serialization_lib, "_retrieve_class_or_fn", _Lock.retrieve),
    (internals.object_registration, "get_registered_object", _Lock.registered),
    (
        internals.legacy_serialization,
        "class_and_config_for_serialized_keras_object",
        _Lock.legacy_class,
    ),
    (internals.legacy_json_utils, "_decode_helper", _Lock.decode),
    (internals.python_utils, "func_load", _Lock.load_code),
    (internals.IndexLookup, "set_vocabulary", _Lock.set_vocabulary),
)


@contextmanager
def _replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


@contextmanager
def _in_this_thread(holder: Any, name: str, checked: Callable[..., Any]) -> Iterator[None]:
    """Call `checked` with the function in place of the function, in this thread."""
    thread = threading.get_ident()
    before = getattr(holder, name)
    # A load within a load has its own lock.
    original = getattr(before, "_kct_original", before)

    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == thread:
            return checked(original, *args, **kwargs)
        return original(*args, **kwargs)

    call._kct_original = original  # type: ignore[attr-defined]
    with _replaced(holder, name, call):
        yield


def _place_of(node: Any, configs: tuple[Any, ...]) -> str:
    """Return the place of a value in configs, or nothing."""
    todo: list[tuple[Any, str]] = [(config, "$") for config in configs]
    while todo:
        value, where = todo.pop()
        if type(value) is type(node) and value == node:
            return where
        if isinstance(value, Mapping):
            todo.extend((item, f"{where}.{key}") for key, item in value.items())
        elif isinstance(value, (list, tuple)):
            todo.extend((item, f"{where}[{index}]") for index, item in enumerate(value))
    return ""


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Restore all settings of the process and of the thread.

    These are the variables of Keras' module of settings, and the attributes of its state without
    counters and collections.
    """
    config = vars(internals.backend_config)
    before = {name: value for name, value in config.items() if _is_setting(name)}
    state = dict(_state())
    try:
        yield
    finally:
        for name, value in before.items():
            if config[name] is not value:
                config[name] = value
        now = _state()
        for name in [name for name, value in now.items() if value is not state.get(name)]:
            old = state.get(name)
            if isinstance(old, _NO_SETTINGS) or isinstance(now[name], _NO_SETTINGS):
                continue
            if name == internals.GLOBAL_SEED_GENERATOR:
                continue  # Created with the first random number; it is not reset.
            if old is None:
                del now[name]
            else:
                now[name] = old


def _is_setting(name: str) -> bool:
    return name.startswith("_") and name[1:2].isupper()


def _state() -> dict[str, Any]:
    state: dict[str, Any] = vars(internals.global_state.GLOBAL_STATE_TRACKER)
    return state

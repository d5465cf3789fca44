"""`check_serializable`: test `get_config` and `from_config` with an object.

The decorator sees only the class; this test needs an object. It converts the config to JSON and
back, as saving does, so nested objects reach `from_config` as dictionaries, where most errors are.
Then it compares the two configs and the attributes of the two objects. One message lists all
problems.

The test restores Keras' state: names of nested custom objects are registered only temporarily, and
the counters of automatic names (`dense_1`) and Python's random generator are restored.
"""

from __future__ import annotations

import inspect
import json
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from keras_ckpt_tools.errors import ArgumentError, NotSerializableError
from keras_ckpt_tools.registry import mirror
from keras_ckpt_tools.registry.definitions import require_nameable
from keras_ckpt_tools.registry.rebuildable import (
    config_method,
    has_automatic_config,
    init_parameters,
    keras_parameters,
    require_rebuildable,
)

_PLAIN = (str, int, float, bool, type(None))


def check_serializable(obj: Any) -> dict[str, Any]:
    """Check that an object can be rebuilt from its config.

    Use it in the tests of your own layers, losses, metrics and other objects: it finds errors that
    otherwise appear only when a file is loaded.

    Args:
        obj: An object, a class that can be called without arguments, or a function.

    Returns:
        The object's config; for a function, what Keras writes for it.

    Raises:
        ArgumentError: A class that needs arguments was passed; pass an object instead.
        NotSerializableError: The message lists all problems: arguments that `get_config` does not
            return, values that change, values that JSON cannot represent. The attribute `lost` has
            the missing arguments.

    Example:

    >>> class Scale:
    ...     def __init__(self, factor=2.0, offset=0.0):
    ...         self.factor, self.offset = factor, offset
    ...     def get_config(self):
    ...         return {"factor": self.factor}
    ...     @classmethod
    ...     def from_config(cls, config):
    ...         return cls(**config)
    >>> check_serializable(Scale(3.0))
    Traceback (most recent call last):
        ...
    keras_ckpt_tools.errors.NotSerializableError: Scale cannot be rebuilt...
    """
    import keras

    if isinstance(obj, FunctionType):
        require_nameable(obj)
        written: dict[str, Any] = keras.saving.serialize_keras_object(obj)
        return written
    with _untouched():
        if isinstance(obj, type):
            obj = _instance(obj)
        return _Trial(obj).config


def try_round_trip(obj: Any, *, rebuild: bool = True) -> None:
    """Do what `check_serializable` does with an object.

    Args:
        obj: The object.
        rebuild: Whether it may be built a second time; otherwise, only its config is looked at.

    Raises:
        NotSerializableError: it cannot be built again.
    """
    with _untouched():
        _Trial(obj, rebuild=rebuild)


def _instance(cls: type) -> Any:
    require_rebuildable(cls, cls.__name__, cls.__module__)
    try:
        return cls()
    except Exception as error:
        raise ArgumentError(
            f"{cls.__name__} cannot be created without arguments: {error}",
            received=f"obj={cls!r}",
            remedy=f"Pass an object: check_serializable({cls.__name__}(...)).",
        ) from error


class _Trial:
    """One round trip; all faults are gathered before anything is raised."""

    def __init__(self, obj: Any, *, rebuild: bool = True):
        self.obj = obj
        self.cls = type(obj)
        self.faults: list[str] = []
        self.cause: Exception | None = None
        require_rebuildable(self.cls, self.cls.__name__, self.cls.__module__)
        self.config = self._config_of(obj, "get_config()")
        self.lost = self._lost()
        first = self._as_json(self.config)
        if rebuild and not self.faults:
            self._rebuild(first)
        if self.faults or self.lost:
            self._raise()

    def _config_of(self, obj: Any, what: str) -> dict[str, Any]:
        try:
            config = obj.get_config()
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            self.cause = error
            self.faults.append(f"{what} raises {type(error).__name__}: {_first_line(error)}")
            return {}
        if not isinstance(config, dict):
            self.faults.append(f"{what} returns {config!r}, not a dictionary")
            return {}
        return config

    def _lost(self) -> tuple[str, ...]:
        if _is_custom_from_config(self.cls):
            return ()  # Its author maps keys to arguments some other way.
        inherited = keras_parameters(self.cls)
        starred = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        # Keras 3.10 leaves out of its automatic config what was not passed, so the default counts.
        automatic = has_automatic_config(self.cls)
        return tuple(
            p.name
            for p in init_parameters(self.cls)
            if p.kind not in starred
            and p.name not in self.config
            and p.name not in inherited
            and not (automatic and p.default is not p.empty)
        )

    def _as_json(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config as it comes out of a file."""
        import keras

        plain: dict[str, Any] = {}
        for key, value in config.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Keras' own on lambdas; ours is the error.
                    written = keras.saving.serialize_keras_object(value)
                plain[key] = json.loads(json.dumps(written))
            except Exception as error:  # noqa: BLE001 - likewise
                self.cause = error
                self.faults.append(f"the value of {key!r} does not fit into JSON: {value!r}")
                continue
            if _has_lambda(plain[key]):
                self.faults.append(f"the value of {key!r} is a lambda, make it a named function")
            if _has_odd_keys(value):
                self.faults.append(f"{key!r} has keys that are no strings: {value!r}")
        return plain

    def _rebuild(self, first: dict[str, Any]) -> None:
        layer = mirror.open_layer(_nested(self.obj))
        try:
            copy = self.cls.from_config(json.loads(json.dumps(first)))
        except Exception as error:  # noqa: BLE001 - likewise
            self.cause = error
            if not self.lost:
                self.faults.append(f"from_config() fails: {_last_line(error)}")
            return
        finally:
            mirror.close(layer)
        second = self._as_json(self._config_of(copy, "get_config() of the rebuilt object"))
        if _own_layers(self.obj):
            second = _with_names_of(first, second)
        changed = {}
        for key in sorted(first.keys() | second.keys()):
            before, after = first.get(key, "nothing"), second.get(key, "nothing")
            if json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True):
                changed[key] = f"{key!r} was {before!r} and comes back as {after!r}"
        for key in dict.fromkeys((*first, *(p.name for p in init_parameters(self.cls)))):
            if (
                key not in changed
                and key not in self.lost
                and hasattr(self.obj, key)
                and hasattr(copy, key)
            ):
                how = _difference(getattr(self.obj, key), getattr(copy, key))
                if how:
                    changed[key] = f"the attribute {key!r} {how}"
        self.faults += changed.values()

    def _blame_parts(self) -> None:
        """Raise the errors of layers in it that cannot be built again, if there are any."""
        errors: dict[str, NotSerializableError] = {}
        for part in _own_layers(self.obj):
            if type(part).__name__ not in errors:
                try:
                    _Trial(part)
                except NotSerializableError as error:
                    errors[type(part).__name__] = error
        if not errors:
            return
        whats = [error.what.rstrip(".") for error in errors.values()]
        remedies = dict.fromkeys(str(error.remedy) for error in errors.values())
        first = next(iter(errors.values()))
        raise NotSerializableError(
            f"{self.cls.__name__} cannot be built again, because of what it is made of: "
            f"{'; '.join(whats)}.",
            received=f"obj={self.obj!r}",
            remedy="\n\n".join(remedies),
            name=first.name,
            lost=first.lost,
        ) from first

    def _raise(self) -> None:
        self._blame_parts()
        faults = list(self.faults)
        if self.lost:
            lost = ", ".join(f"`{name}`" for name in self.lost)
            faults.insert(0, f"get_config() does not return {lost}, which __init__ takes")
        remedy = (
            "Return every argument of __init__ from get_config(), as numbers, texts, lists and "
            "dictionaries. Turn nested objects into their configs there with "
            "keras.saving.serialize_keras_object, and back in from_config() with "
            "keras.saving.deserialize_keras_object."
        )
        if self.lost:
            remedy += f" For this class:\n\n{config_method(self.cls)}"
        raise NotSerializableError(
            f"{self.cls.__name__} cannot be rebuilt from its config: {'; '.join(faults)}.",
            received=f"obj={self.obj!r}",
            remedy=remedy,
            name=self.cls.__name__,
            lost=self.lost,
        ) from self.cause


def _difference(before: Any, after: Any) -> str | None:
    """Say how an attribute came back, where that can be told."""
    if isinstance(after, Mapping) and not isinstance(before, Mapping) and "class_name" in after:
        return f"was {before!r} and comes back as its config; build it in from_config()"
    if _is_plain(before) and _is_plain(after):
        # JSON has no tuples, and NaN is not equal to itself.
        one, other = (list(v) if isinstance(v, tuple) else v for v in (before, after))
        same = one == other or repr(one) == repr(other)
        return None if same else f"was {before!r} and comes back as {after!r}"
    return None


def _own_layers(obj: Any) -> list[Any]:
    """Return the layers in a layer or model whose classes are not Keras' own."""
    import keras

    if not isinstance(obj, keras.Layer):
        return []
    inner = obj._flatten_layers(include_self=False)
    return [one for one in inner if type(one).__module__.partition(".")[0] != "keras"]


def _with_names_of(first: Any, second: Any) -> Any:
    """Return the second config of a model, with names as in the first where layers have new ones.

    An automatic config does not have the name of its layer; a model finds its layers all the same.
    """
    names: dict[str, str] = {}
    todo = [(first, second)]
    while todo:
        one, other = todo.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if "class_name" in one and isinstance(one.get("name"), str):
                names[str(other.get("name"))] = one["name"]
            todo += [(value, other.get(key)) for key, value in one.items()]
        elif isinstance(one, list) and isinstance(other, list):
            todo += zip(one, other, strict=False)

    def named(value: Any) -> Any:
        if isinstance(value, str):
            return names.get(value, value)
        if isinstance(value, list):
            return [named(item) for item in value]
        return {k: named(v) for k, v in value.items()} if isinstance(value, dict) else value

    return named(second)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, _PLAIN) for item in value)
    return isinstance(value, _PLAIN)


def _is_custom_from_config(cls: type) -> bool:
    owner = next((base for base in cls.__mro__ if "from_config" in vars(base)), object)
    if owner.__module__.partition(".")[0] == "keras":
        return False
    # One that only calls `cls(**config)` is the default, written out: it uses no other name.
    method = vars(owner)["from_config"]
    code = getattr(getattr(method, "__func__", method), "__code__", None)
    return code is None or bool(code.co_names)


def _nested(obj: Any) -> dict[str, Any]:
    """Return the classes and functions of one's own inside `obj`, by the name Keras writes."""
    import keras

    found: dict[str, Any] = {}
    seen: set[int] = set()
    waiting = [obj]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, (*_PLAIN, type)):
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set)):
            waiting += value
        elif isinstance(value, FunctionType) or hasattr(value, "get_config"):
            owner = value if isinstance(value, FunctionType) else type(value)
            if owner.__module__.partition(".")[0] != "keras":
                found[keras.saving.get_registered_name(owner)] = owner
            waiting += getattr(value, "__dict__", {}).values()
    found.pop("<lambda>", None)
    return found


def _has_lambda(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("class_name") == "__lambda__" or any(map(_has_lambda, value.values()))
    return isinstance(value, list) and any(map(_has_lambda, value))


def _has_odd_keys(value: Any) -> bool:
    if isinstance(value, Mapping):
        odd = any(not isinstance(key, str) for key in value)
        return odd or any(map(_has_odd_keys, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_odd_keys, value))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def _last_line(error: Exception) -> str:
    # Keras puts the whole config first, and the reason at the end.
    return next(reversed(str(error).strip().splitlines() or [type(error).__name__]))


@contextmanager
def _untouched() -> Iterator[None]:
    from keras_ckpt_tools._keras_internals import global_state

    counters = global_state.get_global_attribute("object_name_uids")
    before = None if counters is None else counters.copy()
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
        global_state.set_global_attribute("object_name_uids", before)

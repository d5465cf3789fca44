"""Decide which values of a checkpoint may be assigned to the attributes of a callback.

A checkpoint may have been edited by anyone, and the attributes of a callback decide where the next
run writes. So the state of a callback must follow a schema:

* For Keras' own callbacks, `known_callbacks` lists the attributes that training changes, each with
  its type. No other attribute is restored.
* For custom callbacks, an attribute is restored if the callback has it (the object does, or its
  class assigns it) and the value has the same kind as the present one. Numbers, booleans and arrays
  of numbers are one kind; `None` may become a number, and a number `None`.
* Text is restored only if it is clearly not a path: neither the attribute's name nor the text looks
  like a location, and the present value is text, or the text is a literal of the class. For other
  text, define `get_state` and `set_state`.
* Functions, modules, and attributes that Keras' class assigns for itself are never restored.

The same rules apply at a save, so a warning during training names what would not be restored.
"""

from __future__ import annotations

import dis
import enum
import functools
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools.training.state.attributes import MISSING, View, holds_values
from keras_ckpt_tools.training.state.known_callbacks import no_state_in, schema_of

_TEXT = (str, bytes)
_CONTAINERS = (dict, list, tuple, set, frozenset)

# Words in the name of an attribute or key whose text is used as a location or is executed.
_PLACES = frozenset(
    "file files filename filenames filepath filepaths path paths dir dirs directory directories "
    "folder folders root url urls uri uris host address bucket log logdir out output outputs dest "
    "destination location prefix suffix save saved backup checkpoint checkpoints ckpt command cmd "
    "exec script module import".split()
)


def refusal(callback: Any, name: Any, content: Any, present: View | None) -> str | None:
    """Return why a value may not be assigned to an attribute of a callback; `None` if it may.

    Args:
        callback: The callback object.
        name: Name of the attribute.
        content: The tree of a `View`, or any value from a record.
        present: The present value; `None` if the object has no attribute of that name.

    >>> refusal(keras.callbacks.CSVLogger("log.csv"), "filename", "/etc/passwd", None)
    'it is not state of a CSVLogger'
    """
    kind: Any = type(callback)
    if not isinstance(name, str) or name.startswith("__") or name in no_state_in(callback):
        return f"it is not state of a {kind.__name__}"
    schema, own = schema_of(callback)
    if name in schema and schema[name](content, callback):
        return None
    if not own:
        wrong = "its value has another type or range" if name in schema else None
        return wrong or f"it is not state of a {kind.__name__}"
    static = inspect.getattr_static(kind, name, MISSING)
    if static is not MISSING and (callable(static) or hasattr(type(static), "__get__")):
        return "it is a method or a property of the class"
    if present is None and static is MISSING and name not in _assigned_by(kind, keras_only=False):
        return f"a {kind.__name__} has no such attribute"
    if present is not None and present.opaque:
        return "it contains something that a file cannot contain"
    if name in _assigned_by(kind, keras_only=True) and not _is_number(content):
        return "it is an argument of Keras' class"
    old = MISSING if present is None else present.tree
    if present is None and static is not MISSING and isinstance(static, (*_TEXT, int, float)):
        old = static  # A default value in the class: `count = 0`.
    judge = _Judge(kind, {} if present is None else present.kinds)
    return judge.refusal(old, content, "", _names_a_place(name))


class _Judge:
    """Compares a value with the present one.

    Args:
        kind: The class of the callback.
        kinds: The types of objects that can only be filled, by place.
    """

    def __init__(self, kind: type, kinds: Mapping[str, type]):
        self._class = kind
        self._kinds = kinds

    def refusal(
        self, old: Any, new: Any, place: str, named: bool, inside: bool = False
    ) -> str | None:
        """Return why the value is refused, or `None`.

        Args:
            old: The present value; `MISSING` if there is none.
            new: The value from the record.
            place: Its place, as in `View.kinds`.
            named: Whether a name in the place shows that text there is a location.
            inside: Whether it is a new item of an existing container.
        """
        kind = self._kinds.get(place)
        if kind is not None:
            place += "/"
            if issubclass(kind, enum.Enum):
                known = isinstance(new, str) and new in kind.__members__
                return None if known else f"{kind.__name__} has no such member"
            if not holds_values(kind):
                return None  # The object restores its own state, or raises an error.
        if new is None or (_is_number(new) and (old is MISSING or old is None or _is_number(old))):
            return None
        if isinstance(new, _TEXT):
            return self._refused_text(old, new, named, inside)
        if old is not MISSING and old is not None and type(old) is not type(new):
            return f"it is a {type(new).__name__}, but the present value is {_shown_kind(old)}"
        if type(new) not in _CONTAINERS:
            return f"it is a {type(new).__name__}"
        there = old if type(old) in _CONTAINERS else None
        for child, was, where, name in _children(new, there, place):
            of_child = named or (name is not None and _names_a_place(name))
            new_here = there is not None and was is MISSING
            if isinstance(name, _TEXT) and was is MISSING and (looks_like_path(name) or named):
                return "a key in it may be a path"
            found = self.refusal(was, child, where, of_child, new_here)
            if found is not None:
                return found
        return None

    def _refused_text(self, old: Any, new: str | bytes, named: bool, inside: bool) -> str | None:
        fits = inside or old is None or old is MISSING or type(old) is type(new)
        if not fits:
            return f"it is text, but the present value is {_shown_kind(old)}"
        own = new in _literals_of(self._class)
        if named or looks_like_path(new, exists=not own):
            return "it may be a path"
        if isinstance(old, _TEXT):
            return "the present value is a path" if looks_like_path(old, exists=False) else None
        return None if inside or own or not new else "it is text that may be a path"


def looks_like_path(text: str | bytes, exists: bool = True) -> bool:
    r"""Return whether text may be a path, a URL, or a pattern of one.

    Args:
        text: The text to check.
        exists: Whether the name of something in the working directory counts as a path.

    >>> looks_like_path("runs/a"), looks_like_path("b.keras"), looks_like_path("warm up")
    (True, True, False)
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if not text or "\0" in text:  # No system call accepts these.
        return False
    if "/" in text or "\\" in text or text[0] in "~.$%":
        return True
    if re.match(r"[A-Za-z]:\S", text) or re.search(r"\.[A-Za-z]\w{0,9}$", text):
        return True
    try:
        return exists and os.path.lexists(text)
    except (OSError, ValueError):
        return False


def _children(new: Any, old: Any, place: str) -> Iterator[tuple[Any, Any, str, Any]]:
    """Yield each item, the present value in its place, the place, and the key."""
    if isinstance(new, dict):
        there = old if isinstance(old, dict) else {}
        for key, child in new.items():
            yield child, there.get(key, MISSING), f"{place}/{key!r}", key
        return
    ordered = isinstance(new, (list, tuple))
    before = list(old) if ordered and isinstance(old, (list, tuple)) else []
    for index, child in enumerate(new):
        was = before[index] if index < len(before) else MISSING
        yield child, was, f"{place}/{index}", None


def _is_number(value: Any) -> bool:
    if isinstance(value, (bool, int, float, complex)):
        return True
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufcV"


def _shown_kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def _names_a_place(name: Any) -> bool:
    """Return whether a name contains a word for a location.

    >>> _names_a_place("logDir"), _names_a_place("best_filepath"), _names_a_place("phase")
    (True, True, False)
    """
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    if not isinstance(name, str):
        return False
    words = re.split(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])", name)
    return any(word.lower() in _PLACES for word in words)


# Facts about a class: the attributes that its methods assign, and its literals.


@functools.lru_cache(maxsize=256)
def _assigned_by(kind: type, *, keras_only: bool) -> frozenset[str]:
    """Return the attributes that the methods of a class and its bases assign.

    Args:
        kind: The class.
        keras_only: Whether only Keras' own base classes count.
    """
    names: set[str] = set()
    for base in kind.__mro__:
        if base is object or (keras_only and not base.__module__.startswith("keras.")):
            continue
        names.update(vars(base).get("__annotations__", ()))
        for code in _codes_of(base):
            # Any variable: `self` may have another name.
            names |= {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_ATTR"}
    return frozenset(names)


@functools.lru_cache(maxsize=256)
def _literals_of(kind: type) -> frozenset[Any]:
    found: set[Any] = set()
    for base in kind.__mro__:
        if base is object or issubclass(keras.callbacks.Callback, base):
            continue
        found |= {v for v in vars(base).values() if type(v) in _TEXT}
        for code in _codes_of(base):
            found |= set(_texts_in(code.co_consts))
    return frozenset(found)


def _texts_in(constants: Any) -> Iterator[Any]:
    for constant in constants:
        if type(constant) in _TEXT:
            yield constant
        elif isinstance(constant, (tuple, frozenset)):
            yield from _texts_in(constant)


def _codes_of(kind: type) -> Iterator[CodeType]:
    for value in vars(kind).values():
        functions = [value.fget, value.fset] if isinstance(value, property) else [value]
        for function in functions:
            inner = getattr(function, "__func__", function)
            code = getattr(inspect.unwrap(inner) if callable(inner) else None, "__code__", None)
            if isinstance(code, CodeType):
                yield from _with_inner(code)


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)

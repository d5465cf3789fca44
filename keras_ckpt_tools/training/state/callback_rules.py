"""Which values of a record may go into a callback: record -> *rules* -> `callback_keepers`.

A checkpoint is a file that somebody else may have edited, and a callback's attributes decide where
the next run writes. So the state of a callback is data by a schema, and never simply "what the
file says":

* Of Keras' own callbacks, `known_callbacks` lists the attributes that training changes, each with
  its type. Nothing else is restored.
* Of a callback of the user's, an attribute is restored if the callback has it (the object does, or
  its class assigns it), and if the value is of the kind that is there. Numbers, truth values and
  arrays of numbers are one kind; `None` may become a number, and the other way round.
* Text is restored where it is plainly no path: neither the attribute's name nor the text looks like
  a place to write to, and there is text already, or the text is a literal of the class. For all
  other text there are `get_state` and `set_state`.
* Functions, modules, and attributes that Keras' class assigns for itself are never restored.

The same rules decide at a save, so what a restart would not restore is said while training runs.
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

# Words in the name of an attribute or of a key: text that stands there is used as a place, or run.
_PLACES = frozenset(
    "file files filename filenames filepath filepaths path paths dir dirs directory directories "
    "folder folders root url urls uri uris host address bucket log logdir out output outputs dest "
    "destination location prefix suffix save saved backup checkpoint checkpoints ckpt command cmd "
    "exec script module import".split()
)


def refusal(callback: Any, name: Any, content: Any, present: View | None) -> str | None:
    """Return why a value may not go into an attribute of a callback; `None` where it may.

    Args:
        callback: The live callback.
        name: The attribute.
        content: The tree of a `View`, or what a record has in its place.
        present: What the attribute holds now; `None` where the object has none of that name.

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
        return "it holds something that a file cannot"
    if name in _assigned_by(kind, keras_only=True) and not _is_number(content):
        return "it is an argument of Keras' class"
    old = MISSING if present is None else present.tree
    if present is None and static is not MISSING and isinstance(static, (*_TEXT, int, float)):
        old = static  # A default that the class has: `count = 0`.
    judge = _Judge(kind, {} if present is None else present.kinds)
    return judge.refusal(old, content, "", _names_a_place(name))


class _Judge:
    """Holds a value against what is there.

    Args:
        kind: The class of the callback.
        kinds: The types of what can be filled and not made, by place.
    """

    def __init__(self, kind: type, kinds: Mapping[str, type]):
        self._class = kind
        self._kinds = kinds

    def refusal(
        self, old: Any, new: Any, place: str, named: bool, inside: bool = False
    ) -> str | None:
        """Return why not, or `None`.

        Args:
            old: What is there; `MISSING` where nothing is.
            new: What the record has.
            place: Where, as in `View.kinds`.
            named: Whether a name on the way says that text here is a place.
            inside: Whether it is a new item of a container that is there.
        """
        kind = self._kinds.get(place)
        if kind is not None:
            place += "/"
            if issubclass(kind, enum.Enum):
                known = isinstance(new, str) and new in kind.__members__
                return None if known else f"{kind.__name__} has no such member"
            if not holds_values(kind):
                return None  # It takes its own state back, or says what does not fit.
        if new is None or (_is_number(new) and (old is MISSING or old is None or _is_number(old))):
            return None
        if isinstance(new, _TEXT):
            return self._refused_text(old, new, named, inside)
        if old is not MISSING and old is not None and type(old) is not type(new):
            return f"it is a {type(new).__name__}, and {_shown_kind(old)} is there"
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
            return f"it is text, and {_shown_kind(old)} is there"
        own = new in _literals_of(self._class)
        if named or looks_like_path(new, exists=not own):
            return "it may be a path"
        if isinstance(old, _TEXT):
            return "a path is there" if looks_like_path(old, exists=False) else None
        return None if inside or own or not new else "it is text that may be a path"


def looks_like_path(text: str | bytes, exists: bool = True) -> bool:
    r"""Return whether text can be meant as a path, an address, or a pattern of one.

    Args:
        text: What to judge.
        exists: Whether the name of something in the working directory counts as a path.

    >>> looks_like_path("runs/a"), looks_like_path("b.keras"), looks_like_path("warm up")
    (True, True, False)
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if not text or "\0" in text:  # No system call takes these.
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
    """Yield each item, what is there in its place, where that is, and the key."""
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
    """Return whether a name has a word that means a place.

    >>> _names_a_place("logDir"), _names_a_place("best_filepath"), _names_a_place("phase")
    (True, True, False)
    """
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    if not isinstance(name, str):
        return False
    words = re.split(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])", name)
    return any(word.lower() in _PLACES for word in words)


# What a class itself says: the attributes that its methods assign, and its literals.


@functools.lru_cache(maxsize=256)
def _assigned_by(kind: type, *, keras_only: bool) -> frozenset[str]:
    """Return the attributes that the methods of a class assign, its bases included.

    Args:
        kind: The class.
        keras_only: Whether only what Keras' own bases assign counts.
    """
    names: set[str] = set()
    for base in kind.__mro__:
        if base is object or (keras_only and not base.__module__.startswith("keras.")):
            continue
        names.update(vars(base).get("__annotations__", ()))
        for code in _codes_of(base):
            # Any target: `self` may have another name.
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

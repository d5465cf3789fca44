"""Find variables in lists, dicts and modules, with their paths.

A path consists of indices, keys and attribute names, so two variables with the same name never
collide. Items without variables are returned separately, so that they can be refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import keras

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.errors import ArgumentError, NotBuiltError
from keras_ckpt_tools.live.keras_walk import variables_of


def is_variable(item: Any) -> bool:
    """Return whether something is one variable, of Keras or of TensorFlow."""
    return isinstance(item, (keras.Variable, *tf_kinds("Variable")))


def collect_variables(item: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the variables in a tree by path, and what in it would not be saved, likewise.

    Raises:
        ArgumentError: two keys of a dict read the same.
        NotBuiltError: there is something that has no variables yet.

    >>> import tensorflow as tf
    >>> found, strange = collect_variables({"a": [tf.Variable(1), 2]})
    >>> list(found), strange
    (['a/0/vars/0'], {'a/1': 2})
    """
    found: dict[str, Any] = {}
    strange: dict[str, Any] = {}
    _collect(item, "", found, strange, set())
    return found, strange


def is_generator(item: Any) -> bool:
    """Return whether this is a random generator whose `state` is a variable."""
    return isinstance(item, (keras.random.SeedGenerator, *tf_kinds("random.Generator")))


def _collect(
    item: Any, path: str, found: dict[str, Any], strange: dict[str, Any], above: set[int]
) -> None:
    if is_generator(item):
        item = item.state
    if is_variable(item):
        found[f"{path}vars/0"] = item
        return
    if id(item) in above:
        return
    above = above | {id(item)}
    children = _children(item, path)
    if children is None:
        strange[path.rstrip("/")] = item
        return
    if isinstance(item, tf_kinds("Module")):
        strange = {}  # Its attributes are whatever its author needs.
    for key, child in children:
        _collect(child, f"{path}{_segment(key)}/", found, strange, above)


def _children(item: Any, path: str) -> Iterable[tuple[str, Any]] | None:
    if isinstance(item, Mapping):
        names = [str(key) for key in item]
        if len(set(names)) < len(names):
            raise ArgumentError(
                "Two keys of a dict are the same as text, so their values would collide in a file.",
                received=f"keys={list(item)!r}",
                remedy="Use strings as keys.",
            )
        return zip(names, item.values(), strict=True)
    if isinstance(item, (list, tuple)):
        return ((str(index), child) for index, child in enumerate(item))
    if isinstance(item, tf_kinds("Module")):
        # TensorFlow keeps each variable a second time, in a table of its own.
        return sorted((k, v) for k, v in vars(item).items() if not k.startswith("_self_"))
    if isinstance(item, internals.KerasSaveable):
        if not getattr(item, "built", True):
            raise NotBuiltError(
                f"The object at {path.rstrip('/')!r}, in a list, dict or module, is not built: it "
                "has no variables yet.",
                received=f"{item!r}",
                remedy="Build it first, or track it with its own name: then it is built when "
                "it is restored.",
                name=path.rstrip("/"),
            )
        return ((str(index), child) for index, child in enumerate(variables_of(item)))
    return None


def _segment(key: str) -> str:
    # A slash would make a group and a dot is a path of its own to HDF5.
    return quote(key, safe="").replace(".", "%2E") or "%"

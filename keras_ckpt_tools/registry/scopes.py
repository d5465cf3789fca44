"""Names that are valid inside a `with` block.

They come after an explicit `custom_objects=` in the lookup. All scopes of a registry form one
stack, whichever thread opened them, so an input pipeline or a background load finds the names too.
The innermost scope is the one opened last. Scopes can be closed in any order.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.registry import mirror


def checked_objects(objects: Any, argument: str = "custom_objects") -> dict[str, Any]:
    """Return a copy of a mapping from names to classes and functions.

    Args:
        objects: What the user passed; `None` is an empty mapping.
        argument: Name of the argument, for the message.

    Raises:
        ArgumentError: It is no mapping, or keys or values cannot work; all are listed.

    >>> checked_objects({"relu2": max}), checked_objects(None)
    ({'relu2': <built-in function max>}, {})
    """
    if objects is None:
        return {}
    if not isinstance(objects, Mapping):
        raise ArgumentError(
            f"`{argument}` must be a mapping from names to classes and functions.",
            received=f"{argument}={objects!r}",
            remedy=f'Write {argument}={{"Name": Name}}.',
        )
    problems = []
    for key, value in objects.items():
        if not isinstance(key, str) or not key:
            problems.append(f"the key {key!r} is not a name")
        elif isinstance(value, type):
            continue
        elif hasattr(value, "get_config"):
            # An object has the arguments of one; a file needs the class, to build its own.
            kind = type(value).__name__
            problems.append(f"{key!r} is an object of class {kind}, pass {kind} itself")
        elif not callable(value):
            problems.append(f"{key!r} is {value!r}, neither a class nor a function")
    if problems:
        raise ArgumentError(
            f"`{argument}` cannot be used: {'; '.join(problems)}.",
            received=f"{argument}={objects!r}",
            remedy=f'Write {argument}={{"Name": Name}}, with the class or function as the value.',
        )
    return dict(objects)


class ScopePile:
    """The open scopes of one registry, the innermost first when iterated."""

    def __init__(self, *, mirrored: bool):
        self._mirrored = mirrored
        self._lock = threading.Lock()
        self._layers: list[mirror.Layer] = []

    def open(self, objects: Mapping[str, Any]) -> mirror.Layer:
        layer = mirror.open_layer(objects) if self._mirrored else mirror.Layer(objects)
        with self._lock:
            self._layers.append(layer)
        return layer

    def close(self, layer: mirror.Layer) -> None:
        with self._lock:
            self._layers = [other for other in self._layers if other is not layer]
        if self._mirrored:
            mirror.close(layer)

    def tables(self) -> list[dict[str, Any]]:
        """Return the open scopes, the innermost first."""
        with self._lock:
            tables = [layer.objects for layer in reversed(self._layers)]
        if self._mirrored:
            # What a stock `custom_object_scope` of this thread names was the user's wish as well.
            tables.append(dict(mirror.thread_scope()))
        return tables


class Scope:
    """What `Registry.scope` returns: open from `__enter__` to `__exit__`, as often as wanted."""

    def __init__(self, pile: ScopePile, objects: Mapping[str, Any]):
        self._pile = pile
        self._objects = objects
        self._open: list[mirror.Layer] = []

    def __enter__(self) -> Self:
        self._open.append(self._pile.open(self._objects))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pile.close(self._open.pop())

    def __repr__(self) -> str:
        state = "open" if self._open else "closed"
        return f"<{state} scope of {', '.join(self._objects) or 'no names'}>"

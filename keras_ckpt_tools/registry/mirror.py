"""Add names to Keras' own tables, so that plain `keras.models.load_model` finds them too.

Only the default registry is mirrored (and a `Registry(mirror=True)`). Keras looks a name up in a
dictionary of the thread (its custom object scope), then in a global one. Its scope replaces the
dictionary of the thread, so inner scopes hide outer ones, and other threads see none. A scope of
this package overlays the *global* dictionary, and changes that of the thread only if an outer scope
of Keras would take precedence. The original table, including later registrations, is restored when
the last scope is closed, in any order.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

_ABSENT: Final = object()
_lock = threading.RLock()
_threads = threading.local()


class Layer:
    """The names of one open scope. Once closed it counts no more, whichever thread closed it."""

    def __init__(self, objects: Mapping[str, Any]):
        self.objects = dict(objects)
        self.closed = False
        # Of the thread that opened it, where it lies over a scope of Keras.
        self.thread: _Overlay | None = None


class _Overlay:
    """Layers of names over a dictionary that is not ours."""

    def __init__(self, table: Callable[[], dict[str, Any]]):
        self._table = table
        self._layers: list[Layer] = []
        self._shown: dict[str, Any] = {}
        self._beneath: dict[str, Any] = {}

    def shows(self, name: str) -> bool:
        return name in self._shown

    def add(self, layer: Layer, names: Iterable[str]) -> None:
        self._layers.append(layer)
        self._refresh(names)

    def remove(self, layer: Layer) -> None:
        self._layers = [other for other in self._layers if not other.closed]
        self._refresh(layer.objects)

    def write(self, name: str, value: Any) -> None:
        """Set (or with `_ABSENT` delete) what lies beneath all scopes."""
        if name in self._shown:
            self._beneath[name] = value
        else:
            _set(self._table(), name, value)

    def read(self, name: str) -> Any:
        table = self._table()
        if name in self._shown and table.get(name, _ABSENT) is self._shown[name]:
            return self._beneath[name]
        return table.get(name, _ABSENT)

    def _refresh(self, names: Iterable[str]) -> None:
        table = self._table()
        for name in names:
            now = table.get(name, _ABSENT)
            if now is not self._shown.get(name, _ABSENT) or name not in self._shown:
                # First change, or changed by another program since: that value is now underneath.
                self._beneath[name] = now
            layers = [layer for layer in self._layers if name in layer.objects and not layer.closed]
            if layers:
                self._shown[name] = table[name] = layers[-1].objects[name]
            else:
                _set(table, name, self._beneath.pop(name))
                self._shown.pop(name, None)


def _set(table: dict[str, Any], name: str, value: Any) -> None:
    if value is _ABSENT:
        table.pop(name, None)
    else:
        table[name] = value


def _global_objects() -> dict[str, Any]:
    from keras_ckpt_tools._keras_internals import GLOBAL_CUSTOM_OBJECTS

    return GLOBAL_CUSTOM_OBJECTS  # type: ignore[no-any-return,unused-ignore]


def _global_names() -> dict[Any, str]:
    from keras_ckpt_tools._keras_internals import GLOBAL_CUSTOM_NAMES

    return GLOBAL_CUSTOM_NAMES  # type: ignore[no-any-return,unused-ignore]


def thread_scope() -> dict[str, Any]:
    """Return the objects of the `keras.saving.custom_object_scope` open in this thread."""
    if "keras" not in sys.modules:
        return {}
    from keras_ckpt_tools._keras_internals import CUSTOM_OBJECTS_SCOPE, global_state

    return global_state.get_global_attribute(CUSTOM_OBJECTS_SCOPE) or {}


def files_call(obj: Any) -> str:
    """Return the name that Keras writes for a class or function, or for the class of an object."""
    named = obj if hasattr(obj, "__qualname__") else type(obj)
    if "keras" in sys.modules:
        import keras

        return str(keras.saving.get_registered_name(named))
    return str(named.__name__)


class _ThreadOverlay(_Overlay):
    """An overlay on the scope of the thread that makes it; another thread may close it."""

    def __init__(self) -> None:
        super().__init__(self._latest)
        self._thread = threading.get_ident()
        self._seen: dict[str, Any] = {}

    def _latest(self) -> dict[str, Any]:
        # Keras gives each thread its own answer; the others have to go by the last one.
        if threading.get_ident() == self._thread:
            self._seen = thread_scope()
        return self._seen


_everywhere = _Overlay(_global_objects)


def _here() -> _ThreadOverlay:
    if not hasattr(_threads, "overlay"):
        _threads.overlay = _ThreadOverlay()
    overlay: _ThreadOverlay = _threads.overlay
    return overlay


def put(keys: Iterable[str], obj: Any, name: str) -> None:
    """Let Keras find `obj` under each of `keys`, and write `name` for it."""
    with _lock:
        for key in keys:
            _everywhere.write(key, obj)
        _global_names()[obj] = name


def take(keys: Iterable[str], obj: Any) -> None:
    """Remove `obj` from `keys`. Objects of other programs stay."""
    with _lock:
        for key in keys:
            if _everywhere.read(key) is obj:
                _everywhere.write(key, _ABSENT)


def forget(obj: Any, name: str) -> None:
    """Let Keras no longer write `name` for `obj`."""
    with _lock:
        if _global_names().get(obj) == name:
            del _global_names()[obj]


def held(key: str) -> Any:
    """Return what Keras has under `key`, scopes apart, or `None`."""
    with _lock:
        found = _everywhere.read(key)
    return None if found is _ABSENT else found


def open_layer(objects: Mapping[str, Any]) -> Layer:
    """Show `objects` to Keras, over what it has, in every thread."""
    layer = Layer(objects)
    thread_scope_now = thread_scope()
    with _lock:
        _everywhere.add(layer, layer.objects)
        here = _here()
        hidden = [name for name in objects if name in thread_scope_now or here.shows(name)]
        if hidden:
            here.add(layer, hidden)
            layer.thread = here
    return layer


def close(layer: Layer) -> None:
    """Stop showing a layer. Closing it twice does nothing."""
    with _lock:
        if not layer.closed:
            layer.closed = True
            _everywhere.remove(layer)
            if layer.thread is not None:
                layer.thread.remove(layer)


@contextmanager
def kept() -> Iterator[None]:
    """Put Keras' global tables back as they were: for tests."""
    objects, names = _global_objects(), _global_names()
    before = dict(objects), dict(names)
    try:
        yield
    finally:
        for table, old in zip((objects, names), before, strict=True):
            table.clear()
            table.update(old)

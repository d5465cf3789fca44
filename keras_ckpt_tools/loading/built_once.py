"""Build a `Sequential` model once, not once for each of its layers.

Keras' `Sequential.from_config` adds one layer after another, and each addition builds the whole
model: half a million calls for a thousand layers. While a model is built from a file, only the last
addition builds. The result is the same. Models that a user's class creates meanwhile are not
affected.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

# The method that builds after an addition. A Keras without it is unchanged, and takes longer.
_METHOD = "_maybe_rebuild"
_one_at_a_time = threading.RLock()


@contextmanager
def sequential_models_built_once() -> Iterator[None]:
    """Build each `Sequential` model that this thread makes from a config in the block only once."""
    kind, thread = keras.Sequential, threading.get_ident()
    rebuild = getattr(kind, _METHOD, None)
    if rebuild is None:
        yield
        return
    # The models under construction, innermost last: the model, once it exists, and its layers.
    stack: list[list[Any]] = []

    def from_config(cls: Any, config: Any, custom_objects: Any = None) -> Any:
        layers = config.get("layers") if isinstance(config, dict) else None
        if cls is not kind or threading.get_ident() != thread or not isinstance(layers, list):
            return original.__func__(cls, config, custom_objects)
        stack.append([None, len(layers)])
        try:
            return original.__func__(_Noting(kind, stack[-1]), config, custom_objects)
        finally:
            stack.pop()

    def rebuild_at_the_end(model: Any) -> None:
        if threading.get_ident() == thread and stack:
            under_construction, layers = stack[-1]
            if model is under_construction and len(model._layers) < layers:
                model.built, model._functional = False, None
                return
        rebuild(model)

    with _one_at_a_time:
        original = kind.__dict__["from_config"]
        kind.from_config = classmethod(from_config)
        setattr(kind, _METHOD, rebuild_at_the_end)
        try:
            yield
        finally:
            kind.from_config = original
            setattr(kind, _METHOD, rebuild)


class _Noting:
    """Replaces a class in its own `from_config`, and records the instance that it makes."""

    def __init__(self, kind: Any, place: list[Any]):
        self._kind = kind
        self._place = place

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._place[0] = self._kind(*args, **kwargs)
        return self._place[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kind, name)

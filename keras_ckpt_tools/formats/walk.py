"""Keras' own walk through a model, without what it computes again for every object.

The walk decides where the state of each layer stands in a file, so it is Keras' and not a copy of
it. For each object it passes over the attributes that every object of that kind has, and finds
these out by making such an object. It means to remember them, and looks them up under another name
than it keeps them under (3.10 to 3.15), so a model of 1,000 layers makes 1,000 layers more. Here
they are kept under the name that is looked up, for the time of the walk.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keras_ckpt_tools import _keras_internals as internals

_LOOKED_UP = "saving_attr_skiplist_"
_KINDS = ("Functional", "Layer", "Loss", "Metric", "Operation", "Optimizer", "Sequential")


def save_state(saveable: Any, **how: Any) -> None:
    """Call Keras' `_save_state`."""
    with _remembered():
        internals.save_state(saveable, inner_path="", **how)


def load_state(saveable: Any, **how: Any) -> None:
    """Call Keras' `_load_state`."""
    with _remembered():
        internals.load_state(saveable, inner_path="", **how)


@contextmanager
def _remembered() -> Iterator[None]:
    state = internals.global_state
    before = {kind: state.get_global_attribute(_LOOKED_UP + kind) for kind in _KINDS}
    for kind in _KINDS:
        state.set_global_attribute(_LOOKED_UP + kind, attributes_of_any(kind))
    try:
        yield
    finally:
        for kind, value in before.items():
            state.set_global_attribute(_LOOKED_UP + kind, value)


@functools.cache
def attributes_of_any(kind: str) -> frozenset[str] | None:
    """Return the attributes that every object of a kind has, which the walk passes over."""
    try:
        return frozenset(internals.get_attr_skipset(kind))
    except ValueError:
        return None  # This Keras has no such kind: 3.10 knows no "Operation".

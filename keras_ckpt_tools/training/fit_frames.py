"""What a running `fit()` keeps to itself: a callback's event -> *its data, its callbacks*.

Keras tells callbacks which batch has ended, and nothing of where the batches come from or who else
is listening; both are local variables of `fit()`. They are looked up on the stack, in this one
place. Where they are not there (a loop of the user's own, another trainer), there is `None`, and
whoever asked does without.
"""

from __future__ import annotations

import sys
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals


def epoch_iterator_of(model: Any) -> Any:
    """Return what gives the running `fit()` of a model its batches, or `None`."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            found = frame.f_locals.get("epoch_iterator")
            return found if isinstance(found, internals.EpochIterator) else None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def callback_list_of(callback: Any) -> keras.callbacks.CallbackList | None:
    """Return the list through which a callback is being called, or `None`."""
    frame = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, keras.callbacks.CallbackList) and callback in found.callbacks:
            return found
        frame = frame.f_back  # type: ignore[assignment]
    return None


def call_in_turn(callback: Any) -> None:
    """Let Keras call a callback between the batches, and not beside them in a thread.

    That is what it does with a callback that is interested in batches, except where `fit()` was
    given one callback instead of a list: then it does not look.
    """
    called = callback_list_of(callback)
    if called is not None and hasattr(called, "_async_train"):
        called._async_train = False

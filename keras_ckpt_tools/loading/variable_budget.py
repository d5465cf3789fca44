"""Count what Keras makes while it builds a model: build -> *budget*.

What a config will build can be estimated, but only Keras knows. Every variable that it makes goes
through one constructor, with its shape, before there is any memory for it; so for the time of a
load that constructor counts first, and refuses. So does that of symbolic tensors, which are small
and may be a billion. Only what the loading thread makes is counted.

A vocabulary becomes an array in which each word takes as much as the longest, wherever the words
come from (the config, or a file in the archive). It may be far larger than the words.
"""

from __future__ import annotations

import inspect
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import ArtefactError, OverBudgetError
from keras_ckpt_tools.formats.common.limits import over_budget

__all__ = ["counted_variables"]

_LONGEST_ELEMENT = 8
# A symbolic tensor with its place in the graph. Some operations make as many as a number says.
_SYMBOLIC = 2_000
# Where a thread is that waits for another one.
_WAITING = ("threading", "queue", "concurrent.futures._base", "multiprocessing.pool")
_counting = threading.RLock()
_counting_thread: int | None = None
# How often in a row, once a second, the thread that builds is seen to wait for another one.
_PATIENCE = 60


# Bytes of a character in an array of text, and of such an array for each character of the words.
_CHARACTER = 4
_PADDED = 64


@contextmanager
def counted_variables(
    path: str, held: int, max_bytes: int, limit: str = "max_bytes"
) -> Iterator[None]:
    """Refuse variables that together take more than they may, before they are made.

    Args:
        path: The artefact whose model is built, for messages.
        held: Bytes of the tensors in it, for messages.
        max_bytes: What the variables may take.
        limit: Where that comes from: `"max_bytes"` if the caller can allow more.

    Raises:
        OverBudgetError: they would take more.
    """
    kind, symbolic, lookup = internals.Variable, keras.KerasTensor, internals.IndexLookup
    thread, total = threading.get_ident(), 0
    refusals: list[OverBudgetError] = []
    signature = inspect.signature(kind.__init__)

    def refuse() -> None:
        what = f"the file holds tensors of {held:,} bytes, and building its model takes"
        refusals.append(over_budget(path, what, limit, total, max_bytes))
        raise refusals[0]

    def count(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal total
        if threading.get_ident() == thread:
            given = signature.bind(self, *args, **kwargs).arguments
            total += _bytes_of(given.get("initializer"), given.get("shape"), given.get("dtype"))
            if total > max_bytes:
                refuse()
        original(self, *args, **kwargs)

    def count_symbolic(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal total
        if threading.get_ident() == thread:
            total += _SYMBOLIC
            if total > max_bytes:
                refuse()
        original_symbolic(self, *args, **kwargs)

    def count_words(layer: Any, vocabulary: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == thread:
            needed, characters = _bytes_of_words(vocabulary)
            allowed = max_bytes + _PADDED * characters
            if needed > allowed:
                what = "its longest word makes the array of a vocabulary take"
                refusals.append(over_budget(path, what, "array_bytes", needed, allowed))
                raise refusals[0]
        return original_words(layer, vocabulary, *args, **kwargs)

    with _one_build_at_a_time(path):
        original_words = lookup.set_vocabulary
        original, original_symbolic = kind.__init__, symbolic.__init__
        kind.__init__, symbolic.__init__ = count, count_symbolic
        lookup.set_vocabulary = count_words
        try:
            yield
        except Exception as error:
            if refusals and error is not refusals[0]:
                raise refusals[0] from error
            raise
        finally:
            kind.__init__, symbolic.__init__ = original, original_symbolic
            lookup.set_vocabulary = original_words
        if refusals:
            raise refusals[0]  # Keras catches some errors, and goes on with half a model.


@contextmanager
def _one_build_at_a_time(path: str) -> Iterator[None]:
    """Wait for a build in another thread, unless that thread waits for this one.

    Code of the user's own may load a second model while the first is built: in the same thread, but
    not in one that it waits for.
    """
    global _counting_thread
    waited = 0
    while not _counting.acquire(timeout=1.0):
        frame = sys._current_frames().get(_counting_thread or 0)
        waited = waited + 1 if _waits(frame) else 0
        if waited >= _PATIENCE:
            raise ArtefactError(
                "Another thread builds a model, and waits for something; if it waits for this "
                "load, neither would end.",
                received=f"path={path!r}",
                remedy="Load the model in the thread whose code needs it, or before the other one.",
                path=path,
            )
    outer, _counting_thread = _counting_thread, threading.get_ident()
    try:
        yield
    finally:
        _counting_thread = outer
        _counting.release()


def _waits(frame: FrameType | None) -> bool:
    """Return whether a thread waits for another one, for other reasons than this package's."""
    if frame is None or frame.f_globals.get("__name__") not in _WAITING:
        return False
    name = ""
    while frame is not None and (not name or name in _WAITING):
        name, frame = str(frame.f_globals.get("__name__")), frame.f_back
    return not name.startswith("keras_ckpt_tools")


def _bytes_of(initializer: Any, shape: Any, dtype: Any) -> int:
    if not callable(initializer):
        shape = getattr(initializer, "shape", ())
    try:
        number = math.prod(int(n) for n in shape or ())
    except (TypeError, ValueError):
        return 0  # Keras says what is wrong with it.
    return number * _itemsize(dtype)


def _bytes_of_words(words: Any) -> tuple[int, int]:
    """Return the bytes of an array of words, and how many characters they have together."""
    count = longest = characters = 0
    todo = [words]
    while todo:
        value = todo.pop()
        if isinstance(value, (list, tuple)):
            todo += value
            continue
        count += 1
        if isinstance(value, (str, bytes)):
            longest = max(longest, len(value))
            characters += len(value)
    return _CHARACTER * count * longest, characters


def _itemsize(dtype: Any) -> int:
    name = dtype if isinstance(dtype, str) else str(getattr(dtype, "name", ""))
    digits = "".join(c for c in name.partition("_")[0] if c.isdigit())
    return min(max(int(digits) // 8, 1), _LONGEST_ELEMENT) if digits else 4

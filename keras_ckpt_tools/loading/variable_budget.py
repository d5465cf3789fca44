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
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import OverBudgetError
from keras_ckpt_tools.formats.common.limits import over_budget

_LONGEST_ELEMENT = 8
# A symbolic tensor with its place in the graph. Some operations make as many as a number says.
_SYMBOLIC = 2_000
_counting = threading.RLock()


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

    with _counting:
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

"""Count the memory that Keras takes while it builds a model, and refuse too much.

The size of a model can be estimated from its config, but only Keras knows it exactly. Every
variable is made by one constructor, with its shape, before its memory is allocated. During a load,
that constructor counts first and refuses if the limit is exceeded. The constructor of symbolic
tensors is counted too, because there may be a billion. Only objects of the loading thread are
counted.

Two other arrays are counted: the mean and variance arguments of a `Normalization`, and the states
of a stateful RNN. A vocabulary becomes an array in which each word takes as much memory as the
longest, so its size is checked too.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import ArtefactError, OverBudgetError
from keras_ckpt_tools.formats.common.limits import over_budget

_LONGEST_ELEMENT = 8
_LONGEST_AXIS = 1 << 62
# A symbolic tensor with its place in the graph. Some operations make a configured number of them.
_SYMBOLIC = 2_000
# The functions in which a thread waits for another one.
_WAITING = ("threading", "queue", "concurrent.futures._base", "multiprocessing.pool")
_counting = threading.RLock()
# The threads that build, the innermost load last.
_builders: list[int] = []
# Number of checks in a row, one a second, in which the building thread waits for another one.
_PATIENCE = 60


# Bytes of a character in an array of text, and of such an array for each character of the words.
_CHARACTER = 4
_PADDED = 64


@contextmanager
def counted_variables(
    path: str, held: int, max_bytes: int, limit: str = "max_bytes"
) -> Iterator[None]:
    """Refuse variables that together would exceed a limit, before they are made.

    Args:
        path: The file whose model is built, for messages.
        held: Bytes of the tensors in it, for messages.
        max_bytes: The limit for all variables.
        limit: The name of the limit: `"max_bytes"` if the caller can allow more.

    Raises:
        OverBudgetError: they would take more.
    """
    thread, total = threading.get_ident(), 0
    refusals: list[OverBudgetError] = []

    def take(number: int) -> None:
        nonlocal total
        total += number
        if total > max_bytes:
            what = f"the file holds tensors of {held:,} bytes, and building its model takes"
            refuse(over_budget(path, what, limit, total, max_bytes))

    def refuse(error: OverBudgetError) -> None:
        refusals.append(error)
        raise refusals[0]

    def count(original: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(*args, **kwargs).arguments
        take(_bytes_of(given.get("initializer"), given.get("shape"), given.get("dtype")))

    def count_symbolic(
        original: Any, self: Any, shape: Any = (), *args: Any, **kwargs: Any
    ) -> None:
        take(_SYMBOLIC)
        longest = max(_dimensions(shape), default=0)
        if longest > _LONGEST_AXIS:
            # Operations multiply these, and the numbers themselves may become large.
            what = "a tensor of its model has an axis of"
            refuse(over_budget(path, what, "elements", min(longest, 1 << 80), _LONGEST_AXIS))

    def count_words(original: Any, layer: Any, vocabulary: Any, *args: Any, **kwargs: Any) -> None:
        needed, characters = _bytes_of_words(vocabulary)
        allowed = max_bytes + _PADDED * characters
        if needed > allowed:
            what = "its longest word makes the array of a vocabulary take"
            refuse(over_budget(path, what, "array_bytes", needed, allowed))

    def count_broadcast(original: Any, x: Any, shape: Any) -> None:
        if not isinstance(x, keras.KerasTensor) and isinstance(shape, (list, tuple)):
            take(_bytes_of(original, shape, getattr(x, "dtype", None)))

    def count_zeros(original: Any, shape: Any, dtype: Any = None) -> None:
        if isinstance(shape, (list, tuple)):
            take(_bytes_of(original, shape, dtype))

    def counting(original: Any, look: Callable[..., None]) -> Any:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread:
                look(original, *args, **kwargs)
            return original(*args, **kwargs)

        return call

    with _one_build_at_a_time(path), ExitStack() as stack:
        # Read here, because another load may have replaced it before.
        signature = inspect.signature(internals.Variable.__init__)
        for holder, name, look in (
            (internals.Variable, "__init__", count),
            (keras.KerasTensor, "__init__", count_symbolic),
            (internals.IndexLookup, "set_vocabulary", count_words),
            (internals.layer_ops, "broadcast_to", count_broadcast),
            (internals.layer_ops, "zeros", count_zeros),
        ):
            original = getattr(holder, name)
            stack.callback(setattr, holder, name, original)
            setattr(holder, name, counting(original, look))
        try:
            yield
        except Exception as error:
            if refusals and error is not refusals[0]:
                raise refusals[0] from error
            raise
        if refusals:
            raise refusals[0]  # Keras catches some errors and continues with half a model.


@contextmanager
def _one_build_at_a_time(path: str) -> Iterator[None]:
    """Wait for a build in another thread, unless that thread waits for this one.

    The user's code may load a second model during the build of the first: in the same thread, but
    not in one that it waits for.
    """
    waited = 0
    while not _counting.acquire(timeout=1.0):
        frame = sys._current_frames().get(_builders[-1]) if _builders else None
        waited = waited + 1 if _waits(frame) else 0
        if waited >= _PATIENCE:
            raise ArtefactError(
                "Another thread builds a model and is waiting. If it waits for this load, neither "
                "would end.",
                received=f"path={path!r}",
                remedy="Load the model in the thread whose code needs it, or before the other one.",
                path=path,
            )
    _builders.append(threading.get_ident())
    try:
        yield
    finally:
        _builders.pop()
        _counting.release()


def _waits(frame: FrameType | None) -> bool:
    """Return whether a thread waits for another one, for other reasons than this package's."""
    if frame is None or frame.f_globals.get("__name__") not in _WAITING:
        return False
    name = ""
    while frame is not None and (not name or name in _WAITING):
        name, frame = str(frame.f_globals.get("__name__")), frame.f_back
    return not name.startswith("keras_ckpt_tools")


def _dimensions(shape: Any) -> list[int]:
    return [n for n in shape if isinstance(n, int)] if isinstance(shape, (list, tuple)) else []


def _bytes_of(initializer: Any, shape: Any, dtype: Any) -> int:
    if not callable(initializer):
        shape = getattr(initializer, "shape", ())
    try:
        number = math.prod(int(n) for n in shape or ())
    except (TypeError, ValueError):
        return 0  # Keras raises the error.
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

"""Find NaN and infinity in tensors.

A model with NaN in its weights predicts NaN. So NaN is reported when a model is loaded, not at the
first prediction. A run that resumed from such a checkpoint would have NaN forever. So the writer
checks each tensor, and the record contains the result: choosing a checkpoint later reads no tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.metadata import Record

NAN, INFINITY = "NaN", "infinity"

# A record does not list thousands of them.
_NAMED = 16
# What a user tracks for its own sake may hold anything.
_NOT_LOOKED_AT = ("run", "state")
# The bits of a number without its sign, of which an exponent of ones only is no number.
_BY_BITS = {"float16": (np.uint16, 0x7FFF, 0x7C00), "bfloat16": (np.uint16, 0x7FFF, 0x7F80)}


def not_finite_in(arrays: Iterable[tuple[str, np.ndarray[Any, Any] | None]]) -> list[str]:
    """Return the paths of those arrays that have NaN or infinity, in their order.

    Args:
        arrays: Pairs of a path and an array of any type; `None` has neither.

    >>> not_finite_in([("a", np.ones(3)), ("b", np.array([np.inf])), ("c", None)])
    ['b']
    """
    with np.errstate(all="ignore"):  # To enter it takes longer than to add up a small array.
        return [path for path, array in arrays if array is not None and not _has_numbers(array)]


def _has_numbers(array: np.ndarray[Any, Any]) -> bool:
    if not _may_have_other(array.dtype):
        return True
    # A sum takes a third of the time; it is never finite if a number is not, and if a sum of
    # numbers overflows, they are looked at one by one.
    return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


@functools.cache
def _may_have_other(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fc" or dtype.name.startswith(("bfloat", "float"))


def worst_in(array: np.ndarray[Any, Any]) -> str:
    """Return `NAN` if an array has one, else `INFINITY` if it has that, else an empty string.

    >>> worst_in(np.array([1.0, -np.inf])), worst_in(np.array([np.nan])), worst_in(np.ones(2))
    ('infinity', 'NaN', '')
    """
    dtype = array.dtype
    if not array.size or not _may_have_other(dtype):
        return ""
    if dtype.name in _BY_BITS or dtype.kind == "c":
        array = np.ascontiguousarray(array).reshape(-1)
    if dtype.name in _BY_BITS:
        unsigned, without_sign, exponent = _BY_BITS[dtype.name]
        largest = int((array.view(unsigned) & unsigned(without_sign)).max())
        return "" if largest < exponent else INFINITY if largest == exponent else NAN
    if dtype.kind not in "fc":
        array = array.astype(np.float32)  # Eight bits have no arithmetic of their own.
    if dtype.kind == "c":
        array = array.view(array.real.dtype)
    with np.errstate(all="ignore"):
        # Each of the two is NaN if a number is: faster than a look at every number.
        extremes = (array.max(), array.min())
    if np.isnan(extremes[0]):
        return NAN
    return INFINITY if np.isinf(extremes).any() else ""


def spoiled(worst: Mapping[str, str], record: Record) -> tuple[str, ...]:
    """Return the paths by which a run that resumes from a file would be spoiled; at most a few.

    NaN is no value that training comes back from. Infinity may be meant (the mask of an attention,
    the best loss so far), so it counts only in what an optimizer updates, and in its own state.

    Args:
        worst: What `worst_in` said of each tensor with something to say, by path.
        record: The record of the file.
    """
    if not worst:
        return ()
    tracked = record.tracked
    aside = tuple(f"{name}/" for name, one in tracked.items() if one.kind in _NOT_LOOKED_AT)
    groups = [*record.optimizers, *(n for n, one in tracked.items() if one.kind == "optimizer")]
    state = tuple(f"{group}/vars/" if group else "vars/" for group in groups)
    trained = {path for one in record.optimizers.values() for path in one.built_on}
    trained.update(path for one in tracked.values() for path in one.built_on or ())
    found: Iterator[str] = (
        path
        for path, what in worst.items()
        if not path.startswith(aside) and (what == NAN or path in trained or path.startswith(state))
    )
    return tuple(path for path, _ in zip(found, range(_NAMED), strict=False))


def spoiled_in(source: Any, record: Record) -> tuple[str, ...]:
    """Return the same of an open file that was read; one of an earlier version does not say."""
    if record.not_finite is not None:
        return record.not_finite
    arrays = source.read_all(list(source.not_finite))
    return spoiled({path: worst_in(array) for path, array in arrays.items()}, record)

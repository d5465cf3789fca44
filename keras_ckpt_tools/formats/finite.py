"""Whether a tensor has numbers only: read -> *report*.

A NaN in the weights is legal, and a model that has one answers NaN from then on. So it is said
when a model is loaded, and not left to the first prediction.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["not_finite_in"]


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

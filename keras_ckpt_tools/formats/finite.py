"""Whether a tensor has numbers only: read -> *report*.

A NaN in the weights is legal, and a model that has one answers NaN from then on. So it is said
when a model is loaded, and not left to the first prediction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["is_finite"]


def is_finite(array: np.ndarray[Any, Any]) -> bool:
    """Return whether there is neither NaN nor infinity in an array of any type.

    >>> is_finite(np.ones(3)), is_finite(np.array([1.0, np.nan])), is_finite(np.array(["a"]))
    (True, False, True)
    """
    name = array.dtype.name
    if array.dtype.kind not in "fc" and not name.startswith(("bfloat", "float")):
        return True
    with np.errstate(all="ignore"):
        # A sum takes a third of the time; it is never finite if a number is not, and if a sum of
        # numbers overflows, they are looked at one by one.
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())

"""Rows of what the user has: arrays, memory maps, HDF5 datasets -> NumPy.

All that is asked of a source is its length and that it can be indexed with an array of integers.
Sources that are not plain arrays are asked in ascending order, and the rows are put in place
afterwards: h5py takes no other order, and a disk is read from front to back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def as_source(given: Any) -> Any:
    """Return what rows are taken from: `given`, or its values where it would index by label."""
    if hasattr(given, "iloc"):
        return given.to_numpy()
    if keras.ops.is_tensor(given):
        return keras.ops.convert_to_numpy(given)
    return given


def leaves(structure: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each leaf of dicts, lists and tuples, with how one would write its place."""
    if isinstance(structure, Mapping):
        for key, value in structure.items():
            yield from leaves(value, f"{name}[{key!r}]")
    elif isinstance(structure, (list, tuple)):
        for index, value in enumerate(structure):
            yield from leaves(value, f"{name}[{index}]")
    else:
        yield name, structure


def take(source: Any, rows: slice | NDArray[np.intp]) -> NDArray[Any]:
    """Return rows of a source as an array of their own.

    Args:
        source: See `as_source`.
        rows: A slice, or indices in any order, each at most once.
    """
    if isinstance(rows, slice):
        found = np.asarray(source[rows])
        # A view would let a loop that works in place change the user's data.
        return found.copy() if isinstance(source, np.ndarray) else found
    if type(source) is np.ndarray:
        return np.asarray(source[rows])
    order = np.argsort(rows)
    ascending = np.asarray(source[rows[order]])
    found = np.empty_like(ascending)
    found[order] = ascending
    return found

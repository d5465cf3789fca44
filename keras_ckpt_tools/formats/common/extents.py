"""Ranges of a file and the gaps between them, for writers and readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

# Where TensorFlow's memory begins, a multiple of this; such memory it can take over as it is.
ALIGNMENT = 64


def aligned_memory(
    nbytes: int, offset: int = 0, make: Callable[..., Any] = np.empty
) -> np.ndarray[Any, Any]:
    """Return memory for what stands at an offset of a file: what is aligned there is aligned here.

    >>> aligned_memory(100, 6).__array_interface__["data"][0] % ALIGNMENT
    6
    """
    memory: np.ndarray[Any, Any] = make(nbytes + ALIGNMENT, np.uint8)
    start = (offset - memory.__array_interface__["data"][0]) % ALIGNMENT
    return memory[start : start + nbytes]


def gaps_between(
    data: Sequence[tuple[int, int]], start: int, end: int
) -> Iterator[tuple[int, int]]:
    """Yield `(start, end)` of what lies between pieces of data.

    >>> list(gaps_between([(10, 5), (15, 5)], 0, 30))
    [(0, 10), (20, 30)]
    """
    for offset, length in data:
        if offset > start:
            yield start, offset
        start = max(start, offset + length)
    if end > start:
        yield start, end

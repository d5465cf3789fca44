"""Pieces of a file and what lies between them. Used by the writer and by the reader alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# Where TensorFlow's memory begins, a multiple of this; such memory it can take over as it is.
ALIGNMENT = 64


def gaps_between(
    data: Sequence[tuple[int, int]], start: int, end: int
) -> Iterator[tuple[int, int]]:
    """Yield `(start, end)` of what lies between pieces of data.

    Args:
        data: `(offset, length)` of each piece, in order.
        start: Where to begin.
        end: Where to end.

    >>> list(gaps_between([(10, 5), (15, 5)], 0, 30))
    [(0, 10), (20, 30)]
    """
    for offset, length in data:
        if offset > start:
            yield start, offset
        start = max(start, offset + length)
    if end > start:
        yield start, end

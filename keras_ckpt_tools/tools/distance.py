"""Measure the distance between two tensors, piece by piece.

Sums are in float64, scaled by the largest number, so that neither large nor tiny squares are lost.
Elements that are NaN on both sides, or the same infinity, are equal. Other pairs with NaN or
infinity are counted, and not part of the norms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Distance:
    """How far a tensor has moved.

    Attributes:
        l2: L2 norm of the difference; `None` where there are no numbers (text).
        norm: L2 norm of the tensor in the first file, as far as it is finite; likewise.
        largest: Largest absolute difference of one number; likewise.
        changed: How many elements are not alike.
        elements: How many there are.
        not_finite: How many of the changed are NaN or infinite on one side or both.
    """

    l2: float | None = 0.0
    norm: float | None = 0.0
    largest: float | None = 0.0
    changed: int = 0
    elements: int = 0
    not_finite: int = 0

    @property
    def relative(self) -> float | None:
        """The norm of the difference by that of the first tensor; infinite if that was all zero.

        >>> Distance(l2=0.5, norm=2.0).relative, Distance(l2=1.0, norm=0.0).relative
        (0.25, inf)
        """
        if self.l2 is None or self.norm is None:
            return None
        if not self.l2:
            return 0.0
        return self.l2 / self.norm if self.norm else math.inf


class _Norm:
    """An L2 norm, of pieces, that neither overflows nor vanishes."""

    def __init__(self) -> None:
        self.largest = 0.0
        self._sum = 0.0

    def add(self, values: np.ndarray[Any, Any]) -> None:
        top = float(values.max(initial=0.0))
        if not top:
            return
        if top > self.largest:
            self._sum *= (self.largest / top) ** 2
            self.largest = top
        scaled = values / self.largest
        self._sum += float(np.dot(scaled, scaled))

    @property
    def value(self) -> float:
        return self.largest * math.sqrt(self._sum)


class Meter:
    """Measures the distance of two tensors, piece by piece.

    >>> meter = Meter()
    >>> meter.add(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    >>> meter.distance.l2, meter.distance.norm, meter.distance.changed
    (0.5, 5.0, 1)
    """

    def __init__(self) -> None:
        self._moved, self._norm = _Norm(), _Norm()
        self._changed = self._elements = self._not_finite = 0
        self._numbers = True

    def add(self, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> None:
        """Take the next elements of both, in one dimension and of one length."""
        self._elements += first.size
        if not (_are_numbers(first) and _are_numbers(second)):
            self._numbers = False
            self._changed += int(np.count_nonzero(_as_text(first) != _as_text(second)))
            return
        with np.errstate(all="ignore"):
            self._add(*(_comparable(first), _comparable(second)))

    def _add(self, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> None:
        unlike = (first != second) & ~(_is_nan(first) & _is_nan(second))
        finite = np.isfinite(first) & np.isfinite(second)
        self._changed += int(np.count_nonzero(unlike))
        self._not_finite += int(np.count_nonzero(unlike & ~finite))
        places = unlike & finite
        self._moved.add(_apart(first[places], second[places]))
        self._norm.add(np.abs(first[np.isfinite(first)].astype(_wide(first))))

    @property
    def distance(self) -> Distance:
        """What was measured so far."""
        counts = (self._changed, self._elements, self._not_finite)
        if not self._numbers:
            return Distance(None, None, None, *counts)
        return Distance(self._moved.value, self._norm.value, self._moved.largest, *counts)


def _are_numbers(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype.kind in "biufc" or array.dtype.isbuiltin == 2


def _as_text(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # Text is a `str`, `bytes` or an `S7` of the one file, and may be another of the other.
    return np.array([x if isinstance(x, bytes) else str(x).encode() for x in array], object)


def _comparable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return numbers in a type that NumPy itself has, without losing any of them."""
    if array.dtype.isbuiltin == 2:
        array = array.astype(np.float64)
    return array.view(np.uint8) if array.dtype.kind == "b" else array


def _is_nan(array: np.ndarray[Any, Any]) -> Any:
    return np.isnan(array) if array.dtype.kind in "fc" else np.False_


def _wide(array: np.ndarray[Any, Any]) -> Any:
    return np.complex128 if array.dtype.kind == "c" else np.float64


def _apart(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return absolute differences; of integers exactly, however large they are."""
    if first.dtype == second.dtype and first.dtype.kind in "iu":
        top, bottom = np.maximum(first, second), np.minimum(first, second)
        exact: np.ndarray[Any, Any] = top.astype(np.uint64) - bottom.astype(np.uint64)
        return exact.astype(np.float64)
    apart: np.ndarray[Any, Any] = np.abs(second.astype(_wide(second)) - first.astype(_wide(first)))
    return apart

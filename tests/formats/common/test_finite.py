"""NaN and infinity are found in every type that has them, and nowhere else."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from keras_ckpt_tools.formats.common.finite import not_finite_in


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "complex64", ml_dtypes.bfloat16]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_is_enough(dtype, bad):
    """Also two infinities that cancel out."""
    arrays = {"good": np.ones(100, dtype), "bad": np.array([1, bad, -bad], dtype), "none": None}
    assert not_finite_in(arrays.items()) == ["bad"]


def test_a_sum_that_overflows_is_no_bad_number():
    """Large weights are legal."""
    largest = np.full(100, np.finfo("float16").max, "float16")
    assert not_finite_in([("largest", largest)]) == []


@pytest.mark.parametrize("array", [np.arange(3), np.array([True]), np.array([b"a"]), np.empty(0)])
def test_types_without_nan_have_none(array):
    """Integers, truth values, texts, nothing at all."""
    assert not_finite_in([("array", array)]) == []

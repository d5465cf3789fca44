"""NaN and infinity are found in every type that has them, and nowhere else."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from keras_ckpt_tools.formats.finite import is_finite


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "complex64", ml_dtypes.bfloat16]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_is_enough(dtype, bad):
    """Also two infinities that cancel out."""
    assert is_finite(np.ones(100, dtype))
    assert not is_finite(np.array([1, bad, -bad], dtype))


def test_a_sum_that_overflows_is_no_bad_number():
    """Large weights are legal."""
    assert is_finite(np.full(100, np.finfo("float16").max, "float16"))


@pytest.mark.parametrize("array", [np.arange(3), np.array([True]), np.array([b"a"]), np.empty(0)])
def test_types_without_nan_have_none(array):
    """Integers, truth values, texts, nothing at all."""
    assert is_finite(array)

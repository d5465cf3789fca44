"""Budgets are numbers, and errors about them say which, how much and how much more."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.formats.common.limits import Limits, available_memory, over_budget


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "1GB"])
def test_max_bytes_is_a_positive_number(wrong):
    """`True` would be one byte."""
    with pytest.raises(ArgumentError, match="positive number of bytes"):
        Limits.of(wrong)


def test_by_default_it_is_what_this_machine_can_hold():
    """Not more than there is, and enough for any small model."""
    assert Limits.of().max_bytes == pytest.approx(available_memory(), rel=0.5)
    assert available_memory() >= 64 << 20


def test_the_error_has_the_numbers_and_the_argument_that_allows_more():
    """A program reads the attributes, a person the sentence."""
    error = over_budget("a.keras", "its tensors take", "max_bytes", 2_000_000, 1_000_000)
    assert (error.limit, error.needed, error.allowed) == ("max_bytes", 2_000_000, 1_000_000)
    assert "its tensors take 2,000,000 bytes, and 1,000,000 are allowed" in str(error)
    assert "`max_bytes=2000000`" in str(error)
    assert isinstance(error, MemoryError)

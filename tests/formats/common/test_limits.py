"""Budgets are numbers, and errors about them say which, how much and how much more."""

from __future__ import annotations

import json

import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, CkptError
from keras_ckpt_tools.formats.common.limits import (
    Limits,
    available_memory,
    number_in,
    over_budget,
)
from keras_ckpt_tools.formats.tensorflow.prefixes import prefix_in


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


@pytest.mark.parametrize("name", ["\u00b2", "1" * 5000, "-1", "", "1.5", " 1", "\u0663"])
def test_name_that_is_no_number_is_none(name):
    """Python calls some of them digits, and raises when it reads them; a file chooses the name."""
    assert number_in(name) is None


def test_version_of_thousands_of_digits_is_looked_at(tmp_path):
    """`inspect` compares it with what is installed."""
    config = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metadata.json").write_text(json.dumps({"keras_version": "9" * 5000}))
    assert str(kct.inspect(tmp_path)).startswith(str(tmp_path))


def test_text_of_a_tensorflow_state_may_escape_anything(tmp_path):
    """A digit behind a backslash need not be an octal one."""
    (tmp_path / "checkpoint").write_bytes(b'model_checkpoint_path: "ckpt\\9-\\61"\n')
    with pytest.raises(CkptError):
        prefix_in(str(tmp_path))

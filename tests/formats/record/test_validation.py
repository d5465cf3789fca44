"""A record that contradicts its file is refused, its digests notwithstanding."""

from __future__ import annotations

import dataclasses

import pytest

from keras_ckpt_tools.errors import DamagedArtefactError
from keras_ckpt_tools.formats.record.validation import check_record, check_types
from keras_ckpt_tools.metadata import OptimizerState, Record, TensorInfo, TrainingProgress

GOOD = (
    TensorInfo("a", (2, 3), "float32", 600, 24),
    TensorInfo("b", (), "bfloat16", 624, 2),
    TensorInfo("c", (0, 7), "int8", None, 0),
    TensorInfo("d", (2,), "|S5", 640, 10),
)


def check(tensors=GOOD, **changed):
    """Check a record of a file of 1,000 bytes, the first 512 of them the record."""
    record = Record(tensors=tuple(tensors), size=1000)
    check_record(dataclasses.replace(record, **changed), 512, 1000, "a.keras")


def test_what_we_write_passes():
    """Tensors of any type, without elements, and side by side."""
    check()
    check(())


@pytest.mark.parametrize(
    "wrong",
    [
        TensorInfo("x", (10**12,), "float32", 700, 4 * 10**12),
        TensorInfo("x", (10**12,), "float32", None, 4),
        TensorInfo("x", (2,), "float32", 700, 4),
        TensorInfo("x", (-1,), "float32", 700, -4),
        TensorInfo("x", (1,), "float32", -8, 4),
        TensorInfo("x", (1,), "float32", 998, 4),
        TensorInfo("x", (1,), "float32", 100, 4),
        TensorInfo("x", (1,), "float32", 602, 4),
        TensorInfo("x", (1,), "object", 700, 8),
        TensorInfo("x", (1,), "finfo", 700, 8),
        TensorInfo("x", (1,), "i4,f8", 700, 12),
        TensorInfo("x", ("1",), "float32", 700, 4),  # type: ignore[arg-type]
        TensorInfo("x", (1,), 5, 700, 4),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_a_tensor_that_is_not_where_and_what_it_says_is_damage(wrong):
    """Too long, outside, over another, of a type that is none."""
    with pytest.raises(DamagedArtefactError, match="its record"):
        check([*GOOD, wrong])


def test_counts_that_are_no_numbers_are_damage():
    """They would fail much later, where they are counted on."""
    with pytest.raises(DamagedArtefactError, match="counts"):
        check(progress=TrainingProgress(epochs_completed="many"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "record",
    [
        Record(names={"layers/dense": 3}),
        Record(optimizers={"optimizer": OptimizerState(3)}),
        Record(optimizers={"optimizer": OptimizerState("Adam", (3,))}),
    ],
)
def test_names_are_text(record: Record) -> None:
    """Layers are paired by them."""
    with pytest.raises(TypeError, match="another type"):
        check_types(record)


@pytest.mark.parametrize(
    "wrong",
    [
        {"saves": ((1, 0, "4"),)},
        {"saves": ((1, 0, 4.5),)},
        {"saves": ((1, 0),)},
        {"saves": ((1, 0, 4, 2),)},
        {"restarts": ((1, 0, 4, "now"),)},
        {"restarts": ((1, 0, 4),)},
    ],
    ids=repr,
)
def test_saves_and_restarts_are_numbers_and_as_many_as_they_should_be(wrong):
    """Pictures and later saves count on it."""
    good = TrainingProgress(saves=((1, 0, 4), (2, 0, 8, 3, 1, 0, 4)), restarts=((1, 0, 4, 1.5),))
    check_types(Record(progress=good))
    with pytest.raises(TypeError, match=r"saves|restarts"):
        check_types(Record(progress=dataclasses.replace(good, **wrong)))

"""File name patterns: checked, filled in, and read the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_ckpt_tools.errors import ArgumentError, FilepathKeyError
from keras_ckpt_tools.training.filepattern import check_pattern, fill_pattern, matching_files


@pytest.mark.parametrize("filepath", ["a.keras", Path("b/c.weights.h5"), "{epoch:02d}-{loss:.2f}"])
def test_a_path_or_a_pattern_is_a_string(filepath: Any) -> None:
    """Whatever kind of path was passed."""
    assert check_pattern(filepath) == str(filepath)


@pytest.mark.parametrize(
    ("filepath", "complaint"),
    [
        ("", "path of a file"),
        (None, "path of a file"),
        (3, "path of a file"),
        ("{epoch", "not a valid pattern"),
        ("epoch}", "not a valid pattern"),
        ("{}.keras", "without a name"),
        ("{0}.keras", "without a name"),
        ("{epoch:02q}.keras", "not a valid pattern"),
        ("{val_loss:q}.keras", "not a valid pattern"),
        ("{epoch.foo}.keras", "not a valid pattern"),
        ("{logs[loss]}.keras", "not a valid pattern"),
    ],
)
def test_a_pattern_that_can_never_be_filled_in_is_refused(filepath: Any, complaint: str) -> None:
    """When it is given, not after the first epoch."""
    with pytest.raises(ArgumentError, match=complaint) as caught:
        check_pattern(filepath)
    assert f"filepath={filepath!r}" in str(caught.value)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """The message says what to pass instead."""
    with pytest.raises(ArgumentError, match=r"model-\{epoch:02d\}\.keras"):
        check_pattern(tmp_path)


def test_epoch_and_batch_are_one_based_in_a_name() -> None:
    """As in Keras."""
    assert fill_pattern("{epoch:02d}-{batch}", 0, 0, None) == "01-1"


@pytest.mark.parametrize("value", [0.25, np.float32(0.25), np.array(0.25), np.array([0.25])])
def test_a_metric_of_any_kind_is_written_as_a_number(value: Any) -> None:
    """A train_on_batch loop hands over what it has."""
    assert fill_pattern("{loss:.2f}", 0, None, {"loss": value}) == "0.25"


def test_a_tensor_is_written_as_a_number() -> None:
    """A loop over a `tf.function` hands over tensors."""
    import tensorflow as tf

    assert fill_pattern("{loss:.2f}", 0, None, {"loss": tf.constant(0.25)}) == "0.25"


def test_a_whole_number_stays_one() -> None:
    """So `{n:03d}` can be filled in with a count that somebody logs."""
    assert fill_pattern("{n:03d}", 0, None, {"n": 7}) == "007"
    assert check_pattern("{n:03d}") == "{n:03d}"


def test_a_key_that_the_logs_lack_is_told() -> None:
    """With all that there are."""
    with pytest.raises(FilepathKeyError, match="validation_data") as caught:
        fill_pattern("{epoch}-{val_loss:.2f}", 0, None, {"loss": 0.5})
    assert (caught.value.key, caught.value.available) == ("val_loss", ("epoch", "loss"))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.keras", ["a.keras"]),
        ("{epoch:02d}.keras", ["01.keras", "02.keras", "a.keras"]),
        ("{epoch}-{loss:.2f}.keras", ["1-0.50.keras"]),
        ("[x]{epoch}.keras", ["[x]1.keras"]),
        ("run-{epoch}/model.keras", ["run-1/model.keras", "run-2/model.keras"]),
        ("b.keras", []),
        ("nowhere/{epoch}.keras", []),
    ],
)
def test_what_a_pattern_named_is_found(pattern: str, expected: list[str], tmp_path: Path) -> None:
    """Files only, and only those that the pattern can have named."""
    names = "a.keras 01.keras 02.keras 1-0.50.keras [x]1.keras run-1/model.keras run-2/model.keras"
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "03.keras").mkdir()
    if pattern == "{epoch:02d}.keras":
        expected = sorted({*expected, "1-0.50.keras", "[x]1.keras"})
    found = matching_files(str(tmp_path / pattern))
    assert sorted(found) == [str(tmp_path / name) for name in expected]

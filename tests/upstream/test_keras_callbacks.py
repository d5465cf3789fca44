"""Keras' own tests of `ModelCheckpoint` and `BackupAndRestore`, run against ours.

Drop-in is a claim that only Keras' tests can check. The deliberate differences below are applied
to their source, and its test cases run with our classes in the place of Keras'. Each difference has
to be found exactly once, and has to make stock Keras fail, so that a difference which Keras has
overcome does not stay on the list.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import keras
import pytest
from upstream.keras_tests import Edit, cases_in, executed, found_once_in_its_test, is_explained

import keras_ckpt_tools as kct

STOCK = SimpleNamespace(**vars(keras.callbacks))
OURS = SimpleNamespace(
    **vars(keras.callbacks)
    | {"ModelCheckpoint": kct.ModelCheckpoint, "BackupAndRestore": kct.BackupAndRestore}
)


DIFFERENCES = (
    Edit(
        file="callbacks/model_checkpoint_test.py",
        test="test_model_checkpoint_options",
        original="        self.assertTrue(os.path.exists(filepath))\n\n        # Case 6\n",
        replacement="        self.assertFalse(os.path.exists(filepath))\n\n        # Case 6\n",
        row="missing metric",
    ),
    Edit(
        file="callbacks/backup_and_restore_test.py",
        test="test_best_case_step",
        original="            self.assertEqual(int(model.layers[0].counter.value), 17)\n",
        replacement="            self.assertEqual(int(model.layers[0].counter.value), 15)\n",
        row="interrupted epoch",
    ),
)

# Written down, so that a run which collects nothing is not a run that passes.
CASES = (
    ("callbacks/model_checkpoint_test.py", "test_model_checkpoint_loading"),
    ("callbacks/model_checkpoint_test.py", "test_model_checkpoint_options"),
    ("callbacks/backup_and_restore_test.py", "test_backup_corrupted"),
    ("callbacks/backup_and_restore_test.py", "test_backup_dir_empty_error"),
    ("callbacks/backup_and_restore_test.py", "test_backup_dir_none_error"),
    ("callbacks/backup_and_restore_test.py", "test_best_case_epoch"),
    ("callbacks/backup_and_restore_test.py", "test_best_case_step"),
    ("callbacks/backup_and_restore_test.py", "test_model_deleted_case_epoch"),
    ("callbacks/backup_and_restore_test.py", "test_save_freq_unknown_error"),
)
FILES = sorted({file for file, _ in CASES})


@functools.cache
def edited(file: str) -> Any:
    """Execute Keras' test file with our differences; return its one class of test cases."""
    module = executed(file, DIFFERENCES)
    (cases,) = {case.cases for case in cases_in(file)}
    return getattr(module, cases)


def run(file: str, test: str, callbacks: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one of Keras' test methods, with `callbacks` for `keras.src.callbacks`."""
    cases = edited(file)
    method = getattr(cases, test)
    monkeypatch.setitem(method.__globals__, "callbacks", callbacks)
    cases(test).debug()  # set-up, method and clean-up; errors come out as they are


# Keras' tests do not expect the warnings with which ours tell more than Keras does.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("file", "test"), CASES)
def test_keras_own_test_passes_with_our_callback(file, test, monkeypatch, tmp_path):
    """What Keras promises of its callback, ours does, but for the differences."""
    monkeypatch.chdir(tmp_path)
    run(file, test, OURS, monkeypatch)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.row)
def test_difference_makes_stock_keras_fail(difference, monkeypatch, tmp_path):
    """With our expectation in place, Keras' own callback fails: the fault is still there."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError):
        run(difference.file, difference.test, STOCK, monkeypatch)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.row)
def test_difference_is_found_once_and_explained(difference):
    """The place is in Keras' source exactly once, in that test; the reason is in the docs."""
    assert found_once_in_its_test(difference)
    assert is_explained(difference.row)


@pytest.mark.parametrize("file", FILES)
def test_every_test_of_keras_is_on_the_list(file):
    """A test that Keras adds is noticed, and so is one that it drops."""
    found = {name for name in dir(edited(file)) if name.startswith("test_")} - {"test_session"}
    assert found == {test for name, test in CASES if name == file}

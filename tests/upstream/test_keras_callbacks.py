"""Keras' own tests of `ModelCheckpoint` and `BackupAndRestore`, run against ours.

Drop-in is a claim that only Keras' tests can check. Their source is read from the installed
package (a release that comes without its tests is skipped), the deliberate differences below are
applied to it, and its test cases run with our classes in the place of Keras'. Each difference has
to be found exactly once, so that a Keras release which changes that place makes this fail, and has
to make stock Keras fail, so that a difference which Keras has overcome does not stay on the list.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import keras
import pytest

import keras_ckpt_tools as kct

INSTALLED = Path(keras.__file__).parent / "src" / "callbacks"
ROWS = Path(__file__).parents[2] / "docs" / "differences.md"

STOCK = SimpleNamespace(**vars(keras.callbacks))
OURS = SimpleNamespace(
    **vars(keras.callbacks)
    | {"ModelCheckpoint": kct.ModelCheckpoint, "BackupAndRestore": kct.BackupAndRestore}
)


@dataclass(frozen=True)
class Difference:
    """A place where we do something else than Keras, on purpose."""

    file: str
    test: str  # the method that the place is in
    original: str
    replacement: str
    row: str  # the row of docs/differences.md that says why


DIFFERENCES = (
    Difference(
        file="model_checkpoint_test.py",
        test="test_model_checkpoint_options",
        original="        self.assertTrue(os.path.exists(filepath))\n\n        # Case 6\n",
        replacement="        self.assertFalse(os.path.exists(filepath))\n\n        # Case 6\n",
        row="missing metric",
    ),
    Difference(
        file="backup_and_restore_test.py",
        test="test_best_case_step",
        original="            self.assertEqual(int(model.layers[0].counter.value), 17)\n",
        replacement="            self.assertEqual(int(model.layers[0].counter.value), 15)\n",
        row="interrupted epoch",
    ),
)

# Written down, so that a run which collects nothing is not a run that passes.
CASES = (
    ("model_checkpoint_test.py", "test_model_checkpoint_loading"),
    ("model_checkpoint_test.py", "test_model_checkpoint_options"),
    ("backup_and_restore_test.py", "test_backup_corrupted"),
    ("backup_and_restore_test.py", "test_backup_dir_empty_error"),
    ("backup_and_restore_test.py", "test_backup_dir_none_error"),
    ("backup_and_restore_test.py", "test_best_case_epoch"),
    ("backup_and_restore_test.py", "test_best_case_step"),
    ("backup_and_restore_test.py", "test_model_deleted_case_epoch"),
    ("backup_and_restore_test.py", "test_save_freq_unknown_error"),
)
FILES = sorted({file for file, _ in CASES})


def source(file: str) -> tuple[Path, str]:
    """Return where Keras' test file is, and its text."""
    path = INSTALLED / file
    if not path.exists():
        pytest.skip(f"Keras {keras.__version__} was installed without its tests")
    return path, path.read_text(encoding="utf-8")


@functools.cache
def edited(file: str) -> Any:
    """Execute Keras' test file with our differences; return its one class of test cases."""
    path, text = source(file)
    for difference in DIFFERENCES:
        if difference.file == file:
            text = text.replace(difference.original, difference.replacement)
    module = ModuleType(f"keras_{path.stem}")
    exec(compile(text, str(path), "exec"), vars(module))
    (cases,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "run")
        if issubclass(value, keras.src.testing.TestCase)
    )
    return cases


def run(file: str, test: str, callbacks: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one of Keras' test methods, with `callbacks` for `keras.src.callbacks`."""
    cases = edited(file)
    method = getattr(cases, test)
    monkeypatch.setitem(method.__globals__, "callbacks", callbacks)
    cases(test).debug()  # set-up, method and clean-up; errors come out as they are


@pytest.fixture(autouse=True)
def traceback_filtering_put_back() -> Iterator[None]:
    """Keras' test cases turn the filter of tracebacks off for the whole process."""
    was_on = keras.config.is_traceback_filtering_enabled()
    yield
    if was_on:
        keras.config.enable_traceback_filtering()


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
    _, text = source(difference.file)
    assert text.count(difference.original) == 1
    before = text[: text.index(difference.original)]
    assert before.rpartition("    def test_")[2].startswith(
        difference.test.removeprefix("test_") + "("
    )
    assert f"| **{difference.row}** |" in ROWS.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES)
def test_every_test_of_keras_is_on_the_list(file):
    """A test that Keras adds is noticed, and so is one that it drops."""
    found = {name for name in dir(edited(file)) if name.startswith("test_")} - {"test_session"}
    assert found == {test for name, test in CASES if name == file}

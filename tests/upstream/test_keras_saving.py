"""Keras' own tests of saving, run against our loader and our writer.

`in_place_of_keras` says what is put in the place of what. Where we do something else on purpose,
the test is edited, as those of the callbacks are: `DIFFERENCES`. Each difference has to be found
exactly once, has its row in docs/differences.md, and has to make stock Keras fail.

`KCT_UPSTREAM=1` runs every variant of the tests that have parameters (one of each otherwise), and
our writer and our loader also each with Keras' other half: what one writes, the other reads.
"""

from __future__ import annotations

import itertools
import os
import unittest

import keras
import pytest
from upstream.in_place_of_keras import LOADER, WRITER, InPlaceOfKeras
from upstream.keras_tests import (
    Case,
    Edit,
    cases_in,
    executed,
    found_once_in_its_test,
    is_explained,
    reason_to_skip,
    variants_of,
)

from keras_ckpt_tools import errors as kct_errors

ALL = bool(os.environ.get("KCT_UPSTREAM"))
HALVES = [{WRITER, LOADER}, *([{WRITER}, {LOADER}] if ALL else [])]

if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15):
    pytest.skip("the list is for the tests of Keras 3.15", allow_module_level=True)

LIB, API = "saving/saving_lib_test.py", "saving/saving_api_test.py"
CONFIGS, NAMES = "saving/serialization_lib_test.py", "saving/object_registration_test.py"
H5 = "legacy/saving/legacy_h5_format_test.py"
MODEL, SEQUENTIAL = "models/model_test.py", "models/sequential_test.py"
FUNCTIONAL = "models/functional_test.py"

# Of the tests of models, those that save, load or read a config.
OF_MODELS = {
    MODEL: ["test_json_serialization", "test_reviving_functional_from_config_custom_layer"],
    SEQUENTIAL: ["test_serialization", "test_serialization_with_lambda_layer"],
    FUNCTIONAL: ["test_restored_nested_input", "test_serialization", "test_deeply_nested_model"],
}
# Written down, so that a run which collects less is not a run that passes.
AT_LEAST = {LIB: 61, API: 19, CONFIGS: 31, NAMES: 5, H5: 22}

# Stores that our loader and our writer do not use.
OF_KERAS_ALONE = {"SavingH5IOStoreTest", "SavingDiskIOStoreTest", "SavingNpzIOStoreTest"}
# These cannot be run here.
LEFT_OUT = {
    "test_load_model_concurrently": "forks a process in which TensorFlow has threads",
    "test_legacy_load_skips_missing_nested_containers": "its file is not in Keras' wheel",
}
# These take long; the others stand for them.
LONG = {"test_weights_sharding"}


def _words(file: str, test: str, original: str, replacement: str) -> Edit:
    return Edit(file, test, original, replacement, row="error messages")


DIFFERENCES = (
    _words(
        LIB,
        "test_save_weights_only_with_unbuilt_model",
        '"You are saving a model that has not yet been built."',
        '"is not built: it has no variables yet that can be saved"',
    ),
    _words(
        LIB,
        "test_load_weights_only_with_unbuilt_model",
        '"You are loading weights into a model that has not yet been built."',
        '"is not built: it has no variables yet that can be restored"',
    ),
    _words(LIB, "test_partial_load", '"must match"', '"do not match"'),
    _words(LIB, "test_partial_load", '"received 0 variables"', '"do not match"'),
    Edit(
        LIB,
        "test_save_model_exception_raised",
        "        self.assertTrue(Path(filepath).exists())\n"
        "        with zipfile.ZipFile(filepath) as zf:\n"
        "            all_filenames = zf.namelist()\n"
        '            self.assertNotIn("model.weights.h5", all_filenames)\n'
        "\n"
        "        # Ensure we don't have any temporary files left.\n"
        "        self.assertLen(os.listdir(Path(filepath).parent), 1)\n"
        '        self.assertIn("model.keras", os.listdir(Path(filepath).parent))\n',
        "        self.assertLen(os.listdir(Path(filepath).parent), 0)\n",
        row="overwriting",
    ),
    _words(
        LIB,
        "test_saving_api_errors",
        '"Please ensure the file is an accessible"',
        '"There is nothing at the path"',
    ),
    _words(
        LIB,
        "test_saving_api_errors",
        '"File format not supported"',
        '"There is nothing at the path"',
    ),
    _words(LIB, "test_safe_mode", '"arbitrary code execution"', '"would run on load"'),
    Edit(
        LIB,
        "test_custom_object_without_from_config",
        "        with self.assertRaisesRegex(\n"
        '            TypeError, "Unable to reconstruct an instance"\n'
        "        ):\n"
        "            _ = saving_lib.load_model(temp_filepath)\n",
        "        _ = saving_lib.load_model(temp_filepath)\n",
        row="no `from_config`",
    ),
    _words(
        LIB,
        "test_load_model_rejects_bomb_config",
        '"decompression bomb"):\n                saving_lib.load_model(path)',
        '"missing in the archive"):\n                saving_lib.load_model(path)',
    ),
    _words(
        LIB,
        "test_load_model_rejects_bomb_weights",
        '"_ZIP_MEMBER_MAX_EXPANSION", 10),\n'
        "        ):\n"
        '            with self.assertRaisesRegex(ValueError, "decompression bomb"):\n'
        "                saving_lib.load_model(evil)",
        '"_ZIP_MEMBER_MAX_EXPANSION", 10),\n'
        "        ):\n"
        '            with self.assertRaisesRegex(ValueError, "file signature not found"):\n'
        "                saving_lib.load_model(evil)",
    ),
    _words(
        LIB,
        "test_load_model_rejects_extraction_bomb",
        '"_ZIP_EXTRACT_BOMB_FLOOR_BYTES", 64):\n'
        '            with self.assertRaisesRegex(ValueError, "decompression bomb"):\n',
        '"_ZIP_EXTRACT_BOMB_FLOOR_BYTES", 64):\n'
        '            with self.assertRaisesRegex(ValueError, "around the weights have changed"):\n',
    ),
    _words(API, "test_load_keras_not_zip", '"File not found"', '"There is nothing at the path"'),
    _words(
        API,
        "test_load_unsupported_format",
        '"File format not supported"):\n            saving_api',
        '"There is nothing at the path"):\n            saving_api',
    ),
    _words(
        API,
        "test_load_weights_invalid_extension",
        '"File format not supported"):\n            model',
        '"There is nothing at the path"):\n            model',
    ),
    _words(API, "test_load_weights_rejects_h5_external_link", '"ExternalLink"', '"external link"'),
    _words(API, "test_load_weights_rejects_h5_soft_link", '"SoftLink"', '"soft link"'),
    Edit(
        API,
        "test_load_weights_invalid_kwargs",
        "        with self.assertRaisesRegex(\n"
        "            ValueError, r\"only supports loading legacy '.h5' or '.hdf5' files.\"\n"
        "        ):\n"
        "            dest_model.load_weights(keras_filepath, by_name=True)\n",
        "        dest_model.load_weights(keras_filepath, by_name=True)\n",
        row="by name",
    ),
    Edit(
        API,
        "test_load_weights_invalid_kwargs",
        "        with self.assertRaisesRegex(\n"
        "            ValueError, r\"only supports loading legacy '.h5' or '.hdf5' files.\"\n"
        "        ):\n"
        "            dest_model.load_weights(weight_h5_filepath, by_name=True)\n",
        "        dest_model.load_weights(weight_h5_filepath, by_name=True)\n",
        row="by name",
    ),
    _words(
        H5,
        "test_saving_lambda",
        "        legacy_h5_format.save_model_to_hdf5(model, temp_filepath)\n"
        "\n"
        '        with self.assertRaisesRegex(ValueError, "arbitrary code execution"):\n',
        "        legacy_h5_format.save_model_to_hdf5(model, temp_filepath)\n"
        "\n"
        '        with self.assertRaisesRegex(ValueError, "would run on load"):\n',
    ),
    _words(
        CONFIGS,
        "test_lambda_fn",
        '"arbitrary code execution"):\n            self.roundtrip(obj, safe_mode=True)',
        '"would run on load"):\n            self.roundtrip(obj, safe_mode=True)',
    ),
    _words(
        CONFIGS,
        "test_lambda_layer",
        '"arbitrary code execution"):\n            self.roundtrip(lmbda, safe_mode=True)',
        '"would run on load"):\n            self.roundtrip(lmbda, safe_mode=True)',
    ),
    _words(
        CONFIGS,
        "test_safe_mode_scope",
        '"arbitrary code execution"):\n                self.roundtrip(lmbda)',
        '"would run on load"):\n                self.roundtrip(lmbda)',
    ),
    _words(
        CONFIGS,
        "test_deserialize_invalid_typespec_config",
        "TypeError, \"Expected 'config' to be a list or a tuple\"",
        'kct_errors.DamagedArtefactError, "has no name"',
    ),
    _words(
        CONFIGS,
        "test_deserialize_invalid_function_config",
        "TypeError, \"Expected 'config' to be a non-null str\"",
        'kct_errors.DamagedArtefactError, "has no name"',
    ),
    _words(
        CONFIGS,
        "test_registered_name_for_keras_builtin_raises",
        '                ValueError, "resolved to a Keras built-in"\n',
        '                ValueError, "the file calls it both"\n',
    ),
    _words(
        CONFIGS,
        "test_registered_name_for_keras_builtin_function_raises",
        '(ValueError, "resolved to a Keras built-in")',
        '(ValueError, "the file calls it both")',
    ),
)

CASES = [
    case
    for file in (*AT_LEAST, *OF_MODELS)
    for case in cases_in(file)
    if case.test in OF_MODELS.get(file, (case.test,)) and case.cases not in OF_KERAS_ALONE
]


def run(case: Case, edits: tuple[Edit, ...], halves: set[str], monkeypatch) -> None:
    """Run one method of Keras' tests, with some of Keras' functions replaced by ours."""
    tests = executed(case.file, edits)
    monkeypatch.setattr(tests, "kct_errors", kct_errors, raising=False)
    ours = InPlaceOfKeras(tests.__name__, frozenset(halves))
    ours.install(monkeypatch, tests)
    variants = variants_of(tests, case)
    skipped = ""
    ran = 0
    for variant in variants if ALL else [variants[len(variants) // 2]]:
        reason = reason_to_skip(variant)
        if reason is None:
            try:
                variant.debug()  # set-up, method and clean-up; errors come out as they are
                ran += 1
            except unittest.SkipTest as error:
                reason = str(error)
        skipped = reason or skipped
    if not ran:
        pytest.skip(f"Keras: {skipped}")


# Keras' tests do not expect the warnings with which ours tell more than Keras does.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("halves", HALVES, ids=lambda halves: "+".join(sorted(halves)))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_keras_own_test_passes_with_ours(case, halves, monkeypatch, tmp_path):
    """What Keras promises of saving and loading, ours does, but for the differences."""
    if case.test in LEFT_OUT:
        pytest.skip(LEFT_OUT[case.test])
    if case.test in LONG and not ALL:
        pytest.skip("runs with KCT_UPSTREAM=1")
    monkeypatch.chdir(tmp_path)
    run(case, DIFFERENCES, halves, monkeypatch)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
def test_difference_makes_stock_keras_fail(difference, monkeypatch, tmp_path):
    """With our expectation in place, Keras fails: the difference is still one."""
    monkeypatch.chdir(tmp_path)
    # Where two classes have a method of this name, the first is the one that does not need Keras 2.
    case = next(one for one in cases_in(difference.file) if one.test == difference.test)
    with pytest.raises((AssertionError, ValueError, TypeError)):
        run(case, (difference,), set(), monkeypatch)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
def test_difference_is_found_once_and_explained(difference):
    """The place is in Keras' source exactly once, in that test; the reason is in the docs."""
    assert found_once_in_its_test(difference)
    assert is_explained(difference.row)


def test_as_many_tests_are_run_as_keras_has():
    """A Keras without its tests, or a search that finds none, is not a run that passes."""
    found = {file: len(cases_in(file)) for file in AT_LEAST}
    if not any(found.values()):
        pytest.skip(f"Keras {keras.__version__} was installed without its tests")
    assert all(found[file] >= number for file, number in AT_LEAST.items()), found
    assert {case.test for case in CASES} >= {*LEFT_OUT, *itertools.chain(*OF_MODELS.values())}

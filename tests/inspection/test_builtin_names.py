"""The names that a file may use are those of the installed Keras that somebody has judged."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import keras
import pytest
from inspection.make_builtin_names import LEFT_OUT, identifiers, judge

from keras_ckpt_tools.inspection.builtin_names import (
    CLASSES,
    CLASSES_IN,
    FUNCTIONS_IN,
    IDENTIFIERS,
    KERAS_VERSIONS,
)


@pytest.fixture(scope="module")
def judged() -> Any:
    """What the rules make of the installed Keras."""
    return judge()


def test_every_public_name_of_keras_has_been_judged(judged):
    """A Keras with new names fails here until somebody has run the script and read what it adds."""
    classes, functions, left_out = judged
    known = json.loads(Path(LEFT_OUT).read_text())
    unjudged = [
        f"{module}.{name}"
        for ours, table in ((classes, CLASSES_IN), (functions, FUNCTIONS_IN))
        for module, names in ours.items()
        for name in names - table.get(module, frozenset())
    ]
    unjudged += [name for name in left_out if name not in known]
    assert not unjudged, f"judge these, with tests/inspection/make_builtin_names.py: {unjudged}"


def test_nothing_that_was_left_out_is_in_the_lists():
    """What one Keras version leaves out, another does not let in."""
    for full in json.loads(Path(LEFT_OUT).read_text()):
        module, _, name = full.rpartition(".")
        assert name not in CLASSES_IN.get(module, ()), full
        assert name not in FUNCTIONS_IN.get(module, ()), full


def test_strings_that_keras_takes_for_objects_are_known():
    """Whatever `get()` takes as a string is no custom object."""
    assert not identifiers() - CLASSES - IDENTIFIERS


def test_every_listed_function_is_one():
    """Under `function` a config reaches functions only."""
    for module, names in FUNCTIONS_IN.items():
        for name in names:
            obj = getattr(importlib.import_module(module), name, None)
            assert obj is None or (callable(obj) and not isinstance(obj, type)), f"{module}.{name}"


@pytest.mark.parametrize(
    "name",
    [
        "keras.utils.get_file",
        "keras.models.load_model",
        "keras.saving.load_model",
        "keras.config.enable_unsafe_deserialization",
        "keras.ops.while_loop",
        "keras.ops.map",
        "keras.applications.resnet50.ResNet50",
        "keras.layers.deserialize",
        "keras.callbacks.LambdaCallback",
        "keras.src.ops.core.Map",
    ],
)
def test_what_does_more_than_compute_is_left_out(name):
    """Each of these would download, read, change the process, or call what the file chooses."""
    module, _, last = name.rpartition(".")
    assert last not in CLASSES_IN.get(module, frozenset())
    assert last not in FUNCTIONS_IN.get(module, frozenset())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.layers", "Dense"),
        ("keras", "Sequential"),
        ("keras.src.models.functional", "Functional"),
        ("keras.src.ops.numpy", "Add"),
        ("keras.src.applications.convnext", "LayerScale"),
        ("keras.optimizers.schedules", "CosineDecay"),
        ("keras.random", "SeedGenerator"),
    ],
)
def test_what_models_are_made_of_is_taken(module, name):
    """Among them what Keras writes by a name that is not public."""
    assert name in CLASSES_IN[module]


def test_the_versions_that_are_promised_are_covered():
    """The oldest Keras, and one at least as new as the one that is installed."""
    as_numbers = [tuple(map(int, version.split("."))) for version in KERAS_VERSIONS]
    here = tuple(map(int, keras.__version__.split(".")[:2]))
    assert min(as_numbers)[:2] == (3, 10)
    assert here <= max(as_numbers)[:2]

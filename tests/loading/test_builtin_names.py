"""The names that are taken for Keras' own are those of the installed Keras, and no others."""

from __future__ import annotations

import importlib
import inspect

import pytest

from keras_ckpt_tools.loading.builtin_names import CLASSES, IDENTIFIERS

WITH_CLASSES = [
    "activations",
    "constraints",
    "dtype_policies",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "optimizers.schedules",
    "quantizers",
    "random",
    "regularizers",
]
WITH_IDENTIFIERS = [
    "activations",
    "constraints",
    "initializers",
    "losses",
    "metrics",
    "optimizers",
    "regularizers",
]


@pytest.mark.parametrize("module", WITH_CLASSES)
def test_public_classes_of_keras_are_known(module):
    """A class that a new Keras adds has to be added to the list."""
    public = vars(importlib.import_module(f"keras.{module}"))
    classes = {name for name, obj in public.items() if inspect.isclass(obj) and name[0] != "_"}
    assert not classes - CLASSES


@pytest.mark.parametrize("module", WITH_IDENTIFIERS)
def test_identifiers_of_keras_are_known(module):
    """Whatever `get()` takes as a string is no custom object."""
    source = importlib.import_module(f"keras.src.{module}")
    assert not set(source.ALL_OBJECTS_DICT) - CLASSES - IDENTIFIERS


def test_functions_that_load_or_save_are_not_known():
    """Only what a model can be made of is in the lists."""
    assert not {"load_model", "save_model", "get_file", "deserialize", "get"} & (
        CLASSES | IDENTIFIERS
    )

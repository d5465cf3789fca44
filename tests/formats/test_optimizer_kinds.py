"""State goes into the optimizer that it is of, and into no other."""

from __future__ import annotations

import keras
import pytest

from keras_ckpt_tools.formats.layer_names import (
    group_name,
    names_from_config,
    optimizers_from_config,
)
from keras_ckpt_tools.formats.optimizer_kinds import _BY_NAME, why_not
from keras_ckpt_tools.metadata import OptimizerState

NOBODY: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("name_here", "name_there", "verdict"),
    [
        ("adam", "adam", None),
        ("adam_1", "adam_7", None),
        ("adam", "rmsprop_of_mine", None),
        ("adam", "adam_w_2", "it is of AdamW, and the model has Adam"),
        ("adam", None, None),
        ("sgd", "SGD", None),
        ("adam", "adamw", "it is of AdamW, and the model has Adam"),
    ],
)
def test_a_name_that_keras_made_tells_the_class(name_here, name_there, verdict) -> None:
    """One that a user gave does not; nor does none."""
    here = OptimizerState("Adam")
    assert why_not(here, OptimizerState(), name_here, name_there, {}, NOBODY) == verdict


def test_every_optimizer_of_keras_is_known_by_its_name() -> None:
    """A class that Keras adds is found here."""
    kinds = {
        name
        for name, kind in vars(keras.optimizers).items()
        if isinstance(kind, type) and issubclass(kind, keras.optimizers.Optimizer)
    }
    assert kinds - {"Optimizer"} <= set(_BY_NAME.values())


@pytest.mark.parametrize(
    ("here", "there", "verdict"),
    [
        (("a", "b"), ("x", "y"), None),
        (("a", "b"), ("y", "x"), "in another order"),
        (("a", "b"), ("x", "z"), "different"),
        (("a", "b"), ("x",), "with 1 variables, and the model's with 2"),
        (("a", ""), ("x", ""), None),
        ((), ("x",), None),
    ],
)
def test_the_variables_have_to_be_the_same(here, there, verdict) -> None:
    """In their order: `a` is `x` in the checkpoint, and `b` is `y`."""
    pairs = {"a": "x", "b": "y"}
    sides = OptimizerState("Adam", here), OptimizerState("Adam", there)
    found = why_not(*sides, "adam", "adam", pairs, NOBODY)
    assert found is None if verdict is None else verdict in found


def test_where_the_file_does_not_say_what_moved_is_doubtful() -> None:
    """Then its place in the list is no proof."""
    here = OptimizerState("Adam", ("a", "b"))
    told = why_not(here, OptimizerState(), None, None, {"a": "x"}, frozenset({"a"}))
    assert "a has another position" in told
    assert "b is not in it" in why_not(here, OptimizerState(), None, None, {"a": "a"}, NOBODY)


def test_a_config_says_names_and_optimizers() -> None:
    """What files of Keras say that note no names of groups."""
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="in")], name="nest")
    model = keras.Sequential([keras.Input((2,)), inner, keras.layers.Dense(2, name="out")])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    model.compile(optimizer, loss="mse")
    config = keras.saving.serialize_keras_object(model)
    assert {**names_from_config(config), "layers/input_layer": ""} == {
        "layers/input_layer": "",
        "layers/sequential": "nest",
        "layers/sequential/layers/dense": "in",
        "layers/sequential/layers/input_layer": names_from_config(config)[
            "layers/sequential/layers/input_layer"
        ],
        "layers/dense": "out",
    }
    assert optimizers_from_config(config) == {
        "optimizer": OptimizerState("LossScaleOptimizer"),
        "optimizer/inner_optimizer": OptimizerState("Adam"),
    }
    assert group_name("LossScaleOptimizer") == "loss_scale_optimizer"


@pytest.mark.parametrize(
    "config", [None, {}, {"class_name": "Sequential", "config": {"layers": [3, {"config": 4}]}}]
)
def test_a_config_that_says_nothing_gives_nothing(config) -> None:
    """It is somebody else's."""
    assert names_from_config(config) == {}
    assert optimizers_from_config(config) == {}

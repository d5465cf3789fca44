"""What Keras 2 wrote is said in Keras 3's words; real files are in `tests/data/keras2`."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.formats.keras_2 import in_words_of_keras_3, is_keras_2


@pytest.mark.parametrize(
    ("version", "expected"), [("2.15.0", True), ("3.0.1", False), (None, False), ("20.1", False)]
)
def test_only_keras_2_is_keras_2(version, expected):
    """By the number in front of the first dot."""
    assert is_keras_2(version) is expected


def test_argument_that_means_something_stays():
    """What cannot be said in Keras 3's words must not be dropped in silence."""
    config = {"class_name": "LSTM", "config": {"units": 2, "time_major": True}}
    assert in_words_of_keras_3(config) == config


def test_config_that_was_given_is_not_changed():
    """The translation is a copy."""
    config = {"class_name": "LSTM", "config": {"units": 2, "time_major": False}}
    assert in_words_of_keras_3(config)["config"] == {"units": 2}
    assert config["config"]["time_major"] is False


def test_nodes_of_nested_models_are_counted_from_zero():
    """Others already are."""
    layers = [
        {
            "class_name": "Dense",
            "name": "d",
            "config": {},
            "inbound_nodes": [[["inner", 1, 0, {}]]],
        },
        {"class_name": "Sequential", "name": "inner", "config": {}, "inbound_nodes": []},
        {"class_name": "Dense", "name": "e", "config": {}, "inbound_nodes": [[["d", 1, 0, {}]]]},
    ]
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["inner", 1, 0], ["d", 1, 0]]}
    found = in_words_of_keras_3({"class_name": "Functional", "config": {"layers": layers, **ends}})
    inner = found["config"]
    assert inner["layers"][0]["inbound_nodes"] == [[["inner", 0, 0, {}]]]
    assert inner["layers"][2]["inbound_nodes"] == [[["d", 1, 0, {}]]]
    assert inner["output_layers"] == [["inner", 0, 0], ["d", 1, 0]]
    assert inner["input_layers"] == ["x", 0, 0]


@pytest.mark.parametrize("config", [{"class_name": [], "config": 7}, {"layers": [[], 1, None]}])
def test_what_is_no_config_comes_back_as_it_is(config):
    """Judging it is for others."""
    assert in_words_of_keras_3(config) == config

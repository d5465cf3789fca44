"""What Keras 2 wrote is said in Keras 3's words; real files are in `tests/files/keras2`."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.formats.keras2.translate import in_words_of_keras_3, is_keras_2, translate


@pytest.mark.parametrize(
    ("version", "expected"), [("2.15.0", True), ("3.0.1", False), (None, False), ("20.1", False)]
)
def test_only_keras_2_is_keras_2(version, expected):
    """By the number in front of the first dot."""
    assert is_keras_2(version) is expected


def test_argument_that_means_something_stays():
    """What cannot be said in Keras 3's words is not dropped in silence: it stays, and is named."""
    config = {"class_name": "LSTM", "config": {"name": "a", "units": 2, "time_major": True}}
    translated, left = translate(config)
    assert translated["config"] == config["config"]
    assert [str(one) for one in left] == [
        "'a' has time_major=True, which Keras 3 does not have: save it with `time_major=False`, "
        "and swap the first two axes of its input"
    ]


def test_config_that_was_given_is_not_changed():
    """The translation is a copy."""
    config = {"class_name": "LSTM", "config": {"name": "a", "units": 2, "time_major": False}}
    assert in_words_of_keras_3(config)["config"] == {"name": "a", "units": 2}
    assert config["config"]["time_major"] is False


TWICE = {"layers": [], "input_layers": [], "output_layers": []}


def test_nodes_of_nested_models_are_counted_from_zero():
    """Others already are."""
    layers = [
        {
            "class_name": "Dense",
            "name": "d",
            "config": {},
            "inbound_nodes": [[["inner", 1, 0, {}]]],
        },
        {
            "class_name": "Sequential",
            "name": "inner",
            "config": {"layers": []},
            "inbound_nodes": [],
        },
        {"class_name": "Functional", "name": "f", "config": TWICE, "inbound_nodes": []},
        {"class_name": "Dense", "name": "e", "config": {}, "inbound_nodes": [[["d", 1, 0, {}]]]},
    ]
    ends = {
        "input_layers": [["x", 0, 0]],
        "output_layers": [["inner", 1, 0], ["d", 1, 0], ["f", 2, 0]],
    }
    found = in_words_of_keras_3({"class_name": "Functional", "config": {"layers": layers, **ends}})
    inner = found["config"]
    assert inner["layers"][0]["inbound_nodes"] == [[["inner", 0, 0, {}]]]
    assert inner["layers"][3]["inbound_nodes"] == [[["d", 1, 0, {}]]]
    # Of a functional model, Keras 3 takes one off itself where it is an end.
    assert inner["output_layers"] == [["inner", 0, 0], ["d", 1, 0], ["f", 2, 0]]
    assert inner["input_layers"] == ["x", 0, 0]


@pytest.mark.parametrize("config", [{"class_name": [], "config": 7}, {"layers": [[], 1, None]}])
def test_what_is_no_config_comes_back_as_it_is(config):
    """Judging it is for others."""
    assert in_words_of_keras_3(config) == config


def functional(*layers, output):
    """Return the config of a functional model with an input `x`."""
    first = {"class_name": "InputLayer", "name": "x", "config": {"name": "x"}, "inbound_nodes": []}
    listed = [first, *layers]
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [[output, 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "net", "layers": listed, **ends}}


def called(function, arguments, name="op"):
    """Return the layer that Keras 2 made of a call of a TensorFlow function on `x`."""
    return {
        "class_name": "SlicingOpLambda" if "getitem" in function else "TFOpLambda",
        "name": name,
        "config": {"name": name, "function": function},
        "inbound_nodes": [["x", 0, 0, arguments]],
    }


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("linalg.matmul", {"b": ["x", 0, 0], "adjoint_b": True}),
        ("nn.silu", {"beta": 2.0}),
        ("squeeze", {"squeeze_dims": [1]}),
        ("where", {"x": None, "y": None}),
        ("reshape", {"shape": [["x", 0, 0], 3]}),
        ("cast", {}),
        ("image.resize", {"size": [4, 4], "method": "area"}),
        ("one_hot", {"depth": 4, "off_value": -1.0}),
        ("split", {"num_or_size_splits": ["x", 0, 0], "axis": 1}),
        ("pad", {"paddings": [["x", 0, 0], [0, 0]]}),
        ("__operators__.getitem", {"slice_spec": [{"start": ["x", 0, 0], "stop": 1, "step": 1}]}),
    ],
)
def test_call_that_is_not_known_to_compute_the_same_is_named(function, arguments):
    """One argument that an operation does not have is enough."""
    config = functional(called(function, arguments), output="op")
    translated, left = translate(config)
    assert [one.name for one in left] == ["op"]
    assert f"`tf.{function}`" in left[0].what
    assert translated["config"]["layers"][1]["class_name"].endswith("OpLambda")


def test_tensors_in_arguments_are_written_as_keras_3_writes_them():
    """Keras 3 would take the lists for numbers."""
    layer = {
        "class_name": "MultiHeadAttention",
        "name": "heads",
        "config": {"name": "heads", "query_shape": [None, 4, 2]},
        "inbound_nodes": [[["x", 0, 0, {"value": ["x", 0, 0], "use_causal_mask": True}]]],
    }
    translated, left = translate(functional(layer, output="heads"))
    heads = translated["config"]["layers"][1]
    assert not left
    assert heads["config"] == {"name": "heads"}
    history = {"shape": [], "dtype": "float32", "keras_history": ["x", 0, 0]}
    tensor = {"class_name": "__keras_tensor__", "config": history}
    assert heads["inbound_nodes"] == [
        {"args": [tensor], "kwargs": {"value": tensor, "use_causal_mask": True}}
    ]


def test_sequential_of_the_oldest_files_gets_its_input():
    """A list of layers, of which the first says the shape."""
    dense = {"class_name": "Dense", "config": {"name": "d", "batch_input_shape": [None, 3]}}
    layers = in_words_of_keras_3({"class_name": "Sequential", "config": [dense]})["config"][
        "layers"
    ]
    assert [layer["class_name"] for layer in layers] == ["InputLayer", "Dense"]
    assert layers[0]["config"]["batch_shape"] == [None, 3]
    assert layers[1]["config"] == {"name": "d"}


@pytest.mark.parametrize(
    "inner",
    [
        {"layers": [1, None, {"name": []}], "input_layers": 7, "output_layers": [[[]]]},
        {"layers": [{"class_name": "TFOpLambda", "inbound_nodes": [7, "x", [[]]]}],
         "input_layers": [], "output_layers": {}},
        {"layers": [{"class_name": "TFOpLambda", "config": 3, "inbound_nodes": []}],
         "input_layers": None},
        {"layers": [{"class_name": "Dense", "config": {"name": [], "activation": {}, "dtype": []},
                     "inbound_nodes": [{"a": 1}]}], "input_layers": 0, "output_layers": 0},
    ],
)  # fmt: skip
def test_graph_that_is_none_is_no_error_here(inner):
    """Whoever builds it says what is wrong."""
    translate({"class_name": "Functional", "config": inner})

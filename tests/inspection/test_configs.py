"""Every name in a config is found, in both dialects, with the place where it stands."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.inspection.configs import MalformedConfigError, uncompiled, walk


def node(class_name, config=None, module="keras.layers", **more):
    """Return a config as Keras 3 writes it."""
    return {"module": module, "class_name": class_name, "config": config or {}, **more}


def function(name):
    """Return a function as Keras 3 writes it, a custom one and its own alike."""
    return {
        "module": "builtins",
        "class_name": "function",
        "config": name,
        "registered_name": "function",
    }


def found(needs):
    """Return what matters of needs that are not Keras' own."""
    return [(n.where, n.role, n.name, n.part) for n in needs if not n.of_keras]


def test_nested_objects_are_found_with_their_places():
    """Layers in layers, functions in arguments, in the order of the config."""
    block = node("Block", {"activation": function("bent")}, None, registered_name="my>Block")
    config = node("Sequential", {"layers": [node("Dense"), block]}, "keras")
    assert found(walk(config)) == [
        ("$.config.layers[1]", "class", "my>Block", "model"),
        ("$.config.layers[1].config.activation", "function", "bent", "model"),
    ]


def test_compile_config_is_the_other_part():
    """Losses, metrics and optimizers are needed to train only."""
    config = node(
        "Sequential",
        {"layers": []},
        "keras",
        compile_config={
            "optimizer": node("Mine", {}, None, registered_name="my>Mine"),
            "loss": {"a": function("my_loss"), "b": "mse"},
            "metrics": ["accuracy", [function("my>my_metric")], "unknown"],
        },
    )
    assert found(walk(config)) == [
        ("$.compile_config.optimizer", "class", "my>Mine", "compile"),
        ("$.compile_config.loss.a", "function", "my_loss", "compile"),
        ("$.compile_config.metrics[1][0]", "function", "my>my_metric", "compile"),
        ("$.compile_config.metrics[2]", "function", "unknown", "compile"),
    ]


def test_build_config_and_inbound_nodes_are_walked():
    """Whatever Keras would deserialize is looked at, tensors' places excepted."""
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [1], "keras_history": ["a"]}}
    layer = node(
        "Dense",
        build_config={"cell": node("Cell", {}, "elsewhere", registered_name="my>Cell")},
        inbound_nodes=[{"args": [tensor], "kwargs": {"mask": function("my_mask")}}],
    )
    assert found(walk(layer)) == [
        ("$.build_config.cell", "class", "my>Cell", "model"),
        ("$.inbound_nodes[0].kwargs.mask", "function", "my_mask", "model"),
    ]


def test_legacy_names_have_no_module():
    """In `.h5` files a class is a bare or a registered name, and a function is a string."""
    config = {
        "class_name": "Sequential",
        "config": {
            "layers": [
                {"class_name": "Dense", "config": {"activation": "bent", "name": "head"}},
                {"class_name": "my>Block", "config": {"fn": "other"}},
                {"class_name": "Plain", "config": {"padding": "same"}},
            ]
        },
    }
    training = {
        "loss": "my_loss",
        "metrics": ["mae", {"class_name": "Distance", "config": {"name": "distance"}}],
        "optimizer_config": {"class_name": "Adam", "config": {}},
    }
    needs = walk(config, training)
    assert found(needs) == [
        ("model_config.config.layers[0].config.activation", "function", "bent", "model"),
        ("model_config.config.layers[1]", "class", "my>Block", "model"),
        ("model_config.config.layers[1].config.fn", "function", "other", "model"),
        ("model_config.config.layers[2]", "class", "Plain", "model"),
        ("training_config.loss", "function", "my_loss", "compile"),
        ("training_config.metrics[1]", "class", "Distance", "compile"),
    ]
    assert [n.name for n in needs if n.optional] == ["other"]


@pytest.mark.parametrize(
    "config",
    [
        {"function": {"class_name": "__lambda__", "config": {"code": "4wEA"}}},
        {"function": ["4wEA", None, None], "function_type": "lambda"},
        {"function": function("f"), "mask": {"class_name": "__lambda__", "config": {}}},
        {"function": "f", "output_shape_type": "lambda"},
    ],
)
def test_lambda_layer_is_code_by_its_layers_name(config):
    """Keras 2 and 3 write bytecode in different shapes; one need stands for the layer."""
    needs = walk(node("Lambda", {"name": "scale", **config}))
    assert [(n.role, n.name) for n in needs if n.role == "lambda"] == [("lambda", "lambda:scale")]
    assert "Lambda" not in [n.name for n in needs]


def test_lambda_layer_around_a_named_function_is_no_code():
    """It needs the function, and nothing in the file runs."""
    needs = walk(node("Lambda", {"name": "scale", "function": function("double")}))
    assert [(n.role, n.name) for n in needs] == [("class", "Lambda"), ("function", "double")]
    legacy = {"class_name": "Lambda", "config": {"function": "double", "name": "scale"}}
    assert ("function", "double") in [(n.role, n.name) for n in walk(legacy)]


def test_lambda_anywhere_else_is_code_too():
    """A lambda given as an activation goes by the name of the layer that has it."""
    code = {"class_name": "__lambda__", "config": {"value": "4wEA"}}
    needs = walk(node("Dense", {"name": "head", "activation": code}))
    assert [n.name for n in needs if n.role == "lambda"] == ["lambda:head"]


def test_registered_name_decides_what_is_kerass_own():
    """A module of Keras' beside a foreign registered name is not Keras' own."""
    assert walk(node("Dense"))[0].of_keras
    assert walk(node("Dense", registered_name="Dense"))[0].of_keras
    assert not walk(node("Dense", registered_name="evil>Dense"))[0].of_keras
    assert not walk(node("Dense", module="keras_hub.layers"))[0].of_keras
    assert not walk(node("Dense", module=None, registered_name="my>Dense"))[0].of_keras


def test_uncompiling_reaches_nested_models_and_leaves_the_original():
    """A model in a model has a compile config of its own."""
    inner = node("Sequential", {"layers": []}, "keras", compile_config={"loss": "mse"})
    outer = node("Sequential", {"layers": [inner]}, "keras", compile_config={"loss": "mae"})
    bare = uncompiled(outer)
    assert bare["compile_config"] is None
    assert bare["config"]["layers"][0]["compile_config"] is None
    assert outer["config"]["layers"][0]["compile_config"] == {"loss": "mse"}


EVIL = node("Evil", {}, "evil")


@pytest.mark.parametrize("value", [EVIL, [EVIL], {"optimizer": EVIL}])
@pytest.mark.parametrize("place", ["a call", "a Lambda", "a dtype policy", "a plain mapping"])
def test_compile_config_is_a_key_like_any_other_where_nothing_is_compiled(place, value):
    """Keras makes objects of arguments, whatever they are called; a load does not drop them."""
    holder = {"compile_config": value}
    config = {
        "a call": node("Dense", {}, inbound_nodes=[{"args": [], "kwargs": holder}]),
        "a Lambda": node("Lambda", {"function": function("relu"), "arguments": holder}),
        "a dtype policy": node("Dense", {"dtype": node("DTypePolicy", holder, "keras")}),
        "a plain mapping": node("Dense", {"kernel_initializer": [holder]}),
    }[place]
    assert [(n.name, n.part) for n in walk(config) if not n.of_keras] == [("Evil", "model")]
    assert uncompiled(config) == config


@pytest.mark.parametrize("value", [EVIL, [EVIL], [], "adam", 0, False])
def test_a_compile_config_is_a_mapping_of_arguments(value):
    """Keras would make an object of anything else, and compile the model with that."""
    config = node("Sequential", {"layers": []}, "keras", compile_config=value)
    with pytest.raises(
        MalformedConfigError, match=r"compile config at \$\.compile_config is not a map"
    ):
        walk(config)


@pytest.mark.parametrize("key", ["class_name", "module", "registered_name", "config", "name"])
def test_what_stands_where_a_name_belongs_is_judged(key):
    """A mapping without all that an object has is walked, whatever its keys."""
    assert [n.name for n in walk(node("Dense", {"x": {key: EVIL}})) if not n.of_keras] == ["Evil"]


@pytest.mark.parametrize(
    "config",
    [{"mask": ["my>f"]}, {"mask": [[{"x": "my>f"}]]}, {"name": "my>f"}, {"class_name": "my>f"}],
)
def test_a_qualified_name_counts_wherever_it_stands(config):
    """Keras replaces strings in lists and under any key; where it is text, nothing goes by it."""
    needs = [n for n in walk(node("Dense", config)) if not n.of_keras]
    assert [(n.name, n.optional) for n in needs] == [("my>f", True)]
    assert [n for n in walk(node("Dense", {"words": ["<s>", "->", ">", "a"]})) if n.optional] == []

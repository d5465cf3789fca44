"""What a config may name: the report and the load give the same answer, before anything is built.

Each config here is one that Keras would not write. The payloads are harmless: a file that would
appear, an object that would be made.
"""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ConfigError, DamagedArtefactError, ObjectsNotFoundError

BUILT = []


class Tell(keras.layers.Layer):
    """A layer that says that it was made."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        BUILT.append(type(self).__name__)


@pytest.fixture(autouse=True)
def nothing_was_built():
    """Whatever a test refuses, it refuses before it is made."""
    BUILT.clear()
    yield
    assert BUILT == []


def use_of(report, name):
    """Return the verdict on a name."""
    return next(use for use in report.objects if use.registered_name == name)


def refuse(path, names, **arguments):
    """Check that report and load refuse a file alike; return what was refused, and the error."""
    report = kct.inspect(path, registry=names, **arguments)
    assert not report
    with pytest.raises(ObjectsNotFoundError) as caught:
        kct.safe_load_model(path, registry=names, compile=True, **arguments)
    error = caught.value
    assert error.missing == report.missing
    assert error.untrusted == report.untrusted
    assert error.refused == report.refused
    return report, error


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.utils", "get_file"),
        ("keras.saving", "load_model"),
        ("keras.models", "load_model"),
        ("keras.config", "enable_unsafe_deserialization"),
        ("keras.config", "set_floatx"),
        ("keras.applications.resnet50", "ResNet50"),
        ("keras.ops", "while_loop"),
        ("keras.ops", "custom_gradient"),
        ("keras.layers", "deserialize"),
        ("keras.src.utils.file_utils", "get_file"),
        ("keras.src.saving.saving_api", "load_model"),
        ("keras", "layers.Dense"),
    ],
)
@pytest.mark.parametrize("role", ["class", "function"])
def test_of_keras_only_what_models_are_made_of_is_reached(
    role, module, name, forge, chain, layer, names
):
    """The rest of Keras' namespace downloads, reads, or changes the process."""
    node = layer(name, module, fname="x", origin="file:///etc/hostname")
    if role == "function":
        function = {"module": module, "class_name": "function", "config": name}
        node = layer("Activation", activation=function)
    report, error = refuse(forge(chain(node)), names)
    assert report.refused == (name,)
    assert f"{module} has nothing of that name for models" in str(error)


def test_module_class_and_registered_name_have_to_agree(forge, chain, layer, names):
    """Keras goes by the registered name; a reader goes by module and class."""
    names.register("shop", name="Tell")(Tell)
    node = {**layer("Dense", units=1), "registered_name": "shop>Tell"}
    _, error = refuse(forge(chain(node)), names)
    assert error.refused == ("shop>Tell",)
    assert "both keras.layers.Dense and 'shop>Tell'" in str(error)


def test_a_function_has_one_name(forge, chain, layer, names):
    """Keras looks some up by one of them, and some by the other."""
    function = {
        "module": "keras.activations",
        "class_name": "function",
        "config": "relu",
        "registered_name": "shop>other",
    }
    _, error = refuse(forge(chain(layer("Activation", activation=function))), names)
    assert "both 'relu' and 'shop>other'" in str(error)


def test_a_class_is_no_function(forge, chain, layer, names):
    """Keras would call it, with whatever tensor comes."""
    names.register("shop")(Tell)
    function = {"module": "shop", "class_name": "function", "config": "shop>Tell"}
    report, _ = refuse(forge(chain(layer("Activation", activation=function))), names)
    note = use_of(report, "shop>Tell").note
    assert note == "the file has a function, but 'shop>Tell' is a class"


def test_an_object_of_somebody_elses_keras_registry_is_not_reached(
    forge, chain, layer, names, monkeypatch
):
    """In any of the places where Keras would look; the line to add is in the error."""
    monkeypatch.setattr(Tell, "__module__", "other.layers")
    keras.saving.register_keras_serializable("other")(Tell)
    node = {**layer("Tell", "other.layers"), "registered_name": "other>Tell"}
    _, error = refuse(forge(chain(node)), names)
    assert error.untrusted == ("other>Tell",)
    assert 'trusted=["other>Tell"]' in str(error)


@pytest.mark.parametrize("wrapper", ["TimeDistributed", "Bidirectional", "RNN", "quantizer"])
def test_names_are_found_wherever_they_are_nested(wrapper, forge, chain, layer, names):
    """In wrapped layers, cells, and whatever else takes a config."""
    evil = layer("Tell", "evil.layers")
    key = {"RNN": "cell", "quantizer": "kernel_quantizer"}.get(wrapper, "layer")
    outer = layer("Dense" if wrapper == "quantizer" else wrapper, **{key: evil})
    _, error = refuse(forge(chain(outer)), names)
    assert error.missing == ("Tell",)


@pytest.mark.parametrize(
    "place",
    ["build_config", "compile_config", "dtype", "kernel_initializer", "kernel_regularizer", "args"],
)
def test_names_are_found_in_every_part_of_a_config(place, forge, chain, layer, names):
    """Also where only some layers of Keras' look."""
    evil = layer("Tell", "evil.layers")
    if place == "build_config":
        config = chain({**layer("Dense", units=1), "build_config": {"input_shape": evil}})
    elif place == "compile_config":
        config = chain(layer("Dense", units=1), compile_config={"optimizer": "adam", "loss": evil})
    elif place == "args":
        nodes = [{"args": [[evil]], "kwargs": {"mask": evil}}]
        config = chain({**layer("Dense", units=1), "inbound_nodes": nodes})
    else:
        config = chain(layer("Dense", units=1, **{place: evil}))
    _, error = refuse(forge(config), names)
    assert error.missing == ("Tell",)


def test_values_that_keras_does_not_know_are_objects(forge, chain, layer, names):
    """Of names with two underscores Keras knows a few; any other it looks up as a class."""
    node = {"class_name": "__evil__", "config": {}, "registered_name": "shop>Tell", "module": None}
    _, error = refuse(forge(chain(layer("Dense", units=1, seed=node))), names)
    assert error.missing == ("shop>Tell",)


@pytest.mark.parametrize(
    "node",
    [
        {"class_name": ["Tell"], "config": {}, "registered_name": "shop>Tell"},
        {"class_name": "Tell", "config": {}, "module": ["os"]},
        {"class_name": "Tell", "config": {}, "registered_name": {"a": 1}},
        {"class_name": "function", "config": {"name": "x"}, "module": "os"},
        {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "S1000000000"}},
    ],
    ids=str,
)
def test_what_only_looks_like_a_name_is_damage(node, forge, chain, layer, names):
    """Who compares strings is passed by a list; Keras is not."""
    path = forge(chain(layer("Dense", units=1, seed=node)))
    with pytest.raises(DamagedArtefactError, match="in its config the"):
        kct.safe_load_model(path, registry=names)
    assert kct.inspect(path, registry=names).problems[0].kind == "DamagedArtefactError"


@pytest.mark.parametrize("name", ["StringLookup", "IntegerLookup", "TextVectorization"])
def test_a_layer_does_not_open_the_path_that_a_config_gives(name, forge, chain, layer, names):
    """The words of any file would become part of the model, and of what it answers."""
    _, error = refuse(forge(chain(layer(name, name="words", vocabulary="/etc/passwd"))), names)
    assert error.untrusted == ("path:/etc/passwd",)
    assert 'trusted=["path:/etc/passwd"]' in str(error)


def test_a_path_can_be_trusted_by_its_name(forge, chain, layer, names, tmp_path):
    """Whoever made the layer so has no other way to load it."""
    words = tmp_path / "words.txt"
    words.write_text("one\ntwo\n")
    first = layer("InputLayer", batch_shape=[None, 1], dtype="string", name="in")
    lookup = layer("StringLookup", name="words", vocabulary=str(words))
    config = chain()
    config["config"]["layers"] = [first, lookup]
    path = forge(config)
    model = kct.safe_load_model(path, registry=names, trusted=[f"path:{words}"])
    assert model.layers[-1].vocabulary_size() == 3


@pytest.mark.parametrize("base", ["StringLookup", "IntegerLookup", "TextVectorization"])
def test_a_subclass_of_a_layer_that_opens_files_is_judged_as_that_layer(
    base, forge, chain, layer, names
):
    """Keras 3.10 would read the file; that the class is trusted says nothing about the path."""
    words = type("Words", (getattr(keras.layers, base),), {})
    names.register("shop")(words)
    node = layer("Words", "shop", name="words", vocabulary="/etc/passwd")
    report, error = refuse(forge(chain({**node, "registered_name": "shop>Words"})), names)
    assert error.untrusted == ("path:/etc/passwd",)
    assert use_of(report, "shop>Words").usable


def test_a_path_is_no_path_to_a_class_that_opens_none(forge, chain, layer, names):
    """A layer of the user's own may call its arguments what it likes."""

    @names.register("shop")
    class Named(keras.layers.Layer):
        def __init__(self, vocabulary="", path="", **kwargs):
            super().__init__(**kwargs)

    node = layer("Named", "shop", vocabulary="english", path="left")
    path = forge(chain({**node, "registered_name": "shop>Named"}))
    assert kct.inspect(path, registry=names)
    assert kct.safe_load_model(path, registry=names)


def test_a_path_that_is_handed_on_is_not_opened_either(forge, chain, layer, names, tmp_path):
    """A class that makes a layer of its arguments: refused where the file would be opened."""
    words = tmp_path / "words.txt"
    words.write_text("one\ntwo\n")

    @names.register("shop")
    class Holder(keras.layers.Layer):
        def __init__(self, words=None, **kwargs):
            super().__init__(**kwargs)
            self.lookup = keras.layers.StringLookup(vocabulary=words)

    node = layer("Holder", "shop", words=str(words))
    path = forge(chain({**node, "registered_name": "shop>Holder"}))
    with pytest.raises(ObjectsNotFoundError, match=r"the file 'path:.*words.txt'"):
        kct.safe_load_model(path, registry=names)


@pytest.mark.parametrize("name", ["TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
def test_layers_that_run_other_code_take_their_name(name, forge, chain, layer, names):
    """A SavedModel, a pickle of torch, functions of JAX."""
    _, error = refuse(forge(chain(layer(name, filepath="x"))), names)
    assert error.untrusted == (name,)


@pytest.mark.parametrize(
    "function",
    [
        {"class_name": "__lambda__", "config": {"code": "4wAAA", "defaults": None}},
        ["4wAAA", None, None],
        "cGlja2xl",
    ],
    ids=["dict", "list", "string"],
)
def test_code_in_a_lambda_is_not_run(function, forge, chain, layer, names):
    """In any of the forms that versions of Keras wrote; `custom_objects` does not change that."""
    node = layer("Lambda", name="scale", function=function, function_type="lambda")
    _, error = refuse(forge(chain(node)), names)
    assert "lambda:scale" in error.untrusted


def test_process_wide_switches_do_not_open_the_gate(forge, chain, layer, names):
    """Keras' own switch for unsafe files holds for the whole process; here it changes nothing."""
    keras.config.enable_unsafe_deserialization()
    try:
        function = {"class_name": "__lambda__", "config": {"code": "4wAAA"}}
        refuse(forge(chain(layer("Lambda", name="scale", function=function))), names)
    finally:
        from keras.src.backend.common import global_state

        global_state.set_global_attribute("safe_mode_saving", None)


def test_a_custom_dense_does_not_become_kerass_own(forge, chain, layer, names):
    """Two classes of one bare name in one file: each node gets the one that it means."""

    @names.register("shop")
    class Dense(keras.layers.Layer):
        pass

    own = {**layer("Dense", units=3, name="own"), "registered_name": "Dense"}
    other = {**layer("Dense", "shop.layers", name="other"), "registered_name": "shop>Dense"}
    shapes = {"layers/dense/vars/0": (4, 3), "layers/dense/vars/1": (3,)}
    tensors = {path: np.ones(shape, "f4") for path, shape in shapes.items()}
    model = kct.safe_load_model(forge(chain(own, other), tensors), registry=names)
    assert type(model.get_layer("own")) is keras.layers.Dense
    assert type(model.get_layer("other")) is Dense


def test_no_registered_name_imports_nothing(forge, chain, layer, names, tmp_path, monkeypatch):
    """Keras would look into the module that the config names; here nothing is imported."""
    (tmp_path / "keras_cv.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))

    class Scale(keras.layers.Layer):
        pass

    path = forge(chain(layer("Scale", "keras_cv")))
    model = kct.safe_load_model(path, {"Scale": Scale}, registry=names)
    assert type(model.layers[-1]) is Scale


def test_an_error_while_building_names_the_error(forge, chain, layer, names):
    """What Keras raises is anything; what comes out is ours, with Keras' words in it."""
    path = forge(chain(layer("Dense", units="many")))
    with pytest.raises(ConfigError, match=r"cannot build .* of the file: \w+Error"):
        kct.safe_load_model(path, registry=names)


@pytest.mark.parametrize(
    "text", ['{"class_name": "Sequential", "class_name": "Evil", "config": {}}', "[1]", "nonsense"]
)
def test_a_config_that_is_none_is_damage(text, forge, names):
    """Twice the same name: one reader takes the first, another the last."""
    path = forge(text)
    with pytest.raises(DamagedArtefactError, match=r"config\.json"):
        kct.safe_load_model(path, registry=names)
    assert "config.json" in kct.inspect(path, registry=names).problems[0]


def test_a_report_is_json(forge, chain, layer, names):
    """For programs: the same facts, with a verdict on the whole."""
    path = forge(chain(layer("Tell", "evil.layers")))
    report = json.loads(json.dumps(kct.inspect(path, registry=names).to_json()))
    assert report["good"] is report["loads"] is False
    assert report["kind"] == "keras"
    assert [o["verdict"] for o in report["objects"]] == ["built-in", "built-in", "missing"]
    assert report["objects"][2]["module"] == "evil.layers"


@pytest.mark.parametrize("compiled", [True, False, "auto"])
@pytest.mark.parametrize("shape", ["single", "list"])
def test_a_compile_config_that_is_none_is_damage(shape, compiled, forge, chain, layer, names):
    """Keras would make an object of it, and compile the model with that."""
    evil = layer("Tell", "evil.layers")
    config = chain(layer("Dense", units=1), compile_config=[evil] if shape == "list" else evil)
    path = forge(config)
    report = kct.inspect(path, registry=names)
    assert "compile_config is not a mapping of arguments" in str(report.problems)
    with pytest.raises(DamagedArtefactError, match="is not a mapping of arguments"):
        kct.safe_load_model(path, compile=compiled, registry=names)


@pytest.mark.parametrize("compiled", [True, False, "auto"])
def test_an_argument_called_compile_config_is_an_argument(compiled, forge, chain, layer, names):
    """It is needed to build the model, so no value of `compile` passes it over."""
    evil = {"compile_config": {"loss": layer("Tell", "evil.layers")}}
    node = {**layer("Dense", units=1), "inbound_nodes": [{"args": [], "kwargs": evil}]}
    report = kct.inspect(forge(chain(node)), registry=names)
    assert [use.part for use in report.objects if not use.usable] == ["model"]
    with pytest.raises(ObjectsNotFoundError):
        kct.safe_load_model(forge(chain(node)), compile=compiled, registry=names)


def test_a_text_that_is_a_name_in_kerass_registry_is_listed(
    forge, chain, layer, names, monkeypatch
):
    """Keras would put the object in its place, wherever it stands."""
    monkeypatch.setattr(Tell, "__module__", "other.layers")
    keras.saving.register_keras_serializable("other")(Tell)
    history = {"shape": [None, 4], "dtype": "float32", "keras_history": ["in", 0, 0]}
    given = {"class_name": "__keras_tensor__", "config": history}

    def called_with(text):
        nodes = [{"args": [given], "kwargs": {"x": [text]}}]
        return {**layer("Dense", units=1), "inbound_nodes": nodes}

    _, error = refuse(forge(chain(called_with("other>Tell"))), names)
    assert error.untrusted == ("other>Tell",)
    text = called_with("nobody>Tell")
    assert kct.inspect(forge(chain(text)), registry=names)

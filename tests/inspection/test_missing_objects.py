"""What a file lacks comes in one error, each name with the line that gives it."""

from __future__ import annotations

import importlib
import sys

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ConfigError, ObjectsNotFoundError
from keras_ckpt_tools.inspection.missing_objects import describe_refused
from keras_ckpt_tools.inspection.verdicts import ObjectUse
from keras_ckpt_tools.registry import Registry

FORMATS = ["net.keras", "net.h5"]
X = np.ones((2, 4), "float32")


@pytest.mark.parametrize("name", FORMATS)
def test_all_missing_and_untrusted_names_come_in_one_error(name, build_custom, save, tmp_path):
    """Each with where it was defined, the nearest name, and the line to add."""
    names = Registry()

    @names.register("my_package")
    def soft_losses(y_true, y_pred):
        return y_true

    scale = keras.layers.Lambda(lambda x: 2 * x, name="scale")
    path = save(build_custom(extra=(scale,)), tmp_path / name)
    with pytest.raises(ObjectsNotFoundError) as caught:
        kct.safe_load_model(path, registry=names)
    error, text = caught.value, str(caught.value)
    assert error.missing == ("ResidualBlock", "bent", "soft_loss", "Distance")
    assert error.untrusted == ("lambda:scale",)
    assert error.path == path
    assert "needs 5 objects that cannot be used: 4 missing, 1 not trusted." in text
    root = "$" if name == "net.keras" else "model_config"
    assert f"missing    ResidualBlock  (class at {root}.config.layers[1]; " in text
    assert f"(function at {root}.config.layers[1].config.activation and 1 more; " in text
    assert "the file does not contain its module" in text
    assert (
        'add: @kct.register("my_package") above `def soft_loss`, or '
        'custom_objects={"soft_loss": soft_loss}'
    ) in text
    assert "nearest: my_package>soft_losses" in text
    assert 'add: or aliases=["soft_loss"] where my_package>soft_losses is registered' in text
    assert 'add: trusted=["lambda:scale"], if you know what the code does' in text
    assert (
        f'call `kct.safe_load_model({path!r}, custom_objects={{"ResidualBlock": ResidualBlock, '
        '"bent": bent, "soft_loss": soft_loss, "Distance": Distance}, '
        'trusted=["lambda:scale"])`.'
    ) in text


def test_error_says_which_module_saved_a_class(build_custom, custom, save, names, tmp_path):
    """Keras writes the module of a class into `.keras` files."""
    path = save(build_custom(), tmp_path / "net.keras")
    with pytest.raises(ObjectsNotFoundError) as caught:
        kct.safe_load_model(path, registry=names)
    assert f"saved from {custom.ResidualBlock.__module__})" in str(caught.value)


def test_registered_names_are_told_with_their_package(build_custom, custom, save, tmp_path):
    """The line to add has the package that the file names, and a name that differs."""
    keras.saving.register_keras_serializable("blocks", name="Res")(custom.ResidualBlock)
    path = save(build_custom(), tmp_path / "net.keras")
    keras.saving.get_custom_objects().clear()
    with pytest.raises(ObjectsNotFoundError) as caught:
        kct.safe_load_model(path, registry=Registry())
    assert (
        '@kct.register("blocks", name="Res") above `class ResidualBlock`, or '
        'custom_objects={"Res": ResidualBlock}'
    ) in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_object_in_kerass_global_registry_is_not_used_unless_trusted(
    name, build_custom, custom, objects, save, names, same, tmp_path
):
    """Somebody else's registration does not widen what a file may reach."""
    keras.saving.register_keras_serializable("other")(custom.ResidualBlock)
    model = build_custom()
    path = save(model, tmp_path / name)
    del objects["ResidualBlock"]
    with pytest.raises(ObjectsNotFoundError) as caught:
        kct.safe_load_model(path, objects, registry=names)
    assert caught.value.untrusted == ("other>ResidualBlock",)
    assert 'or trusted=["other>ResidualBlock"]' in str(caught.value)
    for trusted in (["other>ResidualBlock"], ["other>*"]):
        loaded = kct.safe_load_model(path, objects, registry=names, trusted=trusted)
        assert same(model, loaded)


@pytest.mark.parametrize("name", FORMATS)
def test_explicit_objects_win_over_kerass_global_registry(
    name, build_custom, custom, objects, save, names, tmp_path
):
    """In Keras the explicit argument loses in silence."""
    keras.saving.register_keras_serializable("other")(custom.ResidualBlock)
    path = save(build_custom(), tmp_path / name)

    class Mine(custom.ResidualBlock):
        pass

    objects["ResidualBlock"] = Mine
    loaded = kct.safe_load_model(path, objects, registry=names)
    assert type(loaded.layers[0]) is Mine


@pytest.mark.parametrize("name", FORMATS)
def test_lambda_runs_only_when_its_layer_is_trusted(
    name, build_custom, objects, save, names, tmp_path
):
    """Code in the file runs by the layer's name, and by no process-wide switch."""
    scale = keras.layers.Lambda(lambda x: 2 * x, name="scale", output_shape=(4,))
    model = build_custom(extra=(scale,))
    path = save(model, tmp_path / name)
    keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(ObjectsNotFoundError, match="lambda:scale"):
            kct.safe_load_model(path, objects, registry=names)
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)
    loaded = kct.safe_load_model(path, objects, registry=names, trusted=["lambda:scale"])
    assert np.array_equal(model(X), loaded(X))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("lacking", ["soft_loss", "Distance"])
def test_auto_loads_uncompiled_with_a_warning_that_says_why(
    lacking, name, build_custom, objects, save, names, tmp_path
):
    """What only training needs does not keep a model from loading."""
    model = build_custom()
    path = save(model, tmp_path / name)
    del objects[lacking]
    with pytest.warns(UserWarning, match="was loaded uncompiled") as caught:
        loaded = kct.safe_load_model(path, objects, registry=names)
    assert caught[0].filename == __file__
    assert f"missing    {lacking}" in str(caught[0].message)
    assert f'custom_objects={{"{lacking}": {lacking}}}' in str(caught[0].message)
    assert not loaded.compiled
    assert np.array_equal(model(X), loaded(X))


@pytest.mark.parametrize("name", FORMATS)
def test_compile_true_raises_and_false_never_compiles(
    name, build_custom, objects, save, names, tmp_path
):
    """`True` is all or nothing; `False` needs no losses and says nothing."""
    path = save(build_custom(), tmp_path / name)
    assert not kct.safe_load_model(path, objects, compile=False, registry=names).compiled
    del objects["soft_loss"]
    with pytest.raises(ObjectsNotFoundError) as caught:
        kct.safe_load_model(path, objects, compile=True, registry=names)
    assert caught.value.missing == ("soft_loss",)
    assert not kct.safe_load_model(path, objects, compile=False, registry=names).compiled


def test_missing_layer_is_an_error_that_names_the_loss_too(build_custom, save, names, tmp_path):
    """With `"auto"` the error is one, and complete, where the model cannot be built anyway."""
    path = save(build_custom(), tmp_path / "net.keras")
    with pytest.raises(ObjectsNotFoundError) as caught:
        kct.safe_load_model(path, registry=names)
    assert "soft_loss" in caught.value.missing


def far(y_true, y_pred):
    """A loss."""
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


def trained(loss):
    """Return a model that was trained with a loss."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", loss)
    model.train_on_batch(X, X[:, :2])
    return model


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a tf.function")
@pytest.mark.parametrize("name", FORMATS)
def test_tf_function_is_asked_for_by_the_name_of_its_function(name, save, tmp_path):
    """Keras writes its class, `Function`, which nobody has ever defined."""
    import tensorflow as tf

    path = save(trained(tf.function(far)), tmp_path / name)
    with pytest.raises(ObjectsNotFoundError, match="above `def far`, or custom_objects") as caught:
        kct.safe_load_model(path, compile=True, registry=Registry())
    assert caught.value.missing == ("far",)
    for function in (far, tf.function(far)):
        model = kct.safe_load_model(path, {"far": function}, compile=True, registry=Registry())
        assert np.isfinite(model.evaluate(X, X[:, :2], verbose=0))


def test_partial_is_asked_for_as_a_whole(forge, chain, layer):
    """The arguments that it bound are not in the file."""
    compiled = {"loss": {"module": "functools", "class_name": "partial", "config": "far",
                         "registered_name": "partial"}}  # fmt: skip
    path = forge(chain(layer("Dense", units=2), compile_config=compiled))
    with pytest.raises(ObjectsNotFoundError, match="pass the partial itself") as caught:
        kct.safe_load_model(path, compile=True, registry=Registry())
    assert caught.value.missing == ("far",)


def test_lambda_has_no_name_to_register(save, tmp_path):
    """The line to add is one that Python takes, and works."""
    path = save(trained(lambda y_true, y_pred: 2 * far(y_true, y_pred)), tmp_path / "net.h5")
    with pytest.raises(ObjectsNotFoundError) as caught:
        kct.safe_load_model(path, compile=True, registry=Registry())
    text = str(caught.value)
    assert "kct.register" not in text
    assert 'add: custom_objects={"<lambda>": the_function}' in text
    assert 'custom_objects={"<lambda>": the_function})`' in text
    model = kct.safe_load_model(path, {"<lambda>": far}, compile=True, registry=Registry())
    assert model.compiled
    assert np.isfinite(model.evaluate(X, X[:, :2], verbose=0))


PARTS = """
import keras
import keras_ckpt_tools as kct

@kct.register("parts_pack")
class Part(keras.layers.Layer):
    def call(self, x):
        return 2 * x

@keras.saving.register_keras_serializable("parts_pack")
class Stock(keras.layers.Layer):
    def call(self, x):
        return 3 * x
"""


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A folder with a module of two layers that was not imported, and a model of each."""
    (tmp_path / "parts_of_model.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("Part", "Stock"):
        members = {"__module__": "parts_of_model", "call": lambda self, x: 2 * x}
        layer = type(name, (keras.layers.Layer,), members)
        keras.saving.register_keras_serializable("parts_pack")(layer)
        keras.Sequential([keras.Input((4,)), layer()]).save(tmp_path / f"{name.lower()}.keras")
        del keras.saving.get_custom_objects()[f"parts_pack>{name}"]
    return tmp_path


def test_module_that_was_not_imported_is_the_first_thing_to_add(parts):
    """Where the file says which one it is; then the same call works."""
    for name, rest in (("part", {}), ("stock", {"trusted": ["parts_pack>Stock"]})):
        with pytest.raises(ObjectsNotFoundError) as caught:
            kct.safe_load_model(parts / f"{name}.keras")
        lines = [line.strip() for line in caught.value.what.splitlines()]
        added = [line for line in lines if line.startswith(("add: ", "or: "))]
        assert added[0].startswith("add: `import parts_of_model` (its module, according")
        assert added[1].startswith("or: @kct.register(")
        assert "parts_of_model" not in sys.modules
        importlib.import_module("parts_of_model")
        assert kct.safe_load_model(parts / f"{name}.keras", **rest)
        if name == "part":  # The registry knows it from now on.
            del sys.modules["parts_of_model"], keras.saving.get_custom_objects()["parts_pack>Stock"]


@pytest.mark.parametrize("module", ["__main__", "a-b.c", "x.import", "os; print()", "keras.x", ""])
def test_what_cannot_be_imported_is_not_proposed(module):
    """A module's name comes out of the file."""
    use = ObjectUse("$", "class", "p>Thing", "Thing", module, "model", "missing")
    assert "`import" not in describe_refused([use])


def test_nothing_is_said_of_a_load_that_then_fails(tmp_path, names):
    """The warning that the model "was loaded uncompiled" came before the error."""

    class Lossy(keras.layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)

        def get_config(self):
            return super().get_config()

    model = keras.Sequential([keras.Input((4,)), Lossy(2), keras.layers.Dense(2)])
    model.compile("sgd", far)
    model.save(tmp_path / "net.keras")
    with pytest.raises(ConfigError):  # A warning is an error in these tests.
        kct.safe_load_model(tmp_path / "net.keras", {"Lossy": Lossy}, registry=names)


def test_trusted_name_that_the_file_does_not_have_is_mentioned(tmp_path, names):
    """With the nearest that it has; a whole package is a rule for many files."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x, name="scale")])
    model.save(tmp_path / "net.keras")
    given = ["lambda:scale", "lambda:scael", "keras_hub>*", "registered-here"]
    with pytest.warns(UserWarning, match=r"'lambda:scael' \(nearest: 'lambda:scale'\)\.") as told:
        kct.safe_load_model(tmp_path / "net.keras", trusted=given, registry=names)
    assert len(told) == 1
    assert told[0].filename == __file__

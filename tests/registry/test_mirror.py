"""What Keras sees of a registry."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_ckpt_tools.errors import DuplicateNameError


def block(**register):
    """Define a small layer of one variable, as a fresh class."""

    class Block(keras.layers.Layer):
        def __init__(self, units=2, **kwargs):
            super().__init__(**kwargs)
            self.units = units

        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], self.units))

        def call(self, x):
            return x @ self.w

    return Block


def save(layer, path):
    """Save a model of one layer, and return what it predicts."""
    model = keras.Sequential([keras.Input((3,)), layer])
    model.save(path)
    return model.predict(np.ones((1, 3)), verbose=0)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_stock_keras_loads_by_name_and_by_alias(mirrored, tmp_path, suffix):
    """A file from before the class was renamed opens too, in plain Keras."""
    old = mirrored.register("oldp", name="Res")(block())
    path = tmp_path / f"model.{suffix}"
    expected = save(old(), path)
    mirrored.register("p", name="New", aliases=["oldp>Res"], replace=True)(block())
    model = keras.models.load_model(path)
    assert type(model.layers[-1]) is mirrored.get("p>New")
    np.testing.assert_array_equal(model.predict(np.ones((1, 3)), verbose=0), expected)


def test_keras_writes_the_registered_name(mirrored):
    """In Keras' own words: `get_registered_name` and its reverse."""
    cls = mirrored.register("p", aliases=["Old"])(block())
    assert keras.saving.get_registered_name(cls) == "p>Block"
    for key in ("p>Block", "Old", "p>Old"):
        assert keras.saving.get_registered_object(key) is cls
    # A bare name of Keras' own (a class called Dense, say) must not be taken by registering.
    assert keras.saving.get_registered_object("Block") is None


def test_stock_keras_replaces_in_silence_and_we_do_not(mirrored):
    """The fault itself, and the error in its place."""

    @keras.saving.register_keras_serializable("p")
    def act(x):
        return x

    @keras.saving.register_keras_serializable("p", "act")
    def other(x):
        return x

    assert keras.saving.get_registered_object("p>act") is other
    with pytest.raises(DuplicateNameError, match=r"test_mirror\.py"):
        mirrored.register("p", name="act")(act)
    mirrored.register("p", name="act", replace=True)(act)
    assert keras.saving.get_registered_object("p>act") is act


def test_what_keras_has_registered_already_may_be_registered_here(mirrored):
    """Both decorators on one class are no clash."""
    cls = keras.saving.register_keras_serializable("p")(block())
    assert mirrored.register("p")(cls) is cls


def test_models_of_a_replaced_definition_are_saved_under_the_name(mirrored, tmp_path):
    """A cell that ran again does not spoil the model that is being trained."""
    first = mirrored.register("p")(block())
    layer = first()
    second = mirrored.register("p")(block())
    save(layer, tmp_path / "m.keras")
    assert type(keras.models.load_model(tmp_path / "m.keras").layers[-1]) is second


def test_a_displaced_object_loses_its_name_in_keras(mirrored):
    """Files would else call two classes by one name."""
    first = mirrored.register("p", name="A")(block())

    @mirrored.register("p", name="A", replace=True)
    class Other(keras.layers.Layer):
        pass

    assert keras.saving.get_registered_name(first) == "Block"
    assert keras.saving.get_registered_name(Other) == "p>A"


def test_a_private_registry_leaves_keras_alone(names):
    """Tests of one do not change what another loads."""
    objects = dict(keras.saving.get_custom_objects())
    names.register("p")(block())
    with names.scope({"X": block()}):
        assert keras.saving.get_custom_objects() == objects
    assert keras.saving.get_custom_objects() == objects


def test_an_isolated_registry_forgets(mirrored):
    """What tests register is gone afterwards, here and in Keras."""
    with mirrored._isolated():
        mirrored.register("p")(block())
    assert len(mirrored) == 0
    assert keras.saving.get_registered_object("p>Block") is None

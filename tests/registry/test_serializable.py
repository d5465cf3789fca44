"""The round trip of one object."""

from __future__ import annotations

import random
import re

import keras
import numpy as np
import pytest

from keras_ckpt_tools.errors import ArgumentError, NotSerializableError
from keras_ckpt_tools.registry import check_serializable


class Base(keras.layers.Layer):
    """A layer whose config is what the test says."""

    def __init__(self, units=2, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.rate = rate

    def own(self):
        """Return the part of the config that is its own."""
        return {"units": self.units, "rate": self.rate}

    def get_config(self):
        """Return the config."""
        return {**super().get_config(), **self.own()}


def faults(obj):
    """Return the error of the check."""
    with pytest.raises(NotSerializableError) as caught:
        check_serializable(obj)
    return caught.value


def test_a_good_object_gives_its_config():
    """The config is what was checked, so it is worth looking at."""
    config = check_serializable(Base(7, name="mine"))
    assert config["units"] == 7
    assert config["name"] == "mine"


@pytest.mark.parametrize(
    "obj",
    [
        keras.losses.MeanSquaredError(),
        keras.metrics.MeanMetricWrapper(keras.losses.mean_squared_error),
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10)),
        keras.initializers.HeNormal(seed=3),
        keras.regularizers.L2(0.5),
        keras.constraints.MaxNorm(),
        keras.layers.TimeDistributed(keras.layers.Dense(2, kernel_regularizer="l2")),
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
    ],
    ids=lambda obj: type(obj).__name__,
)
def test_what_keras_brings_passes(obj):
    """No false alarm on objects that do come back."""
    check_serializable(obj)


def test_all_lost_arguments_are_named_at_once():
    """With the method that returns them."""

    class Lossy(Base):
        def own(self):
            return {}

    error = faults(Lossy(7, 0.25))
    assert error.lost == ("units", "rate")
    assert "`units`, `rate`" in str(error)
    assert '"rate": self.rate' in str(error)


def test_a_lost_argument_without_a_default_is_named_and_not_only_its_typeerror():
    """Keras' message has the whole config, and no remedy."""

    class Lossy(keras.losses.Loss):
        def __init__(self, delta, **kwargs):
            super().__init__(**kwargs)

        def get_config(self):
            return super().get_config()

    error = faults(Lossy(3))
    assert error.lost == ("delta",)
    assert isinstance(error.__cause__, TypeError)


def test_a_lost_argument_behind_a_from_config_of_ones_own_is_found():
    """By what the attribute came back as."""

    class Lossy(Base):
        def own(self):
            return {"units": self.units}

        @classmethod
        def from_config(cls, config):
            return super().from_config(config)

    assert "'rate' was 0.25 and comes back as 0.5" in str(faults(Lossy(7, 0.25)))


def test_values_that_come_back_changed_are_named():
    """A config that is written down by hand, and one that changes at each trip."""

    class Changing(Base):
        def own(self):
            return {"units": 32, "rate": self.rate / 2}

    text = str(faults(Changing(7)))
    assert "'units' was 7 and comes back as 32" in text
    assert "'rate' was 0.25 and comes back as 0.125" in text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({1, 2}, "does not fit into JSON"),
        (lambda x: x, "is a lambda"),
        ({1: 2}, "keys that are no strings"),
        (object(), "does not fit into JSON"),
    ],
)
def test_values_that_json_cannot_hold_are_named(value, why):
    """They would be lost, or change, between saving and loading."""
    assert re.search(f"'units'.*{why}", str(faults(Base(value))))


@pytest.mark.parametrize("value", [keras.layers.Dense(2), np.ones(3)])
def test_a_nested_object_that_comes_back_as_a_dictionary_is_found(value):
    """The most common mistake: it shows when the layer is first called."""

    class Holder(keras.layers.Layer):
        def __init__(self, inner, **kwargs):
            super().__init__(**kwargs)
            self.inner = inner

        def get_config(self):
            return {**super().get_config(), "inner": self.inner}

    assert "comes back as its config" in str(faults(Holder(value)))


def test_nested_objects_of_ones_own_need_not_be_registered():
    """This object is being checked, not whether the other one was decorated."""

    def act(x):
        return x

    class Inner(Base):
        pass

    class Holder(keras.layers.Layer):
        def __init__(self, inner, act, **kwargs):
            super().__init__(**kwargs)
            self.inner, self.act = inner, act

        def get_config(self):
            write = keras.saving.serialize_keras_object
            return {**super().get_config(), "inner": write(self.inner), "act": write(self.act)}

        @classmethod
        def from_config(cls, config):
            for key in ("inner", "act"):
                config[key] = keras.saving.deserialize_keras_object(config[key])
            return cls(**config)

    before = dict(keras.saving.get_custom_objects())
    check_serializable(Holder(Inner(3), act))
    assert keras.saving.get_custom_objects() == before


def test_nothing_is_left_behind_in_keras():
    """Names of layers to come, seeds and registered objects are as if nothing had happened."""
    keras.utils.clear_session()
    Base()
    objects = dict(keras.saving.get_custom_objects())
    state = random.getstate()

    class Random(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.seeds = keras.random.SeedGenerator()

    check_serializable(Random)
    check_serializable(Base)
    assert random.getstate() == state
    assert keras.saving.get_custom_objects() == objects
    assert Base().name == "base_1"
    with pytest.raises(NotSerializableError):
        check_serializable(Base({1}))
    assert keras.saving.get_custom_objects() == objects


def test_functions_pass_and_lambdas_do_not():
    """A function is its name."""

    def act(x):
        return x

    assert check_serializable(act)["config"] == "act"
    with pytest.raises(NotSerializableError, match="def my_function"):
        check_serializable(lambda x: x)


def test_a_class_that_needs_arguments_has_to_be_made_first():
    """The message says how."""

    class Needs(Base):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)

    with pytest.raises(ArgumentError, match=r"check_serializable\(Needs\(\.\.\.\)\)"):
        check_serializable(Needs)


@pytest.mark.parametrize(
    ("config", "why"), [([1], "not a dictionary"), (ZeroDivisionError("oh"), "raises.*oh")]
)
def test_a_get_config_that_does_not_work_is_told(config, why):
    """Whatever it does."""

    class Bad(keras.layers.Layer):
        def get_config(self):
            if isinstance(config, Exception):
                raise config
            return config

    assert re.search(why, str(faults(Bad())))


class Losing(Base):
    """A layer whose `get_config` loses an argument that it needs."""

    def __init__(self, depth, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth


class Unnamed(keras.layers.Layer):
    """A layer with Keras' automatic config, which has no name in it."""

    def __init__(self, depth, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth

    def call(self, x):
        return x


def models_of(make):
    """Return a Sequential and a functional model, and one in another."""
    inputs = keras.Input((3,))
    chain = keras.Sequential([keras.Input((3,)), make()])
    return [
        chain,
        keras.Model(inputs, make()(inputs)),
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), chain]),
    ]


def test_a_part_that_cannot_be_built_again_is_blamed_and_not_the_model():
    """With the method to write in its class, as if it had been checked itself."""

    class Called(Losing):
        def call(self, x):
            return x

    for model in models_of(lambda: Called(3)):
        error = faults(model)
        assert error.name == "Called"
        assert error.lost == ("depth",)
        assert "Called cannot be rebuilt from its config: get_config() does not" in error.what
        assert error.remedy == faults(Called(3)).remedy


def test_a_model_whose_layers_get_other_names_is_built_again():
    """It finds them by the names in its own config."""
    for model in models_of(lambda: Unnamed(3)):
        assert check_serializable(model)["layers"]

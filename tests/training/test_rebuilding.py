"""A callback's first save tries whether the model can be built again, and warns if not."""

from __future__ import annotations

import random
import warnings

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct

X = np.random.default_rng(0).random((8, 4)).astype("float32")


class Scale(keras.layers.Layer):
    """Its `get_config` loses an argument; it counts how often it is made."""

    made = 0

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        type(self).made += 1

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return super().get_config()


class Whole(Scale):
    """The same, as it should be."""

    made = 0

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Near(keras.metrics.MeanAbsoluteError):
    """A metric that loses an argument."""

    def __init__(self, threshold, **kwargs):
        super().__init__(**kwargs)
        self.threshold = threshold


def fitted(path, *stack, epochs=1, loss="mse", **options):
    """Train a model of these layers with a callback; return what was warned of."""
    model = keras.Sequential([keras.Input((4,)), *stack, keras.layers.Dense(2)])
    model.compile("sgd", loss, run_eagerly=True, **options)
    only = str(path).endswith(".weights.h5")
    saver = kct.ModelCheckpoint(path, monitor="loss", save_weights_only=only)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(X, X[:, :2], epochs=epochs, verbose=0, callbacks=[saver])
    return [str(one.message) for one in told if "created again" in str(one.message)]


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_first_save_names_the_class_and_what_is_missing(name, tmp_path):
    """Not the load, weeks later, is the time to hear of it; the file is written all the same."""
    (said,) = fitted(tmp_path / name, Scale(2.0), epochs=2, metrics=[Near(0.5)])
    assert "Scale cannot be rebuilt from its config" in said
    assert "get_config() does not return `factor`" in said
    assert "'Near' could be saved, but not rebuilt" in said
    assert "`threshold`" in said
    assert (tmp_path / name).exists()


def test_objects_that_can_be_built_again_are_no_warning(tmp_path):
    """Once for each class, and never again: later saves are as quick as they were."""
    Whole.made = 0
    stack = [Whole(float(n)) for n in range(3)]
    assert fitted(tmp_path / "net.keras", *stack, epochs=3) == []
    assert Whole.made == 4


def test_weights_need_no_config(tmp_path):
    """Code builds the model that they go into."""
    assert fitted(tmp_path / "net.weights.h5", Scale(2.0)) == []


def test_lambda_as_a_loss_is_named(tmp_path):
    """A file has its bytecode, which a safe load refuses."""
    (said,) = fitted(tmp_path / "net.keras", loss=lambda y, p: keras.ops.mean((y - p) ** 2))
    assert "a lambda has no name" in said


def test_trial_leaves_random_numbers_and_names_as_they_were(tmp_path, monkeypatch):
    """A run with the callback goes as one without."""

    class Seeded(keras.layers.Dropout):
        pass

    def after(save):
        keras.utils.set_random_seed(3)
        keras.backend.clear_session()
        model = keras.Sequential([keras.Input((4,)), Seeded(0.5), keras.layers.Dense(2)])
        model.compile("sgd", "mse", run_eagerly=True)
        saver = kct.ModelCheckpoint(tmp_path / "net.keras", monitor="loss")
        model.fit(X, X[:, :2], epochs=2, verbose=0, callbacks=[saver] if save else [])
        weights = [np.asarray(weight).tobytes() for weight in model.weights]
        return weights, random.random(), keras.layers.Dense(1).name

    assert after(save=True) == after(save=False)


def test_large_object_is_not_built_a_second_time(tmp_path, monkeypatch):
    """Memory that training needs; its config says enough."""
    monkeypatch.setattr("keras_ckpt_tools.training.rebuilding._MOST", 3)

    class Large(Whole):
        made = 0

        def build(self, shape):
            self.gain = self.add_weight(shape=(4,), initializer="ones")

    class Lossy(Large):
        def get_config(self):
            config = super().get_config()
            del config["factor"]
            return config

    assert fitted(tmp_path / "net.keras", Large(1.0)) == []
    assert Large.made == 1
    (said,) = fitted(tmp_path / "net.keras", Lossy(1.0))
    assert "`factor`" in said

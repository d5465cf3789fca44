"""A model's config is made anew whenever it would be another one, and only then."""

from __future__ import annotations

import gc
import json
import os
import tempfile
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.live.model_config import Describer, fingerprint


class Told(keras.layers.Layer):
    """A layer whose config is whatever its method says."""

    def __init__(self, scale: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.settings = {"scale": [scale]}

    def call(self, inputs: Any) -> Any:
        """Scale."""
        return inputs * self.settings["scale"][0]

    def get_config(self) -> dict[str, Any]:
        """Say it."""
        return {**super().get_config(), "scale": self.settings["scale"][0]}


class Other(Told):
    """Another one."""


def _model() -> keras.Model:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(2, 3, kernel_regularizer=keras.regularizers.L2(0.1), activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.TimeDistributed(layers.Dense(3, kernel_constraint=keras.constraints.MaxNorm(2))),
            layers.Reshape((-1, 3)),
            layers.Bidirectional(layers.LSTM(4)),
            Told(),
            layers.Dense(2, activation=keras.activations.softmax),
        ]
    )
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=[keras.metrics.CategoricalAccuracy()],
    )
    return model


def _config(model: keras.Model) -> Any:
    return json.loads(internals.serialize_model_as_json(model)[0])


CHANGES: dict[str, Callable[[keras.Model], Any]] = {
    "trainable": lambda m: setattr(m.layers[0], "trainable", False),
    "a rate": lambda m: setattr(m.layers[2], "rate", 0.25),
    "an activation": lambda m: setattr(m.layers[-1], "activation", keras.activations.relu),
    "a regularizer": lambda m: setattr(m.layers[0].kernel_regularizer, "l2", 0.5),
    "a constraint of a wrapped layer": lambda m: setattr(
        m.layers[3].layer.kernel_constraint, "max_value", 9
    ),
    "a wrapped layer": lambda m: setattr(m.layers[5].forward_layer.cell, "dropout", 0.3),
    "a list in a layer of the user's": lambda m: m.layers[6].settings["scale"].insert(0, 3.0),
    "compile": lambda m: m.compile("sgd", "mse"),
    "the loss": lambda m: setattr(m.loss, "_fn_kwargs", {"label_smoothing": 0.7}),
    "the schedule": lambda m: setattr(m.optimizer._learning_rate, "decay_steps", 77),
    "a setting of the optimizer": lambda m: setattr(m.optimizer, "beta_1", 0.5),
    "one more layer": lambda m: m.add(keras.layers.Dense(1)),
    "a class": lambda m: setattr(m.layers[6], "__class__", Other),
    "all attributes": lambda m: setattr(m.layers[2], "__dict__", {**vars(m.layers[2]), "rate": 0}),
    "a dtype": lambda m: setattr(m.layers[-1], "dtype_policy", "mixed_float16"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_config_is_seen(change: str) -> None:
    """A file with the config of an earlier moment would be a wrong file."""
    model = _model()
    before, config = fingerprint(model), _config(model)
    assert before is not None
    assert fingerprint(model) == before
    CHANGES[change](model)
    if _config(model) != config:
        assert fingerprint(model) != before
    else:
        assert change == "the loss"  # Keras keeps these arguments in a place of its own.


def test_the_rate_that_training_sets_is_seen() -> None:
    """It is in the config, and callbacks change it while the model trains."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.5), "mse")
    before = fingerprint(model)
    assert before is not None
    model.optimizer.learning_rate = 0.25
    assert fingerprint(model) != before


def test_every_plain_attribute_of_keras_layers_counts() -> None:
    """No list of what matters could be complete; so everything that is plain is compared."""
    missed = []
    for layer in _zoo():
        for name, value in list(vars(layer).items()):
            other = _other(value)
            if other is None:
                continue
            before, config = _print_of(layer), _config_of(layer)
            vars(layer)[name] = other
            try:
                changed = _config_of(layer) != config
            except Exception:  # noqa: BLE001 (such a layer cannot be saved at all)
                changed = False
            unseen = _print_of(layer) == before
            if changed and unseen:
                missed.append(f"{type(layer).__name__}.{name}")
            vars(layer)[name] = value
    assert missed == []


def _zoo() -> list[keras.layers.Layer]:
    layers = keras.layers
    return [
        *(layers.Dense(3, "relu"), layers.Conv1D(2, 3), layers.Embedding(10, 4)),
        *(layers.LSTM(3), layers.GRU(3), layers.Dropout(0.1), layers.LayerNormalization()),
        *(layers.MultiHeadAttention(2, 3), layers.Normalization(), layers.Rescaling(0.5)),
        *(layers.RandomFlip(), layers.StringLookup(vocabulary=["a"]), layers.MaxPooling2D()),
        *(layers.Hashing(4), layers.UpSampling2D(), layers.Cropping1D(), layers.Softmax()),
    ]


class _Alone:
    """What a fingerprint is taken of, around one layer."""

    optimizer = None

    def __init__(self, layer: keras.layers.Layer):
        self._layer = layer

    def _flatten_layers(self) -> list[keras.layers.Layer]:
        return list(self._layer._flatten_layers())


def _print_of(layer: keras.layers.Layer) -> Any:
    return fingerprint(_Alone(layer))


def _config_of(layer: keras.layers.Layer) -> Any:
    return keras.saving.serialize_keras_object(layer)


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return (*value, 1) if isinstance(value, tuple) else None


def test_training_leaves_the_config_as_it_is() -> None:
    """Otherwise each save would make it anew."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)])
    model.compile("adam", "mse", metrics=["mae"])
    x, y = np.ones((8, 3)), np.ones((8, 2))
    model.fit(x, y, validation_data=(x, y), verbose=0)
    before = fingerprint(model)
    assert before is not None
    model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0)
    assert fingerprint(model) == before


def test_what_is_equal_and_another_object_is_looked_at_again() -> None:
    """At one glance it is only seen that nothing has been touched."""
    model = _model()
    describer = Describer()
    first = describer.describe(model, has_assets=False).config
    before = fingerprint(model)
    model.layers[2].noise_shape = [None]
    model.layers[2].noise_shape = None
    model.layers[0].strides = (1, 1)
    assert before is not None
    assert fingerprint(model) == before
    assert describer.describe(model, has_assets=False).config is first
    assert describer.describe(model, has_assets=False).config is first


def test_what_a_model_is_described_by_does_not_keep_it_alive() -> None:
    """A callback that saves a model and is gone leaves nothing of it behind."""
    model = _model()
    callback = kct.ModelCheckpoint(os.path.join(tempfile.mkdtemp(), "a.keras"))
    callback.set_model(model)
    callback.on_epoch_end(0)
    gone = weakref.ref(model)
    del model, callback
    keras.utils.clear_session()
    gc.collect()
    assert gone() is None


def test_a_tensor_in_a_config_counts_by_its_value() -> None:
    """Keras takes one where it takes a number."""
    layer = keras.layers.Rescaling(tf.constant(2.0))
    model = keras.Sequential([keras.Input((3,)), layer])
    before = fingerprint(model)
    assert before is not None
    layer.scale = tf.constant(2.0)
    assert fingerprint(model) == before
    layer.scale = tf.constant(3.0)
    assert fingerprint(model) != before


class _Opaque:
    """Something that says nothing about itself."""


def test_where_it_cannot_be_told_the_config_is_made_anew() -> None:
    """An object that Keras cannot name may be read by any `get_config`."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.layers[0].note = _Opaque()
    assert fingerprint(model) is None
    describer = Describer()
    first = describer.describe(model, has_assets=False).config
    model.layers[0].units = 2.5
    assert describer.describe(model, has_assets=False).config != first

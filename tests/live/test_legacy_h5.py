"""Whole models as `.h5`: each comes back from what we write, in stock Keras too, or is refused."""

from __future__ import annotations

import os
import warnings

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import UntrackedStateError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.registry import Registry
from keras_ckpt_tools.training.writing import save_model

layers, ops = keras.layers, keras.ops
# Keras 3.10 says so of models with an input that has a name.
pytestmark = pytest.mark.filterwarnings(r"ignore:[\s\S]*structure of `inputs`:UserWarning")
X = np.random.default_rng(0).random((4, 4)).astype("float32")
WORDS = np.array([["dog"], ["cat"], ["dog"], ["bird"]])
TEXTS = np.array([["the dog"], ["the cat and the dog"], ["a bird"]])
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow")


def saved(model, folder):
    """Write a model, and return the path."""
    path = str(folder / "net.h5")
    save_model(path, model, TrainingProgress(), ".h5")
    return path


def both(path):
    """Return what our loader and stock Keras make of a file."""
    return kct.safe_load_model(path, registry=Registry()), keras.models.load_model(path)


def with_operations():
    """Return a model of operations, layers of the same names, and a nested model."""
    x = keras.Input((4,), name="x")
    y = ops.relu(x - 0.5) + 1.0
    inner = keras.Input((4,), name="inner")
    nested = keras.Model(inner, inner * 2.0, name="nested")
    y = nested(layers.Add()([y, x]))
    parts = [y[:, :2], y[..., 1:], y[..., None, 0], ops.cast(y > 1, "float32")]
    return keras.Model(x, layers.Dense(1)(ops.concatenate(parts, axis=-1)))


def with_masks():
    """Return a model whose mask is an operation."""
    x = keras.Input((3,), dtype="int32", name="x")
    return keras.Model(x, layers.LSTM(2)(layers.Embedding(6, 4, mask_zero=True)(x)))


@pytest.mark.parametrize("make", [with_operations, with_masks])
def test_models_with_operations_open_here_and_in_stock_keras(make, tmp_path):
    """Keras writes operations without their modules, which nobody could open again."""
    model = make()
    x = np.array([[1, 2, 0], [3, 0, 0]]) if make is with_masks else X
    before = model.get_config()
    path = saved(model, tmp_path)
    assert kct.inspect(path)
    assert model.get_config() == before
    for loaded in both(path):
        assert np.array_equal(loaded(x), model(x))


def adapted(layer, data):
    """Return a layer that has learnt a vocabulary."""
    layer.adapt(data)
    return layer


LOOKUPS = {
    "strings": lambda: (adapted(layers.StringLookup(output_mode="one_hot"), WORDS), WORDS),
    "integers": lambda: (
        adapted(layers.IntegerLookup(num_oov_indices=2, mask_token=0), np.array([[5], [9], [5]])),
        np.array([[5], [9], [0], [7]]),
    ),
    "texts": lambda: (adapted(layers.TextVectorization(output_sequence_length=4), TEXTS), TEXTS),
    "tf_idf": lambda: (adapted(layers.TextVectorization(output_mode="tf_idf"), TEXTS), TEXTS),
}


@on_tensorflow
@pytest.mark.parametrize("kind", LOOKUPS)
def test_vocabularies_that_were_learnt_are_in_the_file(kind, tmp_path):
    """Without them, the loaded model knows no word and answers all the same."""
    layer, data = LOOKUPS[kind]()
    x = keras.Input((1,), dtype="int64" if kind == "integers" else "string")
    model = keras.Model(x, layer(x))
    before = model.get_config()
    path = saved(model, tmp_path)
    assert model.get_config() == before
    inputs = keras.ops.convert_to_tensor(data)
    for loaded in both(path):
        np.testing.assert_allclose(loaded(inputs), model(inputs), rtol=1e-6)
        again = loaded.layers[-1].get_vocabulary()
        assert again == layer.get_vocabulary()


@on_tensorflow
def test_stock_h5_without_its_vocabulary_opens_with_a_warning(tmp_path):
    """Stock Keras does not write it, so nobody can load it; but silence would be a wrong answer."""
    x = keras.Input((1,), dtype="string")
    model = keras.Model(x, adapted(layers.StringLookup(name="words"), WORDS)(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "stock.h5")
    with pytest.warns(UserWarning, match="no vocabulary for 'words'"):
        kct.safe_load_model(tmp_path / "stock.h5")


class Net(keras.Model):
    """A subclassed model."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = layers.Dense(2)

    def call(self, x):
        return self.head(x)


class Table(layers.Layer):
    """A layer with a file of its own."""

    def call(self, x):
        return x

    def save_assets(self, path):
        raise NotImplementedError


class Counting(layers.Layer):
    """A layer that saves more than its weights."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, x):
        return x * self.gain

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["seen"] = np.array([3, 4])


class Renaming(Counting):
    """A layer that saves its weights under other names, and nothing else."""

    def save_own_variables(self, store):
        store["gain"] = self.gain


def chain(*stack):
    """Return a model of these layers."""
    return keras.Sequential([keras.Input((4,)), *stack])


def subclassed():
    """Return a subclassed model, built."""
    model = Net()
    model(X)
    return model


def with_a_layer_beside():
    """Return a model with weights that none of its outputs needs."""
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(x))
    model.beside = layers.Dense(3)
    model.beside(X)
    return model


REFUSED = {
    "a subclassed model": subclassed,
    "files of its own": lambda: chain(Table(name="table")),
    "save_own_variables": lambda: chain(Counting(name="counting")),
    "no output of the model": with_a_layer_beside,
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_come_back_is_refused_when_it_is_saved(words, tmp_path):
    """Once it is loaded, it is too late; nothing is written, and the error says what to use."""
    with pytest.raises(UntrackedStateError, match=words) as caught:
        saved(REFUSED[words](), tmp_path)
    assert "'.keras'" in str(caught.value)
    assert ".weights.h5" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_layer_that_saves_its_weights_by_other_names_is_written(tmp_path):
    """All that it saves is among its weights, which are in the file."""
    model = chain(Renaming(name="renaming"))
    model.layers[0].gain.assign([1.0, 2.0, 3.0, 4.0])
    loaded = kct.safe_load_model(saved(model, tmp_path), {"Renaming": Renaming})
    assert np.array_equal(loaded(X), model(X))


def test_error_of_keras_writer_says_what_to_use(tmp_path):
    """Keras fails in words that say nothing about the format: `cannot pickle 'module' object`."""

    class Two(layers.Layer):
        def build(self, shape):
            self.one = self.add_weight(shape=(1,), name="w")
            self.two = self.add_weight(shape=(1,), name="w")

        def call(self, x):
            return x * self.one * self.two

    with pytest.raises(UntrackedStateError, match=r"writer of that format fails[\s\S]*'\.keras'"):
        saved(chain(Two(name="two")), tmp_path)
    assert os.listdir(tmp_path) == []


def test_callback_refuses_a_subclassed_model_at_its_first_save(tmp_path):
    """The weeks of training come after the first save, not before it."""
    model = Net()
    model.compile("sgd", "mse", run_eagerly=True)
    saver = kct.ModelCheckpoint(tmp_path / "net.h5", monitor="loss")
    with pytest.raises(UntrackedStateError, match="subclassed"):
        model.fit(X, X[:, :2], verbose=0, callbacks=[saver])

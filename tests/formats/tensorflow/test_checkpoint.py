"""TensorFlow checkpoints: the tensors, the objects that they belong to, and whose they are now."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import small_data, small_model, state_of

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArtefactNotFoundError,
    DamagedArtefactError,
    NotBuiltError,
    RestoreError,
)
from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint
from keras_ckpt_tools.formats.tensorflow.prefixes import prefix_in, prefix_of

FOLDER = Path(__file__).parents[2] / "files" / "keras2_backup"


def sequential() -> keras.Model:
    """Return the sequential model of `data/keras2_backup/make.py`."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.0),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )


class Tower(keras.layers.Layer):
    """Two layers, as attributes or in a list."""

    def __init__(self, listed: bool) -> None:
        super().__init__()
        parts = [keras.layers.Dense(4), keras.layers.Dense(4)]
        if listed:
            self.parts = parts
        else:
            self.one, self.two = parts

    def call(self, x: Any) -> Any:
        one, two = getattr(self, "parts", None) or (self.one, self.two)
        return two(one(x))


class Towers(keras.Model):
    """Layers inside layers, several of one shape."""

    def __init__(self, listed: bool) -> None:
        super().__init__()
        self.left, self.right = Tower(listed), Tower(listed)
        self.norm = keras.layers.LayerNormalization()
        self.head = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.head(self.norm(self.left(x) + self.right(x)))


def subclassed(listed: bool = False) -> keras.Model:
    """Return a compiled model of layers inside layers."""
    model = Towers(listed)
    model(np.zeros((1, 4), "float32"))
    model.compile(keras.optimizers.Adam(0.01, amsgrad=True), "mse")
    return model


def trained(model: keras.Model) -> keras.Model:
    """Return the model after an epoch."""
    model.fit(*small_data(), batch_size=4, verbose=0)
    return model


def test_the_tensors_are_there_by_key() -> None:
    """And a number by the name that the root object has it under."""
    checkpoint = TfCheckpoint(str(FOLDER / "sequential-adam" / "chief" / "ckpt-2"))
    key = "model/layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    assert checkpoint.tensors[key].shape == (4, 8)
    expected = np.load(FOLDER / "sequential-adam" / "expected.npz")
    assert np.array_equal(checkpoint.read_all([key])[key], expected["weights/0"])
    assert checkpoint.number("ckpt_saved_epoch") == 1
    assert checkpoint.number("nothing") is None


@pytest.mark.parametrize("path", ["cp.ckpt", "cp.ckpt.index", "checkpoint", "."])
def test_weights_of_keras_2_are_loaded(path: str) -> None:
    """By the prefix, by a file of it, or by the directory, as `save_weights` left it."""
    model = sequential()
    report = kct.load_weights(model, FOLDER / "save_weights" / path, strict=True)
    expected = np.load(FOLDER / "save_weights" / "expected.npz")
    weights = [v for v in model.weights if "seed" not in v.path]
    assert report
    assert all(np.array_equal(v, expected[f"weights/{i}"]) for i, v in enumerate(weights))


@pytest.mark.parametrize("build", [lambda: small_model(0.3), subclassed])
def test_what_tensorflow_saves_of_a_keras_3_model_is_loaded(
    build: Callable[[], Any], tmp_path: Path
) -> None:
    """With its optimizer, each slot beside its variable."""
    saved = trained(build())
    tf.train.Checkpoint(model=saved).save(str(tmp_path / "ckpt"))
    model = build()
    assert kct.load_weights(model, tmp_path)
    assert state_of(model) == state_of(saved)


def test_what_tensorflow_leaves_out_is_refused(tmp_path: Path) -> None:
    """Under Keras 3 it does not look into lists of layers; their order alone says too little."""
    saved = trained(subclassed(listed=True))
    tf.train.Checkpoint(model=saved).save(str(tmp_path / "ckpt"))
    model = subclassed(listed=True)
    before = state_of(model)
    with pytest.raises(RestoreError, match="optimizer/_trainable_variables/0"):
        kct.load_weights(model, tmp_path)
    assert state_of(model)[: len(model.weights)] == before[: len(model.weights)]


def test_another_model_is_refused_by_both_names(tmp_path: Path) -> None:
    """What it lacks as Keras 3 names it, what is left over as the checkpoint names it."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    before = [np.asarray(v).copy() for v in model.weights]
    with pytest.raises(RestoreError, match="layer_with_weights-1/gamma"):
        kct.load_weights(model, FOLDER / "save_weights")
    assert all(map(np.array_equal, before, model.weights))


def test_a_model_that_is_not_built_is_refused() -> None:
    """Nothing is put off until it is."""
    with pytest.raises(NotBuiltError):
        kct.load_weights(keras.Sequential([keras.layers.Dense(1)]), FOLDER / "save_weights")


def test_a_checkpoint_that_is_gone_names_the_directory(tmp_path: Path) -> None:
    """The file `checkpoint` names one, and there is none; or there is no such file either."""
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-7"\n')
    with pytest.raises(ArtefactNotFoundError, match="names a checkpoint that does not exist"):
        prefix_in(str(tmp_path))
    (tmp_path / "checkpoint").unlink()
    assert prefix_in(str(tmp_path)) is None
    with pytest.raises(ArtefactNotFoundError, match="no TensorFlow checkpoint"):
        prefix_of(str(tmp_path))


def test_the_highest_number_is_taken_where_none_is_named(tmp_path: Path) -> None:
    """Ten comes after nine."""
    for number in (9, 10):
        for name in ("index", "data-00000-of-00001"):
            source = FOLDER / "sequential-adam" / "chief" / f"ckpt-2.{name}"
            shutil.copy(source, tmp_path / f"ckpt-{number}.{name}")
    assert prefix_in(str(tmp_path)) == str(tmp_path / "ckpt-10")


def test_changed_bytes_are_found(tmp_path: Path) -> None:
    """TensorFlow's own checksums are asked, before anything changes."""
    folder = Path(shutil.copytree(FOLDER / "save_weights", tmp_path / "copy"))
    data = folder / "cp.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[40] ^= 1
    data.write_bytes(content)
    with pytest.raises(DamagedArtefactError):
        kct.load_weights(sequential(), folder)

"""Comparing says what a restore would do, and touches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError


def train(model):
    """Train for a batch."""
    model.train_on_batch(np.ones((2, 8, 8, 1), "float32"), np.ones(2))
    return model


def test_a_model_and_a_file_that_fit(build_cnn, save, tmp_path):
    """Everything matched, in either direction of time."""
    model = train(build_cnn())
    path = save(model, tmp_path / "a.keras")
    report = kct.compare(model, path)
    assert report
    assert "optimizer/vars/0" in report.matched


def test_comparing_builds_and_changes_nothing(build_cnn, tmp_path):
    """The optimizer of a model never trained stays unbuilt; its state counts as skipped."""
    train(build_cnn()).save_weights(tmp_path / "a.weights.h5")
    model = build_cnn(filters=8)
    before = [np.array(w.numpy()) for w in model.weights]
    report = kct.compare(model, tmp_path / "a.weights.h5")
    assert {m.path for m in report.shape_mismatch} >= {"layers/conv2d/vars/0"}
    assert report.skipped_optimizer
    assert not model.optimizer.built
    assert all(np.array_equal(w.numpy(), b) for w, b in zip(model.weights, before, strict=True))


def test_two_files_are_compared_by_their_tensors(build_cnn, tmp_path):
    """The first stands for the model."""
    build_cnn(compiled=False).save_weights(tmp_path / "a.weights.h5")
    build_cnn(compiled=False, filters=8).save_weights(tmp_path / "b.weights.h5")
    assert kct.compare(tmp_path / "a.weights.h5", str(tmp_path / "a.weights.h5"))
    report = kct.compare(tmp_path / "a.weights.h5", tmp_path / "b.weights.h5")
    assert "layers/conv2d/vars/0" in {m.path for m in report.shape_mismatch}


@pytest.mark.parametrize("first", [None, 3, b"a.weights.h5"])
def test_first_argument_is_a_model_or_a_path(first, build_cnn, tmp_path):
    """Anything else is an error."""
    build_cnn().save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ArgumentError):
        kct.compare(first, tmp_path / "a.weights.h5")


def test_a_directory_of_checkpoints_is_compared_by_its_newest(tmp_path: Path) -> None:
    """As `load_weights` takes it."""
    import keras

    def build(units: int) -> Any:
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])

    manager = kct.CheckpointManager(tmp_path, model=build(2))
    manager.save()
    assert kct.compare(build(2), tmp_path)
    assert not kct.compare(build(3), tmp_path)


def test_two_files_are_compared_by_the_names_of_their_layers(tmp_path: Path) -> None:
    """As a model and a file are."""
    import keras

    for name, names in (("a", "xy"), ("b", "yx")):
        stack = [keras.layers.Dense(2, name=one) for one in names]
        model = keras.Sequential([keras.Input((2,)), *stack])
        model.save_weights(tmp_path / f"{name}.weights.h5")
    report = kct.compare(tmp_path / "a.weights.h5", tmp_path / "b.weights.h5")
    assert report
    assert len(report.renamed) == 4
    one = kct.compare(
        tmp_path / "a.weights.h5", tmp_path / "b.weights.h5", include="layers/dense/*"
    )
    assert len(one.matched) == 2


def test_a_tensorflow_checkpoint_is_compared_too(tmp_path: Path) -> None:
    """It comes through the same door."""
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    path = tf.train.Checkpoint(model=model).save(tmp_path / "ckpt")
    assert kct.compare(model, path)


def test_a_path_is_called_by_no_name_of_the_other_side(tmp_path):
    """Where a layer has another name in the file, the model's is not called by that."""
    path = tmp_path / "a.weights.h5"
    _dense("one").save_weights(path)
    report = kct.compare(_dense("other"), path)
    assert report.missing == report.unexpected == ("layers/dense/vars/0", "layers/dense/vars/1")
    assert [(one.name_in_file, one.name_in_model) for one in report.misnamed] == [("one", "other")]
    assert report.names == {}


def _dense(name):
    import keras

    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name=name)])

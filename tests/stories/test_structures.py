"""Story 4: a model whose number of layers is an argument, and two variables of one name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import RestoreError


class Deep(keras.Model):
    """A stack of as many layers as it is told."""

    def __init__(self, layers: int):
        super().__init__()
        self.stack = [keras.layers.Dense(4, name=f"block_{n}") for n in range(layers)]

    def call(self, x: Any) -> Any:
        for layer in self.stack:
            x = layer(x)
        return x


def deep(layers: int) -> Deep:
    """Return one that is built."""
    model = Deep(layers)
    model(np.ones((1, 4), "float32"))
    return model


@pytest.mark.parametrize("how", ["manager", "load_weights", "stock file"])
def test_two_layers_are_not_restored_into_three(how: str, tmp_path: Path) -> None:
    """The report names the layers that are missing, and nothing is changed."""
    model = deep(3)
    before = [np.asarray(weight) for weight in model.weights]
    if how == "stock file":
        deep(2).save_weights(tmp_path / "a.weights.h5")
        path = str(tmp_path / "a.weights.h5")
    else:
        path = kct.CheckpointManager(tmp_path, model=deep(2)).save()
    manager = kct.CheckpointManager(tmp_path / "other", model=model)
    with pytest.raises(RestoreError) as caught:
        manager.restore(path) if how == "manager" else kct.load_weights(model, path)
    report = caught.value.report
    assert len(report.missing) == 2
    assert all("dense_2" in tensor or "block_2" in tensor for tensor in report.missing)
    assert len(report.matched) == 4
    assert "missing" in str(caught.value)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), value)


def test_three_layers_are_not_restored_into_two(tmp_path: Path) -> None:
    """Surplus weights are named, not ignored."""
    path = kct.CheckpointManager(tmp_path, model=deep(3)).save()
    with pytest.raises(RestoreError) as caught:
        kct.CheckpointManager(tmp_path, model=deep(2)).restore(path)
    assert len(caught.value.report.unexpected) == 2


def test_the_same_number_of_layers_is_restored(tmp_path: Path) -> None:
    """Also into one that was not built yet."""
    saved = deep(3)
    kct.CheckpointManager(tmp_path, model=saved).save()
    restored = Deep(3)
    kct.CheckpointManager(tmp_path, model=restored).restore_or_initialize()
    for one, other in zip(saved.weights, restored.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


class SameNames(tf.Module):
    """Two variables that have one name."""

    def __init__(self, first: float, second: float):
        super().__init__()
        self.first = tf.Variable(first, name="v")
        self.second = tf.Variable(second, name="v")


class SameNamesLayer(keras.layers.Layer):
    """A layer with two weights that have one name."""

    def build(self, input_shape: Any) -> None:
        self.first = self.add_weight(shape=(), name="w", initializer="zeros")
        self.second = self.add_weight(shape=(), name="w", initializer="zeros")

    def call(self, x: Any) -> Any:
        return x * self.first + self.second


def test_two_variables_of_one_name_are_both_saved_and_restored(tmp_path: Path) -> None:
    """In a module, in a list, and in a layer of a model."""

    def make(first: float, second: float) -> dict[str, Any]:
        model = keras.Sequential([keras.Input((1,)), SameNamesLayer(name="twins")])
        for weight, value in zip(model.weights, (first, second), strict=True):
            weight.assign(value)
        return {
            "model": model,
            "module": SameNames(first, second),
            "pair": [tf.Variable(first, name="v"), tf.Variable(second, name="v")],
        }

    kct.CheckpointManager(tmp_path, **make(1.0, 2.0)).save()
    restored = make(0.0, 0.0)
    kct.CheckpointManager(tmp_path, **restored).restore_or_initialize()
    assert [float(np.asarray(w)) for w in restored["model"].weights] == [1.0, 2.0]
    module = restored["module"]
    assert [float(module.first), float(module.second)] == [1.0, 2.0]
    assert [float(v) for v in restored["pair"]] == [1.0, 2.0]

"""Story 3: what people do by mistake, each told with what is wrong and what to call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArtefactKindError, ArtefactNotFoundError, NotBuiltError


class Shapeless(keras.Model):
    """A model that says nothing about how it was built."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def get_build_config(self) -> None:
        return None


class Late(Shapeless):
    """A model that makes its layer when it is built."""

    def __init__(self) -> None:
        keras.Model.__init__(self)

    def build(self, input_shape: Any) -> None:
        self.dense = keras.layers.Dense(2)
        self.dense.build(input_shape)
        super().build(input_shape)


def test_restoring_before_the_model_is_built(tmp_path: Path) -> None:
    """It is built where its shape, or those of its parts, are known, and refused where not."""
    known = keras.Sequential([keras.layers.Dense(2)])
    known.build((None, 3))
    kct.CheckpointManager(tmp_path / "known", model=known).save()
    model = keras.Sequential([keras.layers.Dense(2)])
    kct.CheckpointManager(tmp_path / "known", model=model).restore_or_initialize()
    np.testing.assert_array_equal(np.asarray(model.weights[0]), np.asarray(known.weights[0]))

    parts = Shapeless()
    expected = parts(np.ones((1, 3)))
    path = kct.CheckpointManager(tmp_path / "parts", model=parts).save()
    again, loaded = Shapeless(), Shapeless()
    kct.CheckpointManager(tmp_path / "parts", model=again).restore_or_initialize()
    assert kct.load_weights(loaded, path)
    for model in (again, loaded):
        np.testing.assert_array_equal(model(np.ones((1, 3))), expected)

    unknown = Late()
    unknown(np.ones((1, 3)))
    path = kct.CheckpointManager(tmp_path / "unknown", model=unknown).save()
    manager = kct.CheckpointManager(tmp_path / "unknown", model=Late())
    with pytest.raises(NotBuiltError, match=r"`build\(input_shape\)`"):
        manager.restore_or_initialize()
    with pytest.raises(NotBuiltError, match=r"`build\(input_shape\)`"):
        kct.load_weights(Late(), path)


def test_restoring_from_a_path_that_does_not_exist(
    build_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    """The message names what is nearby."""
    manager = kct.CheckpointManager(tmp_path, model=build_cnn())
    manager.save()
    missing = tmp_path / "ckpt-00000002.weights.h5"
    for restore in (
        lambda: manager.restore(missing),
        lambda: kct.load_weights(build_cnn(), missing),
        lambda: kct.safe_load_model(missing),
        lambda: kct.training_progress(missing),
    ):
        with pytest.raises(ArtefactNotFoundError, match=r"ckpt-00000001\.weights\.h5") as caught:
            restore()
        assert str(missing) in str(caught.value)


def test_a_saved_model_handed_over_as_a_checkpoint(
    build_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    """It holds a graph, not weights by name."""
    module = tf.Module()
    module.weight = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "exported"))
    for restore in (
        lambda: kct.CheckpointManager(tmp_path / "run", model=build_cnn()).restore(
            tmp_path / "exported"
        ),
        lambda: kct.load_weights(build_cnn(), tmp_path / "exported"),
        lambda: kct.safe_load_model(tmp_path / "exported"),
    ):
        with pytest.raises(ArtefactKindError, match="SavedModel"):
            restore()


def test_a_checkpoint_handed_over_as_a_model(build_cnn: Callable[..., Any], tmp_path: Path) -> None:
    """It has weights and no architecture."""
    path = kct.CheckpointManager(tmp_path, model=build_cnn()).save()
    with pytest.raises(ArtefactKindError, match=r"kct\.load_weights\(model, "):
        kct.safe_load_model(path)


def test_a_model_handed_over_as_a_checkpoint(build_cnn: Callable[..., Any], tmp_path: Path) -> None:
    """It has no progress of several objects; the message says which call opens it."""
    build_cnn().save(tmp_path / "a.keras")
    manager = kct.CheckpointManager(tmp_path / "run", model=build_cnn())
    with pytest.raises(ArtefactKindError, match=r"kct\.safe_load_model\(path\)"):
        manager.restore(tmp_path / "a.keras")

"""Loading draws no random numbers that it would overwrite, and draws those that it would not."""

from __future__ import annotations

import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.loading.lazy_initializers import random_numbers_put_off


class Scratch(keras.layers.Layer):
    """A layer with a weight that it saves and one that it does not."""

    def build(self, input_shape):
        """Make both."""
        shape = (input_shape[-1], 200)
        self.kept = self.add_weight(shape=shape, initializer="glorot_uniform", name="kept")
        self.scratch = self.add_weight(shape=shape, initializer="glorot_uniform", name="scratch")

    def call(self, inputs):
        """Use one."""
        return inputs @ self.kept

    def save_own_variables(self, store):
        """Save one."""
        store["kept"] = self.kept

    def load_own_variables(self, store):
        """Load it."""
        self.kept.assign(store["kept"])


def test_a_weight_that_the_file_does_not_have_is_drawn_all_the_same(tmp_path: Path) -> None:
    """It would be zeros for ever, and nobody would know."""
    model = keras.Sequential([keras.Input((100,)), Scratch()])
    model.save(tmp_path / "model.keras")
    again = kct.safe_load_model(tmp_path / "model.keras", {"Scratch": Scratch})
    layer = again.layers[0]
    assert np.array_equal(layer.kept.numpy(), model.layers[0].kept.numpy())
    assert 0 < np.abs(layer.scratch.numpy()).mean() < 1
    assert np.unique(layer.scratch.numpy()).size > 1000


def test_no_random_number_is_drawn_for_what_the_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing them takes longer than reading the file."""
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(300)])
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    drawn = []
    original = keras.initializers.GlorotUniform.__call__

    def draw(initializer, shape, dtype=None):
        drawn.append(shape)
        return original(initializer, shape, dtype=dtype)

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", draw)
    again = kct.safe_load_model(tmp_path / "model.keras")
    assert not drawn
    assert np.array_equal(again.layers[0].kernel.numpy(), model.layers[0].kernel.numpy())
    keras.layers.Dense(3).build((None, 4))
    assert drawn == [(4, 3)]


def test_the_slots_of_an_optimizer_that_was_never_trained_are_zero(tmp_path: Path) -> None:
    """Zeros that nobody has touched are zeros."""
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(300)])
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    again = kct.safe_load_model(tmp_path / "model.keras")
    slots = [v for v in again.optimizer.variables if v.shape == (100, 300)]
    assert slots
    assert not any(v.numpy().any() for v in slots)
    again.fit(np.ones((4, 100)), np.ones((4, 300)), verbose=0)
    assert all(v.numpy().any() for v in slots)


def test_another_thread_draws_its_own_numbers_meanwhile() -> None:
    """Only what is built from the file is put off."""
    made = []

    def build() -> None:
        layer = keras.layers.Dense(300)
        layer.build((None, 100))
        made.append(layer)

    with random_numbers_put_off():
        thread = threading.Thread(target=build)
        thread.start()
        thread.join()
    assert np.abs(made[0].kernel.numpy()).mean() > 0


def test_what_was_put_off_is_drawn_unless_it_was_set() -> None:
    """A value that was set meanwhile stays."""
    with random_numbers_put_off() as put_off:
        one, two = keras.layers.Dense(300), keras.layers.Dense(300)
        one.build((None, 100))
        two.build((None, 100))
    assert not one.kernel.numpy().any()
    two.kernel.assign(np.ones((100, 300)))
    put_off.draw()
    assert np.unique(one.kernel.numpy()).size > 1000
    assert (two.kernel.numpy() == 1).all()

"""State that Keras leaves out of a save: found and named.

That nothing else is, `stories/test_every_structure` shows: it saves with `on_untracked="error"`.
"""

from __future__ import annotations

import dataclasses
import os
import random
import time
import warnings
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, UntrackedStateError
from keras_ckpt_tools.live import state
from keras_ckpt_tools.training.untracked import find_untracked


def found_in(**targets: Any) -> list[str]:
    """Return what a look through objects finds, by path."""
    parts = {name: (target, state.capture(target)) for name, target in targets.items()}
    return [one.path for one in find_untracked(parts)]


@dataclasses.dataclass
class Settings:
    """A plain object with a layer."""

    layer: keras.layers.Layer
    rate: float = 0.1


class Slotted:
    """An object without a `__dict__`."""

    __slots__ = ("empty", "weight")

    def __init__(self) -> None:
        self.weight = tf.Variable(1.0)


class Counter:
    """An object with a state of its own."""

    def get_state(self) -> int:
        return 1

    def set_state(self, value: int) -> None:
        pass


class Careless(keras.layers.Layer):
    """Keeps state wherever Keras does not look."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plain = tf.Variable(1.0)
        self.several = [tf.Variable(1.0), {"deep": (tf.Variable(2.0),)}]
        self.settings = Settings(keras.layers.Dense(2))
        self.slotted = Slotted()
        self.generator = np.random.default_rng(1)
        self.python = random.Random(1)
        self.counter = Counter()
        self.module = tf.Module()
        self.kept = self.add_weight(shape=(2,), name="kept")
        self.raw = self.kept.value
        self.known = keras.layers.Dense(2)
        self.table = Settings(self.known)
        self.metric = keras.metrics.Mean()
        self.loss = keras.losses.MeanSquaredError()
        self.noise = keras.random.SeedGenerator(1)
        self.numbers = list(range(100_000))

    def build(self, shape: Any) -> None:
        self.settings.layer.build(shape)
        self.known.build(shape)

    @property
    def trap(self) -> Any:
        raise AssertionError("a property was evaluated")

    def call(self, x: Any) -> Any:
        return self.settings.layer(x) + self.known(x) + self.kept

    def get_config(self) -> dict[str, Any]:
        return super().get_config()


LEFT_OUT = {
    "plain": "a tf.Variable of shape ()",
    "several[0]": "a tf.Variable of shape ()",
    "several[1]['deep'][0]": "a tf.Variable of shape ()",
    "settings.layer": "a layer, Dense, with 2 weights",
    "slotted.weight": "a tf.Variable of shape ()",
    "generator": "a random generator",
    "python": "a random generator",
    "counter": "a Counter with a state of its own",
}


def careless() -> keras.Model:
    """Return a compiled model with such a layer."""
    model = keras.Sequential([keras.Input((2,)), Careless(name="c"), keras.layers.Dense(1)])
    model.compile("adam", "mse", run_eagerly=True)
    return model


def test_everything_that_keras_leaves_out_is_named_with_what_to_do(tmp_path):
    """All of it in one error, which has the same as facts; and nothing is written."""
    model = careless()
    manager = kct.CheckpointManager(tmp_path / "run", model=model, on_untracked="error")
    with pytest.raises(UntrackedStateError) as caught:
        manager.save()
    prefix = "layer 'c' (Careless)."
    told = {path.removeprefix(prefix): what for path, what, _ in caught.value.untracked}
    assert told == LEFT_OUT
    remedies = {path.removeprefix(prefix): do for path, _, do in caught.value.untracked}
    assert "`self.add_weight(...)`" in remedies["plain"]
    assert "CheckpointManager(..., plain=...)" in remedies["plain"]
    assert "assign it to an attribute" in remedies["settings.layer"]
    assert "SeedGenerator" in remedies["generator"]
    assert "layer 'c' (Careless).several[0]: a tf.Variable of shape ()" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_is_tracked_by_name_is_saved(tmp_path):
    """That is one of the things to do about it."""
    model = careless()
    layer = model.layers[0]
    manager = kct.CheckpointManager(
        tmp_path,
        on_untracked="error",
        model=model,
        plain=layer.plain,
        several=layer.several[0],
        deep=layer.several[1]["deep"],
        part=layer.settings.layer,
        slotted=layer.slotted.weight,
        generator=layer.generator,
        python=layer.python,
        counter=layer.counter,
    )
    assert os.path.isfile(manager.save())


def test_it_is_said_once_and_saved_all_the_same(tmp_path):
    """By whichever door it is said first."""
    model = careless()
    manager = kct.CheckpointManager(tmp_path / "run", model=model)
    with pytest.warns(UserWarning, match="State that Keras does not track is not saved"):
        manager.save()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manager.save()
        checkpoint = kct.ModelCheckpoint(tmp_path / "a.weights.h5", save_weights_only=True)
        checkpoint.set_model(model)
        checkpoint.on_epoch_end(0)


@pytest.mark.parametrize("file", ["a.keras", "a.weights.h5", "a.h5", "backup"])
def test_callbacks_take_the_same_argument(tmp_path, file):
    """And write nothing either; with `"ignore"`, they say nothing."""
    x, y = np.ones((2, 2), "float32"), np.ones((2, 1), "float32")

    def callback(how: Any) -> Any:
        path = tmp_path / file
        if file == "backup":
            return kct.BackupAndRestore(path, delete_checkpoint=False, on_untracked=how)
        weights_only = file == "a.weights.h5"
        return kct.ModelCheckpoint(path, save_weights_only=weights_only, on_untracked=how)

    model = careless()
    with pytest.raises(UntrackedStateError):
        model.fit(x, y, verbose=0, callbacks=[callback("error")])
    assert not (tmp_path / file).exists()
    model = careless()
    model.fit(x, y, verbose=0, callbacks=[callback("ignore")])
    assert (tmp_path / file).exists()


def test_another_value_is_refused(tmp_path):
    """Each door says so when it is made."""
    for make in (
        lambda: kct.CheckpointManager(tmp_path, model=tf.Variable(1.0), on_untracked="no"),
        lambda: kct.ModelCheckpoint(tmp_path / "a.keras", on_untracked="no"),
        lambda: kct.BackupAndRestore(tmp_path / "b", on_untracked="no"),
    ):
        with pytest.raises(ArgumentError, match="on_untracked='no'"):
            make()


class Nested(keras.Model):
    """Layers in a list of tuples in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = {"a": [(keras.layers.Dense(2), 1)]}

    def call(self, x: Any) -> Any:
        return self.parts["a"][0][0](x)


def test_layers_that_keras_tracks_and_does_not_save_are_found():
    """Where Keras does not look into containers in containers, their weights are in no file."""
    model = Nested()
    model(np.ones((1, 2), "float32"))
    saved = any("vars/0" in path for path in state.capture(model).values)
    assert bool(found_in(model=model)) != saved


class Thing:
    """An object of no interest."""

    many: Any = None
    ring: Any = None
    layer: Any = None


class Circle(keras.layers.Layer):
    """An object that holds itself, its layer, and more than anybody wants to see."""

    def __init__(self) -> None:
        super().__init__()
        circle = Thing()
        circle.ring, circle.layer = circle, self
        circle.many = [[Thing() for _ in range(300)] for _ in range(300)]
        self.circle = circle

    def call(self, x: Any) -> Any:
        return x


class Remembering(keras.layers.LSTM):
    """A layer of Keras' own with something beside."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.beside = tf.Variable(1.0)


def test_what_is_added_to_keras_own_classes_is_found():
    """But not the states of a recurrent layer, which Keras leaves out on purpose."""
    layer = Remembering(2, stateful=True, name="r")
    model = keras.Sequential([keras.Input((3, 2), batch_size=1), layer])
    model.steps_done = tf.Variable(0)
    model(np.ones((1, 3, 2), "float32"))
    assert found_in(model=model) == [
        f"model {model.name!r} (Sequential).steps_done",
        "layer 'r' (Remembering).beside",
    ]


def test_the_look_is_bounded():
    """By depth and number; circles are walked once."""
    model = keras.Sequential([keras.Input((2,)), Circle()])
    begin = time.perf_counter()
    assert found_in(model=model) == []
    assert time.perf_counter() - begin < 5


def test_a_later_save_does_not_look_again(tmp_path, monkeypatch):
    """It does where the structure has changed."""
    looks: list[Any] = []
    real = find_untracked

    def counted(*args: Any) -> Any:
        looks.append(args)
        return real(*args)

    monkeypatch.setattr("keras_ckpt_tools.training.untracked.find_untracked", counted)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    manager = kct.CheckpointManager(tmp_path, model=model)
    manager.save()
    manager.save()
    assert len(looks) == 1
    model.add(keras.layers.Dense(2))
    manager.save()
    assert len(looks) == 2

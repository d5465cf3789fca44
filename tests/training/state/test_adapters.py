"""Each kind of object that can be tracked is saved and restored, alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import small_data, small_model, state_of

from keras_ckpt_tools.errors import ArgumentError, NotBuiltError
from keras_ckpt_tools.training.state.adapters import adapt

SaveAndRestore = Callable[[Any, Any], None]


class Twins(tf.Module):
    """Two variables of one name, beside things that are no variables."""

    def __init__(self, *values: float):
        super().__init__()
        self.a = tf.Variable(values[0], name="same")
        self.b = tf.Variable(values[1], name="same")
        self.both = [self.a, {"deep": tf.Variable(values[2], name="same")}]
        self.inner = tf.Module()
        self.inner.c = tf.Variable(values[3], name="same")
        self.inner.outer = self
        self.size, self.title = 3, "twins"

    def values(self) -> list[float]:
        """Return what is in all of them."""
        return [float(v) for v in (self.a, self.b, self.both[1]["deep"], self.inner.c)]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda v: tf.Variable([v, v]), id="tf.Variable"),
        pytest.param(lambda v: tf.Variable([v], dtype=tf.bfloat16), id="bfloat16"),
        pytest.param(lambda v: tf.Variable(v > 1), id="bool"),
        pytest.param(lambda v: tf.Variable(int(v), dtype=tf.int64), id="int64"),
        pytest.param(lambda v: keras.Variable([v]), id="keras.Variable"),
    ],
)
def test_a_variable_is_restored(make: Callable[[float], Any], save_and_restore: Any) -> None:
    """Of any dtype, of TensorFlow or of Keras."""
    saved, restored = make(2.0), make(1.0)
    save_and_restore(saved, restored)
    assert bool(np.all(np.asarray(saved) == np.asarray(restored)))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda a, b: [a, b], id="list"),
        pytest.param(lambda a, b: (a, b), id="tuple"),
        pytest.param(lambda a, b: {"a": a, "b": b}, id="dict"),
        pytest.param(lambda a, b: {"x/y.z": [a], "": {"..": (b,)}}, id="nested, odd names"),
    ],
)
def test_variables_in_containers_are_restored(
    make: Callable[..., Any], save_and_restore: SaveAndRestore
) -> None:
    """Each in its place, though all have one name."""
    saved = make(tf.Variable(1.0, name="v"), tf.Variable(2.0, name="v"))
    first, second = tf.Variable(0.0, name="v"), tf.Variable(0.0, name="v")
    save_and_restore(saved, make(first, second))
    assert (float(first), float(second)) == (1.0, 2.0)


def test_a_module_with_variables_of_one_name_is_restored(save_and_restore: SaveAndRestore) -> None:
    """Found by attribute, not by name; modules inside it and circles are no hindrance."""
    saved, restored = Twins(1.0, 2.0, 3.0, 4.0), Twins(0.0, 0.0, 0.0, 0.0)
    adapter = adapt("it", saved)
    assert adapter is not None
    assert [*adapter.captured().values] == [
        "a/vars/0",
        "b/vars/0",
        "both/0/vars/0",
        "both/1/deep/vars/0",
        "inner/c/vars/0",
    ]
    save_and_restore(saved, restored)
    assert restored.values() == [1.0, 2.0, 3.0, 4.0]


def test_keras_objects_in_containers_and_modules_are_restored(
    save_and_restore: SaveAndRestore,
) -> None:
    """A layer in a list or in a module is not left out in silence."""

    def make(value: float) -> tuple[Any, Any]:
        dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(value))
        dense.build((None, 2))
        module = tf.Module()
        module.layer = dense
        return {"module": module, "layers": [dense], "v": tf.Variable(value)}, dense

    saved, _ = make(1.0)
    restored, dense = make(0.0)
    save_and_restore(saved, restored)
    assert np.asarray(dense.kernel).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_a_compiled_model_is_restored_with_its_optimizer(save_and_restore: SaveAndRestore) -> None:
    """Also into one whose optimizer was not built yet."""
    saved, restored = small_model(), small_model()
    saved.fit(*small_data(), batch_size=4, verbose=0)
    assert not restored.optimizer.built
    save_and_restore(saved, restored)
    assert state_of(restored) == state_of(saved)


def test_a_compiled_model_that_was_never_trained_is_restored(
    save_and_restore: SaveAndRestore,
) -> None:
    """Also into one that was."""
    saved, restored = small_model(), small_model()
    restored.fit(*small_data(), batch_size=4, verbose=0)
    save_and_restore(saved, restored)
    assert state_of(restored) == state_of(saved)


@pytest.mark.parametrize("kind", [keras.metrics.Mean, keras.metrics.F1Score, keras.metrics.AUC])
def test_a_metric_is_restored(kind: Any, save_and_restore: SaveAndRestore) -> None:
    """In the middle of an epoch, say."""
    saved, restored = kind(), kind()
    if kind is keras.metrics.Mean:
        saved.update_state([1.0, 3.0])
    else:
        saved.update_state([[1.0, 0.0], [0.0, 1.0]], [[0.9, 0.1], [0.2, 0.8]])
        restored.update_state([[1.0, 0.0], [0.0, 1.0]], [[0.1, 0.9], [0.2, 0.8]])
    assert not np.array_equal(np.asarray(saved.result()), np.asarray(restored.result()))
    save_and_restore(saved, restored)
    assert np.array_equal(np.asarray(saved.result()), np.asarray(restored.result()))


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_a_numpy_generator_goes_on(bits: Any, save_and_restore: SaveAndRestore) -> None:
    """With the very next number, whatever it is made of."""
    saved, restored = (np.random.Generator(bits(seed)) for seed in (1, 2))
    saved.normal(size=7)
    save_and_restore(saved, restored)
    assert saved.integers(0, 2**63, 5).tolist() == restored.integers(0, 2**63, 5).tolist()


def test_an_old_numpy_generator_goes_on(save_and_restore: SaveAndRestore) -> None:
    """`RandomState` gives its state as a tuple, with an array in it."""
    saved, restored = np.random.RandomState(1), np.random.RandomState(2)
    saved.normal(size=7)
    save_and_restore(saved, restored)
    assert saved.normal(size=5).tolist() == restored.normal(size=5).tolist()


def test_a_generator_of_tensorflow_goes_on(save_and_restore: SaveAndRestore) -> None:
    """With the very next number."""
    saved, restored = (tf.random.Generator.from_seed(seed) for seed in (1, 2))
    saved.normal([3])
    save_and_restore(saved, restored)
    assert saved.normal([3]).numpy().tolist() == restored.normal([3]).numpy().tolist()


def test_a_seed_generator_of_keras_goes_on(save_and_restore: SaveAndRestore) -> None:
    """It is what dropout draws from."""
    saved, restored = keras.random.SeedGenerator(1), keras.random.SeedGenerator(2)
    saved.next()
    save_and_restore(saved, restored)
    assert np.array_equal(np.asarray(saved.next()), np.asarray(restored.next()))


class Holder:
    """Something with a state of its own."""

    def __init__(self, content: Any):
        self.content = content

    def state_dict(self) -> Any:
        return self.content

    def load_state_dict(self, content: Any) -> None:
        self.content = content


@pytest.mark.parametrize(
    "content",
    [
        {"epoch": 3, "name": "a", "list": [1, 2.5, None, True], "tuple": (1, (2,))},
        {"best": math.inf, "worst": -math.inf},
        {"huge": 2**100, "negative": -(2**100)},
        {0: "whole", 1: "numbers", "0": "and text"},
        {(1, 2): "a tuple"},
        {"__array__": "state/0", "__tuple__": [1], "__int__": "5"},
        {},
        [],
        None,
    ],
    ids=str,
)
def test_a_state_comes_back_as_it_was(content: Any, save_and_restore: SaveAndRestore) -> None:
    """Values, types, keys: nothing turns into something else on the way through JSON."""
    restored = Holder({"other": 1})
    save_and_restore(Holder(content), restored)
    assert restored.content == content
    assert type(restored.content) is type(content)


def test_nan_in_a_state_is_a_number(save_and_restore: SaveAndRestore) -> None:
    """JSON has no word for it."""
    restored = Holder(None)
    save_and_restore(Holder({"loss": float("nan")}), restored)
    assert math.isnan(restored.content["loss"])


def test_arrays_in_a_state_are_tensors_of_the_file(save_and_restore: SaveAndRestore) -> None:
    """At any depth; the number of them may be another than before."""
    restored = Holder({})
    held = {"a": np.arange(3), "deep": [{"b": tf.constant([0.5])}], "c": np.float32(0.1)}
    save_and_restore(Holder(held), restored)
    assert restored.content["a"].tolist() == [0, 1, 2]
    assert restored.content["deep"][0]["b"].tolist() == [0.5]
    assert restored.content["c"] == float(np.float32(0.1))


def test_a_state_that_is_neither_json_nor_arrays_is_refused(
    save_and_restore: SaveAndRestore,
) -> None:
    """No pickle, ever."""
    with pytest.raises(ArgumentError, match="not JSON"):
        save_and_restore(Holder({"function": print}), Holder(None))


@pytest.mark.parametrize("target", [3, "text", None, [], {}, [1, 2], object(), len])
def test_what_has_no_state_has_no_adapter(target: Any) -> None:
    """The caller names all of these in one error."""
    assert adapt("it", target) is None


@pytest.mark.parametrize("target", [[tf.Variable(1.0), 3], {"w": tf.Variable(1.0), "epoch": 0}])
def test_a_number_among_variables_is_not_left_out_in_silence(target: Any) -> None:
    """It would not be saved, and nobody would know."""
    with pytest.raises(ArgumentError, match=r"tf\.Variable"):
        adapt("it", target)


def test_an_unbuilt_layer_in_a_container_is_refused(save_and_restore: SaveAndRestore) -> None:
    """It has nothing that could be saved."""
    with pytest.raises(NotBuiltError, match="Build it first"):
        save_and_restore([keras.layers.Dense(2)], [keras.layers.Dense(2)])

"""Five questions that people ask about TensorFlow checkpoints, each with real objects.

What they have in common: `restore` said nothing, and something else was restored than was meant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArtefactKindError, ArtefactNotFoundError, RestoreError


def network(*units: int) -> keras.Model:
    """Return a model of dense layers."""
    layers = [keras.layers.Dense(n) for n in units]
    return keras.Sequential([keras.Input((3,)), *layers])


def train(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Make one step."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(tf.ones((2, 3))) - 1.0) ** 2)
    variables = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def same(one: Any, other: Any) -> bool:
    """Return whether two objects have the same values in all their variables."""
    pairs = zip(one.variables, other.variables, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_a_prefix_of_a_training_loop_is_restored(tmp_path: Path) -> None:
    """Of `tf.train.CheckpointManager`: with the optimizer, which is not built yet, and the step."""
    model, optimizer = network(4, 1), keras.optimizers.Adam(0.1)
    step = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=step)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=2)
    for _ in range(3):
        train(model, optimizer)
        step.assign_add(1)
        manager.save()
    again = {
        "model": network(4, 1),
        "optimizer": keras.optimizers.Adam(0.5),
        "step": tf.Variable(0, dtype=tf.int64),
    }
    path = tf.train.latest_checkpoint(str(tmp_path))
    assert kct.load_weights(again, path)
    assert same(again["model"], model)
    assert same(again["optimizer"], optimizer)
    assert int(again["step"]) == 3
    train(model, optimizer)
    train(again["model"], again["optimizer"])
    assert same(again["model"], model)
    with pytest.raises(ArtefactNotFoundError, match=r"nearest prefix is .*ckpt-3"):
        kct.load_weights(again, tmp_path / "ckpt-33")


def test_two_variables_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """Both are called `weights`, in name scopes; what counts is where the program has them."""

    class Scoped(tf.Module):
        def __init__(self, first: float, second: float) -> None:
            super().__init__()
            with tf.name_scope("encoder"):
                self.encoder = tf.Variable([first, first], name="weights")
            with tf.name_scope("decoder"):
                self.decoder = tf.Variable([second, second], name="weights")

    saved = Scoped(1.0, 2.0)
    prefix = tf.train.Checkpoint(saved).save(str(tmp_path / "ckpt"))
    module = Scoped(0.0, 0.0)
    assert kct.load_weights(module, prefix)
    assert (float(module.encoder[0]), float(module.decoder[0])) == (1.0, 2.0)

    # By names alone, as TensorFlow 1 saved, nobody can say which is which, and nobody guesses.
    names = {"a": tf.Variable([0.0, 0.0], name="weights")}
    names["b"] = tf.Variable([0.0, 0.0], name="weights")
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "old"),
        tensor_names=["weights", "weights_1"],
        shape_and_slices=["", ""],
        tensors=[tf.constant([1.0, 1.0]), tf.constant([2.0, 2.0])],
    )
    report = kct.compare(names, tmp_path / "old")
    assert report.missing == ("a/vars/0", "b/vars/0")
    assert report.unexpected == ("weights", "weights_1")


def test_two_layers_into_three_are_told_apart(tmp_path: Path) -> None:
    """What is lacking is named; nothing is changed, unless it is asked for."""
    saved = network(4, 1)
    prefix = tf.train.Checkpoint(model=saved).save(str(tmp_path / "ckpt"))
    larger = network(4, 8, 1)
    names = [layer.name for layer in larger.layers]
    # The last one has other weights than any that was saved.
    lacking = {f"layers/dense_{i}/vars/{n}" for i in (1, 2) for n in (0, 1)}
    before = [np.asarray(v) for v in larger.variables]
    report = kct.compare(larger, prefix)
    assert len(names) == 3
    assert set(report.missing) == lacking
    assert set(report.matched) == {"layers/dense/vars/0", "layers/dense/vars/1"}
    with pytest.raises(RestoreError, match="layers/dense_1/vars/0"):
        kct.load_weights(larger, prefix)
    assert all(map(np.array_equal, before, larger.variables))
    assert kct.load_weights(larger, prefix, strict=False).matched == report.matched
    assert np.array_equal(larger.layers[0].kernel, saved.layers[0].kernel)


def test_a_list_of_bare_variables_is_restored(tmp_path: Path) -> None:
    """Into a list, into variables by name, and into one more than there were."""

    def variables(*values: float) -> list[tf.Variable]:
        return [tf.Variable(np.full((2,), value, "float32")) for value in values]

    prefix = tf.train.Checkpoint(weights=variables(1, 2)).save(str(tmp_path / "ckpt"))
    fresh = variables(0, 0)
    assert kct.load_weights(fresh, prefix)
    assert [float(v[0]) for v in fresh] == [1.0, 2.0]
    named = {"weights": variables(0, 0)}
    assert kct.load_weights(named, prefix)
    assert [float(v[0]) for v in named["weights"]] == [1.0, 2.0]
    longer = variables(0, 0, 0)
    with pytest.raises(RestoreError, match="2/vars/0"):
        kct.load_weights(longer, prefix)
    assert all(float(v[0]) == 0.0 for v in longer)


def test_two_models_in_one_checkpoint_are_told_apart(tmp_path: Path) -> None:
    """By their names; one alone is only taken where it cannot be the other."""
    generator, critic = network(4, 1), network(4, 1)
    prefix = tf.train.Checkpoint(generator=generator, critic=critic).save(str(tmp_path / "ckpt"))
    with pytest.raises(ArtefactKindError, match="critic, generator"):
        kct.load_weights(network(4, 1), prefix)
    one = network(4, 1)
    assert kct.load_weights({"critic": one}, prefix)
    assert same(one, critic)
    both = {"generator": network(4, 1), "critic": network(4, 1)}
    assert kct.load_weights(both, prefix)
    assert same(both["generator"], generator)
    assert same(both["critic"], critic)
    with pytest.raises(RestoreError, match="critik"):
        kct.load_weights({"critik": one}, prefix)

"""Story 2: loops by `GradientTape`, stopped and continued.

Model and optimizer each epoch, at most three kept; every 100 steps; two models and one optimizer;
bare variables in a list. What is killed for real is in `tests/training/test_kills_and_refusals`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_ckpt_tools as kct


def loss_of(model: Any, images: Any, labels: Any) -> Any:
    """Return the mean loss of a batch."""
    return tf.reduce_mean(
        keras.losses.sparse_categorical_crossentropy(labels, model(images, training=True))
    )


def test_model_and_optimizer_each_epoch_with_three_kept(
    digits: Any, build_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    """Stopped after five epochs, it goes on to eight as if it had not been stopped."""
    dataset = tf.data.Dataset.from_tensor_slices((digits.x_train[:96], digits.y_train[:96]))
    dataset = dataset.batch(32)

    def train(directory: Path, epochs: int) -> tuple[Any, Any, Any, list[int]]:
        model, optimizer = build_cnn(compiled=False, dropout=0.2), keras.optimizers.Adam(0.01)
        manager = kct.CheckpointManager(directory, model=model, optimizer=optimizer, max_to_keep=3)
        seen = []
        for epoch in manager.epochs(epochs):
            for images, labels in manager.batches(dataset):
                with tf.GradientTape() as tape:
                    loss = loss_of(model, images, labels)
                variables = model.trainable_variables
                optimizer.apply_gradients(
                    zip(tape.gradient(loss, variables), variables, strict=True)
                )
                manager.log(loss=loss)
            seen.append(epoch)
        return manager, model, optimizer, seen

    assert train(tmp_path / "run", 5)[3] == [0, 1, 2, 3, 4]
    manager, model, optimizer, seen = train(tmp_path / "run", 8)
    assert seen == [5, 6, 7]
    assert len(list((tmp_path / "run").iterdir())) == len(manager.checkpoints) == 3
    assert manager.progress.step == int(np.asarray(optimizer.iterations)) == 24
    assert len(manager.progress.history["loss"]) == 8
    _, whole, _, _ = train(tmp_path / "whole", 8)
    for one, other in zip(model.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_every_hundred_steps(tmp_path: Path) -> None:
    """Stopped at step 250, it goes on with step 200."""

    def train(stop_at: int) -> tuple[Any, list[int]]:
        weight, optimizer = tf.Variable(0.0), keras.optimizers.SGD(0.01)
        optimizer.build([weight])
        manager = kct.CheckpointManager(tmp_path, weight=weight, optimizer=optimizer, save_freq=100)
        seen = []
        for step in manager.steps(400):
            if step == stop_at:
                break
            optimizer.apply([2 * (weight - 1.0)], [weight])
            seen.append(step)
        return manager, seen

    manager, _ = train(stop_at=250)
    assert [kct.training_progress(path).step for path in manager.checkpoints] == [100, 200]
    manager, seen = train(stop_at=-1)
    assert seen == list(range(200, 400))
    assert [kct.training_progress(path).step for path in manager.checkpoints][-2:] == [300, 400]


def test_two_models_and_one_optimizer(tmp_path: Path) -> None:
    """Neither is built when it is restored; the one optimizer is built on both."""

    def make() -> dict[str, Any]:
        return {
            "encoder": keras.Sequential([keras.layers.Dense(3)]),
            "decoder": keras.Sequential([keras.layers.Dense(4)]),
            "optimizer": keras.optimizers.Adam(0.01),
        }

    x = np.random.default_rng(1).normal(size=(8, 4)).astype("float32")

    def train(epochs: int) -> dict[str, Any]:
        parts = make()
        for _ in kct.CheckpointManager(tmp_path, max_to_keep=2, **parts).epochs(epochs):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((parts["decoder"](parts["encoder"](x)) - x) ** 2)
            variables = [
                *parts["encoder"].trainable_variables,
                *parts["decoder"].trainable_variables,
            ]
            parts["optimizer"].apply(tape.gradient(loss, variables), variables)
        return parts

    first = train(2)
    restored = make()
    manager = kct.CheckpointManager(tmp_path, **restored)
    assert manager.restore_or_initialize() == manager.latest_checkpoint
    for name in first:
        for one, other in zip(first[name].variables, restored[name].variables, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert int(np.asarray(train(5)["optimizer"].iterations)) == 5


def test_a_generator_and_a_critic_with_an_optimizer_each(tmp_path: Path) -> None:
    """As a GAN has them: the two do not get mixed up."""

    def make() -> dict[str, Any]:
        keras.utils.set_random_seed(1)
        return {
            "generator": keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]),
            "critic": keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]),
            "generator_optimizer": keras.optimizers.Adam(0.1),
            "critic_optimizer": keras.optimizers.Adam(0.2),
        }

    saved = make()
    manager = kct.CheckpointManager(tmp_path, **saved)
    for _ in manager.epochs(1):
        for name, value in (("generator", 1.0), ("critic", 2.0)):
            variables = saved[name].trainable_variables
            gradients = [tf.fill(v.shape, value) for v in variables]
            saved[f"{name}_optimizer"].apply(gradients, variables)
    restored = make()
    kct.CheckpointManager(tmp_path, **restored).restore_or_initialize()
    for name in saved:
        for one, other in zip(saved[name].variables, restored[name].variables, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_bare_variables_in_a_list(tmp_path: Path) -> None:
    """No Keras object at all; steps are counted all the same."""

    def train(epochs: int) -> tuple[Any, list[Any]]:
        weights = [tf.Variable([[1.0, 2.0]], name="w"), tf.Variable([0.0], name="w")]
        manager = kct.CheckpointManager(tmp_path, max_to_keep=3, weights=weights)
        for _ in manager.epochs(epochs):
            for x in manager.batches([1.0, 2.0]):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(weights[0] * x + weights[1])
                for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
                    weight.assign_sub(0.1 * gradient)
        return manager, weights

    train(2)
    manager, weights = train(4)
    assert manager.progress.step == 8
    assert len(manager.checkpoints) == 3
    np.testing.assert_allclose(weights[0], [[1.0 - 1.2, 2.0 - 1.2]], rtol=1e-5)
    np.testing.assert_allclose(weights[1], [-1.6], rtol=1e-5)

"""Write the TensorFlow checkpoints of Keras 2 and TensorFlow 1 beside this file.

Run with TensorFlow 2.15 and its own Keras 2.15:

    python tests/files/keras2_checkpoints/make.py

Each folder has what a loop with `tf.GradientTape` leaves after three steps, and `expected.npz`, the
values of its variables in the order of Keras.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

FOLDER = Path(__file__).parent


def model() -> tf.keras.Model:
    """Return a sequential model of two layers."""
    tf.keras.utils.set_random_seed(5)
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [layers.InputLayer((3,)), layers.Dense(4, activation="relu"), layers.Dense(1)]
    )


def train(network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer) -> None:
    """Make one step."""
    x = np.arange(12, dtype="float32").reshape(4, 3) / 10
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((network(x) - 1.0) ** 2)
    variables = network.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def loop(name: str, optimizer: tf.keras.optimizers.Optimizer) -> None:
    """Save three checkpoints as a loop does, and keep the last two."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    network, step = model(), tf.Variable(0, dtype=tf.int64)
    objects = tf.train.Checkpoint(model=network, optimizer=optimizer, step=step)
    manager = tf.train.CheckpointManager(objects, str(folder), max_to_keep=2)
    for _ in range(3):
        train(network, optimizer)
        step.assign_add(1)
        manager.save()
    if hasattr(optimizer, "get_slot"):
        slots = {
            slot: [optimizer.get_slot(v, slot) for v in network.trainable_variables]
            for slot in optimizer.get_slot_names()
        }
    else:
        slots = {"m": optimizer._momentums, "v": optimizer._velocities}
    expected = {f"weights/{i}": v.numpy() for i, v in enumerate(network.weights)}
    for slot, variables in slots.items():
        expected |= {f"{slot}/{i}": v.numpy() for i, v in enumerate(variables)}
    np.savez(folder / "expected.npz", **expected)
    state = folder / "checkpoint"
    lines = state.read_text().splitlines()
    state.write_text("".join(f"{line}\n" for line in lines if "timestamp" not in line))


def saver() -> None:
    """Save as TensorFlow 1 does: by the names of variables, without objects."""
    folder = FOLDER / "saver"
    shutil.rmtree(folder, ignore_errors=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        network = model()
        x = tf.zeros((1, 3))
        network(x)
        tf.compat.v1.train.get_or_create_global_step()
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(folder / "model.ckpt"), 7)
        values = session.run(network.weights)
    (folder / "model.ckpt-7.meta").unlink()
    # It names the directory that it was written in, and is somewhere else now.
    (folder / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-7"\n')
    np.savez(folder / "expected.npz", **{f"weights/{i}": v for i, v in enumerate(values)})


if __name__ == "__main__":
    loop("adam", tf.keras.optimizers.Adam(0.01))
    loop("legacy_adam", tf.keras.optimizers.legacy.Adam(0.01))
    saver()

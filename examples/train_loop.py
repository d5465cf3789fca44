"""Train in a GradientTape loop, so that it can be killed at any moment and started again.

The manager's iterators are the loop's own `for` statements. With `SAVE_FREQ` a number of steps, a
start after a kill goes on inside the epoch, at the batch after the last save.

Call: `python train_loop.py DIRECTORY EPOCHS [SAVE_FREQ]`
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from digits import BATCH_SIZE, build_model, smoothed_crossentropy, splits, tell

import keras_ckpt_tools as kct


def main(directory: str, epochs: int, save_freq: int | None = None) -> None:
    """Train for that many epochs in all, those of earlier starts included."""
    train, validation, _ = splits()
    model = build_model()
    optimizer = keras.optimizers.Adam(2e-3)

    @tf.function
    def train_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(smoothed_crossentropy(labels, model(images, training=True)))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    manager = kct.CheckpointManager(
        directory,
        model=model,
        optimizer=optimizer,
        max_to_keep=3,
        save_freq=save_freq or "epoch",
        monitor=None if save_freq else "val_accuracy",
    )
    tell("ready", batches=-(-len(train.labels) // BATCH_SIZE))
    for epoch in manager.epochs(epochs):
        first = manager.progress.batches_completed
        tell("epoch", epoch=epoch, batch=first)
        for batch, (images, labels) in enumerate(manager.batches(shuffled(train, epoch)), first):
            manager.log(loss=train_step(images, labels))
            tell("batch", epoch=epoch, batch=batch)
        hits = np.argmax(model(validation.images), axis=-1) == validation.labels
        manager.log(val_accuracy=hits.mean())
        tell("saved", epoch=epoch, val_accuracy=float(hits.mean()))
    tell("end", progress=manager.progress.to_json())


def shuffled(train: Any, epoch: int) -> tf.data.Dataset:
    """Return the batches of an epoch: another order in each, the same one whenever it is asked."""
    dataset = tf.data.Dataset.from_tensor_slices(tuple(train))
    return dataset.shuffle(len(train.labels), seed=epoch).batch(BATCH_SIZE)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))

"""Programs that train by loops of their own under a `CheckpointManager`; see `programs`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from resumed.programs import BATCH_SIZE, BATCHES, EPOCHS, Stage, classifier, digest

import keras_ckpt_tools as kct


def _left(manager: kct.CheckpointManager, **variables: Any) -> dict[str, Any]:
    progress = manager.progress
    return {
        **{name: digest(each) for name, each in variables.items()},
        "history": progress.history,
        "history epochs": progress.history_epochs,
        "logs": progress.logs,
        "best": progress.best,
        "place": (progress.epochs_completed, progress.batches_completed, progress.step),
    }


def tape_loop(stage: Stage) -> dict[str, Any]:
    """Train by a GradientTape, with augmentation by NumPy's global generator."""
    model = classifier()
    optimizer = keras.optimizers.Adam(0.01)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    accuracy = keras.metrics.SparseCategoricalAccuracy()
    stopping = keras.callbacks.EarlyStopping("loss", patience=2)

    @tf.function
    def train_step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = loss_of(labels, logits)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        accuracy.update_state(labels, logits)
        return loss

    manager = kct.CheckpointManager(
        stage.path("run"),
        model=model,
        optimizer=optimizer,
        accuracy=accuracy,
        callbacks=[stopping],
        monitor="loss",
        max_to_keep=2,
        **stage.arguments,
    )
    data = kct.data.ArrayDataset(*stage.train, batch_size=BATCH_SIZE, shuffle=True, seed=5)
    for epoch in manager.epochs(EPOCHS):
        if not manager.progress.batches_completed:
            accuracy.reset_state()
        for images, labels in manager.batches(data):
            shifted = tf.cast(images + np.random.normal(0.0, 0.1, images.shape), tf.float32)
            loss = train_step(shifted, labels)
            done = manager.progress.batches_completed
            manager.log(loss=loss, accuracy=accuracy.result())
            stage.report(epoch * BATCHES + done, {"loss": float(loss)})
        # Everyday code, which needs that there was a batch.
        manager.log(last=float(loss))
    return _left(
        manager, model=model.weights, optimizer=optimizer.variables, accuracy=accuracy.variables
    )


def saved_by_hand(stage: Stage) -> dict[str, Any]:
    """Train by a GradientTape, and save at the end of the body, every fourth update."""
    model = classifier()
    optimizer = keras.optimizers.Adam(0.01)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def train_step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    arguments = {**stage.arguments, "save_freq": 10**6}
    manager = kct.CheckpointManager(
        stage.path("run"), model=model, optimizer=optimizer, max_to_keep=2, **arguments
    )
    data = tf.data.Dataset.from_generator(
        lambda: zip(*stage.train, strict=True),
        output_signature=(tf.TensorSpec((8, 8, 1)), tf.TensorSpec((), "int64")),
    ).batch(BATCH_SIZE)
    for epoch in manager.epochs(EPOCHS):
        for images, labels in manager.batches(data):
            loss = train_step(images, labels)
            done = manager.progress.batches_completed
            manager.log(loss=loss)
            # Never after the last batch of an epoch, which has ten.
            if int(optimizer.iterations) % 4 == 3:
                manager.save()
            stage.report(epoch * BATCHES + done, {"loss": float(loss)})
        manager.log(last=float(loss))
    return _left(manager, model=model.weights, optimizer=optimizer.variables)


def adversaries(stage: Stage) -> dict[str, Any]:
    """Train a GAN: two models, two optimizers, noise from a generator of NumPy."""
    keras.utils.set_random_seed(12)
    generator = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(64, "sigmoid")]
    )
    discriminator = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )
    forger, judge = keras.optimizers.Adam(0.01), keras.optimizers.RMSprop(0.01, momentum=0.5)
    loss_of = keras.losses.BinaryCrossentropy(from_logits=True)
    noise = np.random.default_rng(3)

    @tf.function
    def train_step(real: Any, seeds: Any) -> Any:
        with tf.GradientTape() as tape:
            images = tf.concat([tf.reshape(real, (-1, 64)), generator(seeds)], 0)
            truth = tf.concat([tf.ones((BATCH_SIZE, 1)), tf.zeros((BATCH_SIZE, 1))], 0)
            judged = loss_of(truth, discriminator(images, training=True))
        variables = discriminator.trainable_variables
        judge.apply(tape.gradient(judged, variables), variables)
        with tf.GradientTape() as tape:
            scores = discriminator(generator(seeds), training=True)
            forged = loss_of(tf.ones((BATCH_SIZE, 1)), scores)
        variables = generator.trainable_variables
        forger.apply(tape.gradient(forged, variables), variables)
        return judged, forged

    manager = kct.CheckpointManager(
        stage.path("run"),
        generator=generator,
        discriminator=discriminator,
        forger=forger,
        judge=judge,
        noise=noise,
        keep=kct.KeepLast(2) | kct.KeepEvery(3),
        **stage.arguments,
    )
    images = stage.train[0]
    data = kct.data.resumable(
        lambda epoch: (
            tf.data.Dataset.from_tensor_slices(images)
            .shuffle(len(images), seed=epoch)
            .batch(BATCH_SIZE)
        )
    )
    for epoch in manager.epochs(EPOCHS):
        for real in manager.batches(data):
            seeds = noise.normal(size=(BATCH_SIZE, 4)).astype("float32")
            judged, forged = train_step(real, seeds)
            done = manager.progress.batches_completed
            manager.log(judged=judged, forged=forged)
            logs = {"judged": float(judged), "forged": float(forged)}
            stage.report(epoch * BATCHES + done, logs)
        manager.log(last=float(judged))
    return _left(
        manager,
        generator=generator.weights,
        discriminator=discriminator.weights,
        forger=forger.variables,
        judge=judge.variables,
    ) | {"noise": repr(noise.bit_generator.state)}


def accumulating_steps(stage: Stage) -> dict[str, Any]:
    """Train by steps, without epochs; gradients are added up over three of them."""
    model = classifier()
    optimizer = keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9), momentum=0.9
    )
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sums = [tf.Variable(tf.zeros(v.shape)) for v in model.trainable_variables]
    noise = tf.random.Generator.from_seed(4)

    @tf.function
    def add(images: Any, labels: Any) -> Any:
        images += noise.normal(tf.shape(images), stddev=0.1)
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        for variable, gradient in zip(sums, gradients, strict=True):
            variable.assign_add(gradient / 3.0)
        return loss

    @tf.function
    def apply() -> None:
        optimizer.apply([tf.identity(each) for each in sums], model.trainable_variables)
        for each in sums:
            each.assign(tf.zeros_like(each))

    data = tf.data.Dataset.from_tensor_slices(stage.train).shuffle(50, seed=5)
    batches = iter(data.batch(BATCH_SIZE).repeat())
    manager = kct.CheckpointManager(
        stage.path("run"),
        model=model,
        optimizer=optimizer,
        sums=sums,
        noise=noise,
        batches=batches,
        max_to_keep=2,
        **stage.arguments,
    )
    for step in manager.steps(EPOCHS * BATCHES):
        for _ in range(2):
            loss = add(*next(batches))
        if step % 3 == 2:
            apply()
        manager.log(loss=loss)
        stage.report(step, {"loss": float(loss)})
    return _left(
        manager,
        model=model.weights,
        optimizer=optimizer.variables,
        sums=sums,
        noise=[noise.state],
        what_comes_next=[part for _ in range(BATCHES) for part in next(batches)],
    )

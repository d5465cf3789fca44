"""Programs that train by `fit()`, for `killing` to kill; `loops` has those written by hand.

Each runs in a process of its own, tells of every batch that it has trained, and goes on from what
is in its directory. Nothing in them knows of interruptions: they are what a user would write.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_ckpt_tools as kct

EPOCHS = 6
BATCHES = 10
BATCH_SIZE = 16
Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Stage:
    """Where a program runs.

    Attributes:
        directory: Of all its files.
        x: Digits, 8 by 8, from 0 to 1.
        y: Which they are.
        report: Called with the number of each batch that was trained, from 0 and through all
            epochs, and its logs.
        arguments: What decides when the program saves, and how.
    """

    directory: str
    x: np.ndarray
    y: np.ndarray
    report: Report
    arguments: dict[str, Any]

    def path(self, name: str) -> str:
        """Return a path in the directory."""
        return os.path.join(self.directory, name)

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels to train on."""
        count = BATCHES * BATCH_SIZE
        return self.x[:count], self.y[:count]

    @property
    def rest(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels to validate on."""
        count = BATCHES * BATCH_SIZE
        return self.x[count:], self.y[count:]


# What is trained, and what is left of it.


def classifier(*first: keras.layers.Layer) -> keras.Model:
    """Return a small network with dropout; always the same one."""
    keras.utils.set_random_seed(11)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *first,
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, dtype="float32"),
        ]
    )


def compiled(model: keras.Model, optimizer: Any = None, **arguments: Any) -> keras.Model:
    """Return the model, ready for `fit()`."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    model.compile(optimizer, loss, metrics=["accuracy"], **arguments)
    return model


def digest(variables: Iterable[Any]) -> str:
    """Return one digest of the shapes, kinds and bytes of variables, in order."""
    found = hashlib.sha256()
    for variable in variables:
        array = np.asarray(variable)
        found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()


class Tell(keras.callbacks.Callback):
    """Tell of each batch."""

    def __init__(self, report: Report, together: int = 1):
        super().__init__()
        self.report, self.together = report, together

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Of batches that are executed together, Keras tells the first or the last.
        first = batch // self.together * self.together
        self.report(
            self.epoch * BATCHES + first, {name: float(v) for name, v in (logs or {}).items()}
        )


def _fitted(
    stage: Stage,
    model: keras.Model,
    data: Any,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    **arguments: Any,
) -> dict[str, Any]:
    callbacks = list(callbacks)
    backup = kct.BackupAndRestore(
        stage.path("backup"), callbacks=callbacks, delete_checkpoint=False, **stage.arguments
    )
    tell = Tell(stage.report, getattr(model, "steps_per_execution", 1))
    history = model.fit(
        data, epochs=EPOCHS, verbose=0, callbacks=[tell, backup, *callbacks], **arguments
    )
    return {
        "weights": digest(model.weights),
        "optimizer": digest(getattr(model.optimizer, "variables", ())),
        "metrics": digest(model.metrics_variables),
        "history": history.history,
        "epochs": history.epoch,
    }


# Programs.


def array_dataset(stage: Stage) -> dict[str, Any]:
    """Train on an `ArrayDataset`, read by two threads."""
    data = kct.data.ArrayDataset(
        *stage.train, batch_size=BATCH_SIZE, shuffle=True, seed=5, workers=2
    )
    return _fitted(stage, compiled(classifier()), data)


def seeded_pipeline(stage: Stage) -> dict[str, Any]:
    """Train on a tf.data pipeline that is shuffled anew in each epoch."""
    data = tf.data.Dataset.from_tensor_slices(stage.train).shuffle(100, seed=5).batch(BATCH_SIZE)
    return _fitted(stage, compiled(classifier()), data.prefetch(2))


def resumable_pipeline(stage: Stage) -> dict[str, Any]:
    """Train on a pipeline that is a function of the epoch, with noise that is one, too."""

    def of_epoch(epoch: int) -> tf.data.Dataset:
        data = tf.data.Dataset.from_tensor_slices(stage.train).shuffle(160, seed=epoch)

        def noisy(index: tf.Tensor, each: Any) -> Any:
            image, label = each
            noise = tf.random.stateless_normal(image.shape, tf.stack([epoch, index]), stddev=0.1)
            return image + noise, label

        return data.enumerate().map(noisy).batch(BATCH_SIZE)

    return _fitted(stage, compiled(classifier()), kct.data.resumable(of_epoch))


def everything(stage: Stage) -> dict[str, Any]:
    """Train with all that has state: augmentation, averages, a loss scale, callbacks."""
    keras.config.set_dtype_policy("mixed_float16")
    model = classifier(keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"))
    adam = keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=7)
    scaled = keras.optimizers.LossScaleOptimizer(adam, 2.0**17, dynamic_growth_steps=9)
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", min_delta=0.4, patience=2, restore_best_weights=True
    )
    callbacks = [
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.4),
        stopping,
        keras.callbacks.CSVLogger(stage.path("log.csv")),
        kct.ModelCheckpoint(stage.path("best.keras"), "val_accuracy", save_best_only=True),
        kct.ModelCheckpoint(
            stage.path("{epoch:02d}.weights.h5"), save_weights_only=True, max_to_keep=2
        ),
    ]
    data = kct.data.ArrayDataset(*stage.train, batch_size=BATCH_SIZE, shuffle=True, seed=6)
    left = _fitted(stage, compiled(model, scaled), data, callbacks, validation_data=stage.rest)
    return {
        **left,
        "averages": digest(adam._model_variables_moving_average),
        "stopping": (stopping.wait, float(stopping.best), stopping.stopped_epoch),
        "best weights": digest(stopping.best_weights),
    }


def repeated(stage: Stage) -> dict[str, Any]:
    """Train on a pipeline without an end, whose epochs are cut by `steps_per_epoch`."""
    data = tf.data.Dataset.from_tensor_slices(stage.train).shuffle(70, seed=5)
    return _fitted(
        stage,
        compiled(classifier()),
        # One pass is no multiple of an epoch.
        data.batch(BATCH_SIZE + 3, drop_remainder=True).repeat(),
        steps_per_epoch=BATCHES,
        validation_data=stage.rest,
        validation_freq=2,
    )


def adapters(stage: Stage) -> dict[str, Any]:
    """Fine-tune low-rank adapters (LoRA) of a frozen layer."""
    model = classifier()
    model.layers[1].enable_lora(2)
    data = kct.data.ArrayDataset(*stage.train, batch_size=BATCH_SIZE, shuffle=True, seed=5)
    return _fitted(stage, compiled(model, keras.optimizers.Adam(0.03)), data)


class Autoencoder(keras.Model):
    """A variational autoencoder with a `train_step` of its own, and no `call`."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(8)]
        )
        self.decoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64)])
        self.noise = keras.random.SeedGenerator(4)
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        """Metrics that `fit()` resets."""
        return [self.loss_tracker]

    def train_step(self, data: Any) -> dict[str, Any]:
        """Train on one batch."""
        images = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            mean, spread = tf.split(self.encoder(images), 2, axis=-1)
            drawn = mean + tf.exp(spread) * keras.random.normal(tf.shape(mean), seed=self.noise)
            wrong = self.decoder(drawn) - tf.reshape(images, (-1, 64))
            kept = tf.exp(2 * spread) + mean**2 - 2 * spread - 1
            loss = tf.reduce_mean(wrong**2) + 0.01 * tf.reduce_mean(kept)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}


def autoencoder(stage: Stage) -> dict[str, Any]:
    """Train a model without `call`, whose noise is drawn from a generator of its own."""
    keras.utils.set_random_seed(11)
    model = Autoencoder()
    model.compile(keras.optimizers.Adam(0.01))
    data = kct.data.ArrayDataset(*stage.train, batch_size=BATCH_SIZE, shuffle=True, seed=5)
    return {**_fitted(stage, model, data), "noise": digest([model.noise.state])}


class Adversaries(keras.Model):
    """A GAN as keras.io writes it: two optimizers that are handed to its own `compile`."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64)])
        self.discriminator = keras.Sequential([keras.Input((64,)), keras.layers.Dense(1)])
        self.noise = keras.random.SeedGenerator(4)
        self.d_loss = keras.metrics.Mean(name="d_loss")

    @property
    def metrics(self) -> list[Any]:
        """Metrics that `fit()` resets."""
        return [self.d_loss]

    def compile(self, d_optimizer: Any, g_optimizer: Any, loss_fn: Any) -> None:
        """Take an optimizer for each of the two."""
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    def train_step(self, data: Any) -> dict[str, Any]:
        """Train both on one batch."""
        images = tf.reshape(data[0] if isinstance(data, tuple) else data, (-1, 64))
        size = tf.shape(images)[0]
        drawn = keras.random.normal((size, 4), seed=self.noise)
        labels = tf.concat([tf.ones((size, 1)), tf.zeros((size, 1))], axis=0)
        with tf.GradientTape() as tape:
            both = tf.concat([self.generator(drawn), images], axis=0)
            loss = self.loss_fn(labels, self.discriminator(both))
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            fooled = self.loss_fn(tf.zeros((size, 1)), self.discriminator(self.generator(drawn)))
        weights = self.generator.trainable_weights
        self.g_optimizer.apply(tape.gradient(fooled, weights), weights)
        self.d_loss.update_state(loss)
        return {"d_loss": self.d_loss.result()}


def adversaries(stage: Stage) -> dict[str, Any]:
    """Train two models in one `fit()`, each with an optimizer of its own."""
    keras.utils.set_random_seed(11)
    model = Adversaries()
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.RMSprop(0.01), loss)
    data = kct.data.ArrayDataset(*stage.train, batch_size=BATCH_SIZE, shuffle=True, seed=5)
    left = _fitted(stage, model, data)
    both = (model.d_optimizer, model.g_optimizer)
    return {**left, "optimizers": [digest(one.variables) for one in both]}


def phases(stage: Stage) -> dict[str, Any]:
    """Train a head, unfreeze the rest, compile again, train on: two calls of `fit()`."""
    return _phases(stage, ("head", "fine-tune"))


def counted_phases(stage: Stage) -> dict[str, Any]:
    """The same without names."""
    return _phases(stage, (None, None), delete_checkpoint=False)


def _phases(stage: Stage, names: tuple[Any, Any], **arguments: Any) -> dict[str, Any]:
    model = classifier()
    frozen = model.layers[1]
    data = kct.data.ArrayDataset(*stage.train, batch_size=BATCH_SIZE, shuffle=True, seed=5)
    left: dict[str, Any] = {}
    for number, name in enumerate(names):
        frozen.trainable = bool(number)
        rate = keras.optimizers.SGD(0.001, momentum=0.9) if number else keras.optimizers.Adam(0.01)
        compiled(model, rate)
        first = number * EPOCHS // 2
        tell = Tell(lambda batch, logs, first=first: stage.report(batch + first * BATCHES, logs))
        backup = kct.BackupAndRestore(
            stage.path("backup"), phase=name, **arguments, **stage.arguments
        )
        history = model.fit(data, epochs=EPOCHS // 2, verbose=0, callbacks=[tell, backup])
        left |= {
            f"weights {number}": digest(model.weights),
            f"optimizer {number}": digest(model.optimizer.variables),
            f"history {number}": (history.history, history.epoch),
        }
    return left


def executed_together(stage: Stage) -> dict[str, Any]:
    """Train four batches at a time; an epoch is no multiple of that."""
    data = tf.data.Dataset.from_tensor_slices(stage.train).shuffle(160, seed=5).batch(BATCH_SIZE)
    return _fitted(stage, compiled(classifier(), steps_per_execution=4), data)

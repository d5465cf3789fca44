"""What the demo trains: scikit-learn's digits, and a small CNN with parts of its own.

The residual block, the loss and the metric are ordinary Keras code with one line more: the
decorator gives each the name that saved files call it by, so a fresh process that imports this
module can load what was trained.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from sklearn.datasets import load_digits

import keras_ckpt_tools as kct

CLASSES = 10
BATCH_SIZE = 16
SEED = 7


class Split(NamedTuple):
    """Images of shape (n, 8, 8, 1), `float32` in 0..1, and their digits."""

    images: np.ndarray
    labels: np.ndarray


def splits() -> tuple[Split, Split, Split]:
    """Return 1,200 digits to train on, 297 to validate on and 300 that no training ever sees."""
    bunch = load_digits()
    order = np.random.default_rng(SEED).permutation(len(bunch.target))
    images = (bunch.images[order] / 16.0).astype("float32")[..., np.newaxis]
    labels = bunch.target[order].astype("int32")
    pieces = zip(np.split(images, [1200, 1497]), np.split(labels, [1200, 1497]), strict=True)
    train, validation, held_out = (Split(*piece) for piece in pieces)
    return train, validation, held_out


@kct.register("digits")
class ResidualBlock(keras.layers.Layer):
    """Two convolutions, added to what went in."""

    def __init__(self, filters: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters = filters
        self.first = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")
        self.second = keras.layers.Conv2D(filters, 3, padding="same")

    def build(self, shape: Any) -> None:
        self.first.build(shape)
        self.second.build((*shape[:-1], self.filters))

    def call(self, inputs: Any) -> Any:
        return ops.relu(inputs + self.second(self.first(inputs)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}


@kct.register("digits")
def smoothed_crossentropy(y_true: Any, y_pred: Any) -> Any:
    """Return the cross-entropy against labels that are only 95% sure of themselves."""
    sure = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), CLASSES)
    return keras.losses.categorical_crossentropy(sure, y_pred, label_smoothing=0.05)


@kct.register("digits")
class WorstDigit(keras.metrics.Metric):
    """Accuracy on the digit that is recognised least often."""

    def __init__(self, name: str = "worst_digit", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.seen = self.add_weight(shape=(CLASSES,), initializer="zeros", name="seen")
        self.right = self.add_weight(shape=(CLASSES,), initializer="zeros", name="right")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        truth = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        each = ops.one_hot(truth, CLASSES)
        hit = ops.cast(ops.equal(truth, ops.cast(ops.argmax(y_pred, axis=-1), "int32")), "float32")
        self.seen.assign_add(ops.sum(each, axis=0))
        self.right.assign_add(ops.sum(each * hit[:, None], axis=0))

    def result(self) -> Any:
        return ops.min(self.right / ops.maximum(self.seen, 1.0))


def build_model() -> keras.Model:
    """Return the CNN, compiled, with the same first weights each time."""
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            ResidualBlock(16),
            keras.layers.MaxPooling2D(),
            ResidualBlock(16),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ],
        name="digits",
    )
    model.compile(
        keras.optimizers.Adam(2e-3), smoothed_crossentropy, metrics=["accuracy", WorstDigit()]
    )
    return model


def tell(event: str, **facts: Any) -> None:
    """Tell the demo, which reads this process' output, what has happened."""
    print(json.dumps({"event": event, **facts}), flush=True)

"""Write what `keras.callbacks.OrbaxCheckpoint` saves, into two folders.

It takes Keras 3.15 or newer and `orbax-checkpoint`; reading takes neither:

    .venv/bin/pip install orbax-checkpoint
    .venv/bin/python tests/files/orbax/make.py

`whole` has two steps of a model with config, optimizer, assets, seed generators and a custom class;
`weights` has one of the same model with `save_weights_only=True`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
HERE = Path(__file__).parent

WORDS = ["red", "green", "blue"]


def build():
    """Return the model, compiled."""
    import keras

    @keras.saving.register_keras_serializable("paints")
    class Tint(keras.layers.Layer):
        """A factor."""

        def build(self, shape):
            self.factor = self.add_weight(shape=(), initializer="ones", name="factor")

        def call(self, x):
            return x * self.factor

    words = keras.Input((1,), dtype="string", name="words")
    numbers = keras.Input((3,), name="numbers")
    lookup = keras.layers.StringLookup(output_mode="one_hot")
    lookup.adapt(WORDS)
    found = lookup(words)
    x = keras.layers.Concatenate()([found, numbers])
    x = keras.layers.Dense(4, activation="relu")(x)
    x = keras.layers.Dropout(0.25)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(x)
    x = Tint()(x)
    model = keras.Model([words, numbers], keras.layers.Dense(1)(x), name="painter")
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model, Tint


def data():
    """Return inputs and targets."""
    import numpy as np

    rng = np.random.default_rng(1)
    words = np.array([["red"], ["blue"], ["pink"], ["green"]], dtype=object)
    return [words, rng.random((4, 3), "float32")], rng.random((4, 1), "float32")


def main() -> None:
    """Write both folders anew."""
    import keras
    import numpy as np
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    model, _ = build()
    (words, numbers), y = data()
    rows = tf.data.Dataset.from_tensor_slices(((words.astype(str), numbers), y)).batch(2)
    for name, epochs in (("whole", 2), ("weights", 1)):
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        callback = keras.callbacks.OrbaxCheckpoint(
            str(folder),
            max_to_keep=2,
            save_on_background=False,
            save_weights_only=name == "weights",
        )
        model.fit(rows, epochs=epochs, verbose=0, callbacks=[callback])
        answers = model([tf.constant(words.astype(str)), tf.constant(numbers)]).numpy()
        np.save(HERE / f"{name}.npy", answers)


if __name__ == "__main__":
    sys.exit(main())

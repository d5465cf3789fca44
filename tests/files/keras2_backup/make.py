"""Write backups as the programs of the Keras 2 days left them: runs that were really interrupted.

They cannot be written by a Keras that this package supports. Run it with Python 3.11, TensorFlow
2.15 and the Keras that comes with it, in an environment of their own:

    pip install "tensorflow-cpu==2.15.*"
    python tests/files/keras2_backup/make.py tests/files/keras2_backup

A folder that is there is left alone. `expected.npz` holds what stock Keras 2 restores from each:
weights and optimizer, and the losses of the epochs that follow.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

keras = tf.keras
EPOCHS = 4


def data():
    """Return four batches of four."""
    x = np.random.default_rng(3).normal(size=(16, 4)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


class Blocks(keras.Model):
    """A subclassed model, with layers in a list and in a dict."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(8, activation="relu")
        self.blocks = [keras.layers.Dense(8), keras.layers.BatchNormalization()]
        self.heads = {"one": keras.layers.Dense(1)}

    def call(self, inputs, training=False):
        """Go through the blocks."""
        x = self.first(inputs)
        for block in self.blocks:
            x = block(x, training=training) if block is self.blocks[1] else block(x)
        return self.heads["one"](x)


def sequential():
    """Return a sequential model."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu"),
            layers.Dropout(0.0),
            layers.BatchNormalization(),
            layers.Dense(1),
        ]
    )


def functional():
    """Return a functional model with a cell, and two layers of one shape, one of them named."""
    layers = keras.layers
    inputs = keras.Input((4,))
    one = layers.Dense(8, activation="tanh")(inputs)
    two = layers.Dense(8, activation="tanh", name="zwei")(inputs)
    cell = layers.LSTM(3)(layers.Reshape((8, 1))(one))
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([cell, two])))


def subclassed():
    """Return a subclassed model, built."""
    model = Blocks()
    model(np.zeros((1, 4), "float32"))
    return model


CASES = {
    "sequential-adam": (sequential, lambda: keras.optimizers.Adam(0.01), "epoch"),
    "functional-sgd": (functional, lambda: keras.optimizers.SGD(0.05, 0.9), "epoch"),
    "subclassed-legacy_adam": (
        subclassed,
        lambda: keras.optimizers.legacy.Adam(0.01, amsgrad=True),
        "epoch",
    ),
    "sequential-legacy_sgd-batches": (
        sequential,
        lambda: keras.optimizers.legacy.SGD(0.05, 0.9),
        3,
    ),
    "functional-rmsprop-schedule": (
        functional,
        lambda: keras.optimizers.RMSprop(
            keras.optimizers.schedules.ExponentialDecay(0.01, 4, 0.9), momentum=0.5, centered=True
        ),
        "epoch",
    ),
}


class Kill(keras.callbacks.Callback):
    """Kill the process in the third epoch, at its second batch."""

    def on_epoch_begin(self, epoch, logs=None):
        """Note the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Kill."""
        if (self.epoch, batch) == (2, 2):
            os.kill(os.getpid(), signal.SIGKILL)


class Look(keras.callbacks.Callback):
    """Note what was restored, before the first batch, as Keras 2 has it."""

    def on_epoch_begin(self, epoch, logs=None):
        """Note it once."""
        if hasattr(self, "found"):
            return
        model = self.model
        self.found = [v.numpy() for v in model.weights]
        optimizer = model.optimizer
        # Keras 2 restores what an optimizer has when it is made, which is at the first update.
        build = getattr(optimizer, "_create_all_weights", None) or optimizer.build
        build(model.trainable_variables)
        variables = optimizer.variables
        variables = variables() if callable(variables) else variables
        self.optimizer = [np.asarray(v) for v in variables]
        self.epoch = epoch


def fit(case, directory, *callbacks):
    """Train."""
    build, optimizer, save_freq = CASES[case]
    keras.utils.set_random_seed(7)
    model = build()
    model.compile(optimizer(), "mse")
    backup = keras.callbacks.BackupAndRestore(directory, save_freq=save_freq)
    x, y = data()
    return model.fit(
        x,
        y,
        batch_size=4,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[backup, *callbacks],
    )


def make(case, folder):
    """Write one backup and what stock Keras 2 makes of it."""
    directory = os.path.join(folder, case)
    if os.path.exists(directory):
        return
    child = os.fork()
    if not child:
        fit(case, directory, Kill())
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    child = os.fork()
    if not child:
        with tempfile.TemporaryDirectory() as temporary:
            copy = os.path.join(temporary, "copy")
            shutil.copytree(directory, copy)
            look = Look()
            history = fit(case, copy, look)
            arrays = {f"weights/{i}": a for i, a in enumerate(look.found)}
            arrays |= {f"optimizer/{i}": a for i, a in enumerate(look.optimizer)}
            np.savez_compressed(
                os.path.join(directory, "expected.npz"),
                loss=np.array(history.history["loss"]),
                epoch=look.epoch,
                **arrays,
            )
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def save_weights(folder):
    """Write weights in TensorFlow's format, as `save_weights` did by default, and their values."""
    if os.path.exists(folder):
        return
    keras.utils.set_random_seed(7)
    model = sequential()
    model.compile("adam", "mse")
    model.fit(*data(), batch_size=4, verbose=0)
    model.save_weights(os.path.join(folder, "cp.ckpt"))
    arrays = {f"weights/{i}": v.numpy() for i, v in enumerate(model.weights)}
    np.savez_compressed(os.path.join(folder, "expected.npz"), **arrays)


def main():
    """Write all of them."""
    for case in CASES:
        make(case, sys.argv[1])
    save_weights(os.path.join(sys.argv[1], "save_weights"))


if __name__ == "__main__":
    main()

"""Makes the files of Keras 2 in this folder, with `tf-keras` in an environment of its own.

    python -m venv /some/where && /some/where/bin/pip install tf-keras==2.18.0 tensorflow==2.18.0
    TF_USE_LEGACY_KERAS=1 /some/where/bin/python tests/files/keras2/make.py

Beside each model `NAME.h5` stands `NAME.npz` with an input `x` (`x0`, `x1` where there are several)
and what the model made of it, `y0`, `y1`, ... The same for the models of `zoo.py`, in `zoo/`, which
are saved as `.keras` too. Those of `trained.py`, in `trained/`, have beside them what their weights
are after one more step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tf_keras as keras
import trained
import zoo

HERE = Path(__file__).parent
layers = keras.layers


class Scale(layers.Layer):
    """Multiplies by a weight; not registered."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape):
        self.gain = self.add_weight("gain", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.gain * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def sequential():
    """A compiled and trained one."""
    model = keras.Sequential(
        [layers.Dense(3, activation="relu", input_shape=(4,)), layers.Dense(2)], name="net"
    )
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((8, 4), "float32"), np.ones((8, 2), "float32"), verbose=0)
    return model, [(4,)]


def functional():
    """Two inputs, two outputs, a layer that is shared."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(3, name="shared")
    both = layers.concatenate([shared(a), shared(b)])
    outputs = [layers.Dense(1, name="one")(both), layers.Dense(2, name="two")(both)]
    return keras.Model([a, b], outputs, name="net"), [(4,), (4,)]


def custom():
    """A layer of the user's own."""
    return keras.Sequential([keras.Input((4,)), Scale(3.0), layers.Dense(2)], name="net"), [(4,)]


def recurrent():
    """LSTM, GRU, in both directions."""
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
            layers.GRU(3),
        ],
        name="net",
    )
    return model, [(5, 3)]


def convolutional():
    """Convolutions, pooling, batch normalization, dropout."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(2, 3, padding="same", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(2, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(2, activation="softmax"),
        ],
        name="net",
    )
    return model, [(8, 8, 1)]


def nested():
    """A model within a model."""
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="inner")
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(1)(inner(x)), name="net"), [(4,)]


def embedding():
    """Words, masked."""
    model = keras.Sequential(
        [keras.Input((5,)), layers.Embedding(10, 3, mask_zero=True), layers.LSTM(2)], name="net"
    )
    return model, [(5,)]


def normalized():
    """Preprocessing that was adapted."""
    normalization = layers.Normalization(axis=-1)
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)).astype("float32"))
    return keras.Sequential([keras.Input((4,)), normalization, layers.Dense(1)], name="net"), [(4,)]


# In `.keras`, which has the numbers without their names, one of each order.
IN_KERAS = ("adam", "adam_amsgrad", "adam_older", "averaged", "rmsprop", "sgd", "sgd_momentum")


def outputs_of(model, inputs):
    """Return what a model makes of its inputs, as a list."""
    named = isinstance(model.input, dict)
    given = dict(zip(model.input, inputs, strict=True)) if named else inputs
    outputs = model(given if named or len(inputs) > 1 else inputs[0], training=False)
    if isinstance(outputs, dict):
        outputs = [outputs[name] for name in sorted(outputs)]
    return [np.asarray(y) for y in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]


def make_zoo(folder):
    """Make the models of many kinds of layers; their numbers are those of no fresh layer."""
    folder.mkdir(exist_ok=True)
    for make in zoo.ZOO:
        keras.backend.clear_session()
        keras.utils.set_random_seed(1)
        model, inputs = make()
        random = np.random.default_rng(5)
        for weight in model.weights:
            if weight.dtype.is_floating:
                weight.assign(weight + random.uniform(0.01, 0.1, weight.shape))
        outputs = outputs_of(model, inputs)
        if any(getattr(layer, "stateful", False) for layer in model.layers):
            model.reset_states()
        named = {f"x{i}": x for i, x in enumerate(inputs)}
        named |= {f"y{i}": y for i, y in enumerate(outputs)}
        np.savez_compressed(folder / f"{make.__name__}.npz", **named)
        model.save(folder / f"{make.__name__}.h5")
        model.save(folder / f"{make.__name__}.keras")


def make_trained(folder):
    """Make the models that were trained."""
    folder.mkdir(exist_ok=True)
    for name, make in trained.OPTIMIZERS.items():
        keras.backend.clear_session()
        keras.utils.set_random_seed(1)
        model = trained.trained(make())
        model.save(folder / f"{name}.h5")
        if name in IN_KERAS:
            model.save(folder / f"{name}.keras")
        model.train_on_batch(*trained.batch())
        weights = {w.name.partition(":")[0].replace("/", "."): w.numpy() for w in model.weights}
        np.savez_compressed(folder / f"{name}.npz", **weights)


def make_weights(folder):
    """Make files of weights alone: what is frozen is listed after what is trained."""
    folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(1)
    inner = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="frozen"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(3, name="trained"),
        ],
        name="inner",
    )
    inner.layers[0].trainable = False
    model = keras.Sequential(
        [keras.Input((4,)), inner, layers.Dense(3), layers.Dense(2, name="head")], name="net"
    )
    for weight in model.weights:
        weight.assign(weight + np.random.default_rng(5).uniform(0.01, 0.1, weight.shape))
    x = np.random.default_rng(6).normal(0, 1, (2, 4)).astype("float32")
    model.save_weights(folder / "weights.hdf5", save_format="h5")
    np.savez_compressed(folder / "weights.npz", x0=x, y0=model(x).numpy())


def main():
    """Make them all."""
    make_weights(HERE / "weights")
    make_zoo(HERE / "zoo")
    make_trained(HERE / "trained")
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(2)
    if "all" not in sys.argv:
        return  # Those below were made first, and tests know their numbers.
    makers = (sequential, functional, custom, recurrent, convolutional, nested, embedding,
              normalized)  # fmt: skip
    for make in makers:
        model, shapes = make()
        inputs = [random.integers(0, 9, (2, *shape)).astype("float32") for shape in shapes]
        outputs = model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        named = {f"x{i}": x for i, x in enumerate(inputs)}
        named |= {f"y{i}": y for i, y in enumerate(outputs)}
        np.savez_compressed(HERE / f"{make.__name__}.npz", **named)
        model.save(HERE / f"{make.__name__}.h5")


if __name__ == "__main__":
    main()

"""The models that each version of Keras saved for `tests/data/writers`, in code that runs on all.

Each function returns a model that is built, and trained where its name says so; `CUSTOM` has the
classes and functions that a load needs. Weights are drawn from a seed of their own, so that a model
of another version or backend can be built to load them into.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

layers = keras.layers
KINDS: dict[str, Any] = {}
KERAS_3 = int(keras.__version__.split(".")[0]) >= 3


def kind(make: Any) -> Any:
    KINDS[make.__name__] = make
    return make


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def inputs_of(name: str) -> Any:
    """Return what a model predicts from."""
    if name in ("images", "convolutional", "augmented"):
        return numbers(2, 8, 8, 3)
    if name in ("recurrent", "cells", "attention", "stateful", "separable_1d"):
        return numbers(2, 5, 4)
    if name in ("embedded",):
        return np.array([[1, 2, 3], [4, 0, 0]], "int32")
    if name == "integers":
        return np.array([[1], [7]], "int64")
    if name == "two_inputs":
        return [numbers(2, 4), numbers(2, 3, seed=1)]
    return numbers(2, 4)


class Scale(layers.Layer):
    """A layer of the user's own."""

    def __init__(self, factor: float = 2.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")
        super().build(shape)

    def call(self, x: Any) -> Any:
        return x * self.gain * self.factor

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


class Twice(keras.Model):
    """A subclassed model."""

    def __init__(self, units: int = 3, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.one = layers.Dense(units, name="one")
        self.blocks = [layers.Dense(units, name="a"), layers.Dense(units, name="b")]
        self.norm = layers.BatchNormalization(name="norm")

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.one(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def far(y_true: Any, y_pred: Any) -> Any:
    """A loss of the user's own."""
    return (y_true - y_pred) ** 2


CUSTOM = {"Scale": Scale, "Twice": Twice, "far": far}


def of(shape: Any, *stack: Any, **options: Any) -> Any:
    return keras.Sequential([keras.Input(shape, **options), *stack], name="net")


def fitted(model: Any, x: Any, optimizer: Any = "adam", loss: Any = "mse", **more: Any) -> Any:
    model.compile(optimizer, loss, **more)
    outputs = model(x)
    flat = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    targets = [np.zeros(tuple(y.shape), "float32") for y in flat]
    model.fit(x, targets if len(targets) > 1 else targets[0], epochs=2, verbose=0)
    return model


@kind
def plain() -> Any:
    return of((4,), layers.Dense(3, "relu"), layers.Dense(2))


@kind
def trained() -> Any:
    model = of((4,), layers.Dense(3, "relu"), layers.Dense(2))
    return fitted(model, numbers(8, 4), metrics=["mae"])


@kind
def trained_sgd() -> Any:
    rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    return fitted(of((4,), layers.Dense(2)), numbers(8, 4), optimizer, keras.losses.Huber())


@kind
def trained_nadam() -> Any:
    return fitted(of((4,), layers.Dense(2)), numbers(8, 4), keras.optimizers.Nadam(0.01))


@kind
def trained_rmsprop() -> Any:
    optimizer = keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True)
    return fitted(of((4,), layers.Dense(2)), numbers(8, 4), optimizer, "mae")


@kind
def trained_mixed() -> Any:
    """Mixed precision: the optimizer is wrapped into one that scales the loss."""
    mixed = keras.mixed_precision
    before = mixed.global_policy() if hasattr(mixed, "global_policy") else mixed.dtype_policy()
    put = getattr(mixed, "set_global_policy", None) or mixed.set_dtype_policy
    put("mixed_float16")
    try:
        model = of((4,), layers.Dense(3), layers.Dense(2, dtype="float32"))
        return fitted(model, numbers(8, 4))
    finally:
        put(before)


@kind
def dropped() -> Any:
    """Dropout has the state of a random generator."""
    model = of((4,), layers.Dense(3), layers.Dropout(0.5, seed=3), layers.Dense(2))
    return fitted(model, numbers(8, 4))


@kind
def frozen_after() -> Any:
    """Transfer learning: frozen after training, saved before it is compiled again."""
    model = fitted(of((4,), layers.Dense(3), layers.Dense(2)), numbers(8, 4))
    model.layers[0].trainable = False
    return model


@kind
def frozen_before() -> Any:
    model = of((4,), layers.Dense(3), layers.BatchNormalization(), layers.Dense(2))
    model.layers[0].trainable = False
    return fitted(model, numbers(8, 4))


@kind
def two_inputs() -> Any:
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    shared = layers.Dense(3, name="shared")
    x = layers.Add()([shared(a), b])
    y = layers.Concatenate()([shared(a), b])
    return keras.Model([a, b], [layers.Dense(1, name="p")(x), layers.Dense(2, name="q")(y)])


@kind
def nested() -> Any:
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="deep"), layers.BatchNormalization(name="bn")],
        name="inner",
    )
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(1, name="out")(inner(x)), name="outer")


@kind
def convolutional() -> Any:
    stack = [
        layers.Conv2D(3, 3, padding="same", kernel_regularizer="l2", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(max_value=6.0),
        layers.DepthwiseConv2D(3),
        layers.SeparableConv2D(2, 2),
        layers.Conv2DTranspose(2, 2),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2, "softmax"),
    ]
    return fitted(of((8, 8, 3), *stack), numbers(4, 8, 8, 3), "sgd", "categorical_crossentropy")


@kind
def recurrent() -> Any:
    stack = [
        layers.Bidirectional(layers.LSTM(2, return_sequences=True), merge_mode="concat"),
        layers.GRU(3, return_sequences=True),
        layers.SimpleRNN(2),
    ]
    return of((5, 4), *stack)


@kind
def cells() -> Any:
    cell = layers.StackedRNNCells([layers.LSTMCell(2), layers.GRUCell(3)])
    return of((5, 4), layers.RNN(cell), layers.Dense(1))


@kind
def separable_1d() -> Any:
    return of((5, 4), layers.SeparableConv1D(3, 2), layers.TimeDistributed(layers.Dense(2)))


@kind
def attention() -> Any:
    x = keras.Input((5, 4), name="x")
    y = layers.MultiHeadAttention(2, 3, name="heads")(x, x)
    y = layers.LayerNormalization(name="norm")(layers.Add()([x, y]))
    return fitted(keras.Model(x, layers.Dense(1, name="out")(y)), numbers(4, 5, 4))


@kind
def embedded() -> Any:
    return of((3,), layers.Embedding(6, 4, mask_zero=True), layers.LSTM(2), dtype="int32")


@kind
def normalized() -> Any:
    normalization = layers.Normalization(name="norm")
    normalization.adapt(numbers(16, 4, seed=9) * 3 + 1)
    return of((4,), normalization, layers.Dense(1))


@kind
def binned() -> Any:
    bins = layers.Discretization(bin_boundaries=[-1.0, 0.0, 1.0])
    return of((4,), bins, layers.CategoryEncoding(4, "multi_hot"), layers.Dense(1))


@kind
def images() -> Any:
    stack = [layers.Rescaling(1 / 255), layers.Resizing(6, 6), layers.CenterCrop(4, 4)]
    return of((8, 8, 3), *stack, layers.Flatten(), layers.Dense(1))


@kind
def augmented() -> Any:
    stack = [layers.RandomFlip(seed=1), layers.RandomRotation(0.1, seed=2)]
    return of((8, 8, 3), *stack, layers.Flatten(), layers.Dense(1))


@kind
def integers() -> Any:
    lookup = layers.IntegerLookup(vocabulary=[1, 2, 7], output_mode="one_hot")
    return of((1,), lookup, layers.Dense(2), dtype="int64")


@kind
def custom_layer() -> Any:
    return fitted(of((4,), Scale(3.0, name="scale"), layers.Dense(2)), numbers(8, 4), loss=far)


@kind
def subclassed() -> Any:
    model = Twice(name="twice")
    return fitted(model, numbers(8, 4))


@kind
def wrapped() -> Any:
    return of((4,), layers.SpectralNormalization(layers.Dense(3)), layers.Dense(1))


@kind
def activations() -> Any:
    names = ["elu", "selu", "softplus", "tanh", "sigmoid", "exponential", "linear", "swish"]
    more = [layers.LeakyReLU(), layers.PReLU(), layers.Softmax()]
    return of((4,), *(layers.Dense(4, n, kernel_initializer="he_normal") for n in names), *more)


@kind
def operations() -> Any:
    x = keras.Input((4,), name="x")
    if KERAS_3:
        y = keras.ops.relu(x) + 1.0
        return keras.Model(x, layers.Dense(1)(keras.ops.concatenate([y, x[:, :2]], axis=-1)))
    import tensorflow as tf

    return keras.Model(x, layers.Dense(1)(tf.concat([tf.nn.relu(x) + 1.0, x[:, :2]], axis=-1)))


@kind
def quantized() -> Any:
    model = of((4,), layers.Dense(3), layers.Dense(2))
    model.quantize("int8")
    return model


@kind
def adapted_lora() -> Any:
    model = of((4,), layers.Dense(3), layers.Dense(2))
    model.layers[0].enable_lora(2)
    return fitted(model, numbers(8, 4))

"""Good models of every shape that people save: what a gate must never refuse.

Each function returns a model, its inputs and the custom objects that a load needs. Nothing is
registered anywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

Built = tuple[keras.Model, Any, dict[str, Any]]
GOOD: dict[str, Callable[[], Built]] = {}
NEEDS_ARCHIVE = set()
"""Models with state that `.h5` has no place for."""

_RANDOM = np.random.default_rng(5)


def _numbers(*shape: int) -> np.ndarray:
    return _RANDOM.normal(size=(2, *shape)).astype("float32")


def _words(*shape: int) -> np.ndarray:
    return _RANDOM.integers(1, 5, (2, *shape)).astype("int32")


def _good(make: Callable[[], Any]) -> Callable[[], Any]:
    def build() -> Built:
        made = make()
        return made if len(made) == 3 else (*made, {})

    GOOD[make.__name__.strip("_")] = build
    return make


def _archived(make: Callable[[], Any]) -> Callable[[], Any]:
    NEEDS_ARCHIVE.add(make.__name__.strip("_"))
    return _good(make)


def _of(shape: tuple[int, ...], *stack: Any) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *stack], name="net")


class Scale(layers.Layer):
    """A layer of the user's own, with an argument that is an object."""

    def __init__(self, factor: float = 2.0, activation: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.factor = factor
        self.activation = keras.activations.get(activation)

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, x: Any) -> Any:
        return self.activation(x * self.gain * self.factor)

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "factor": self.factor, "activation": activation}


class Twice(keras.Model):
    """A subclassed model."""

    def __init__(self, units: int = 3, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.one, self.two = layers.Dense(units), layers.Dense(units)

    def call(self, x: Any) -> Any:
        return self.two(self.one(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def bent(x: Any) -> Any:
    """An activation of the user's own."""
    return keras.ops.maximum(x, 0.1 * x)


def soft(y_true: Any, y_pred: Any) -> Any:
    """A loss of the user's own."""
    return keras.ops.mean(keras.ops.square(keras.ops.subtract(y_true, y_pred)))


@_good
def _sequential() -> Any:
    return _of((4,), layers.Dense(3, "relu"), layers.Dense(2)), _numbers(4)


@_good
def _trained() -> Any:
    model = _of((4,), layers.Dense(3), layers.Dense(2))
    model.compile("adam", "mse", metrics=["mae", "accuracy"])
    model.fit(_numbers(4), _numbers(2), verbose=0)
    return model, _numbers(4)


@_good
def _schedule() -> Any:
    model = _of((4,), layers.Dense(2))
    rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), keras.losses.Huber())
    return model, _numbers(4)


@_archived
def _losses_by_name() -> Any:
    x = keras.Input((4,))
    model = keras.Model(x, {"a": layers.Dense(1, name="a")(x), "b": layers.Dense(2, name="b")(x)})
    losses = {"a": "mse", "b": keras.losses.CategoricalCrossentropy(from_logits=True)}
    model.compile("rmsprop", losses, loss_weights={"a": 0.5, "b": 1.0},
                  metrics={"b": [keras.metrics.TopKCategoricalAccuracy(1)]})  # fmt: skip
    return model, _numbers(4)


@_good
def _functional() -> Any:
    a, b = keras.Input((4,)), keras.Input((3,))
    shared = layers.Dense(3, name="shared")
    x = layers.add([shared(a), b])
    y = layers.concatenate([shared(a), b])
    return keras.Model([a, b], [layers.Dense(1)(x), layers.Dense(2)(y)]), [_numbers(4), _numbers(3)]


@_good
def _nested() -> Any:
    inner = _of((4,), layers.Dense(3), layers.BatchNormalization())
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(1)(inner(x))), _numbers(4)


@_good
def _nested_twice() -> Any:
    inner = _of((4,), _of((4,), layers.Dense(4, name="deep")))
    return _of((4,), inner, layers.Dense(1)), _numbers(4)


@_archived
def _operations() -> Any:
    x = keras.Input((4,))
    y = keras.ops.relu(keras.ops.matmul(x, keras.ops.ones((4, 2)))) + 1.0
    z = keras.ops.concatenate([y[:, :1], keras.ops.mean(x, axis=1, keepdims=True)], axis=-1)
    return keras.Model(x, z * 2.0), _numbers(4)


@_good
def _custom_layer() -> Any:
    return _of((4,), Scale(3.0, bent), layers.Dense(2, bent)), _numbers(4), {
        "Scale": Scale, "bent": bent}  # fmt: skip


@_archived
def _custom_loss() -> Any:
    model = _of((4,), layers.Dense(2))
    model.compile("adam", soft, metrics=[soft])
    return model, _numbers(4), {"soft": soft}


@_archived
def _subclassed() -> Any:
    model = Twice(name="net")
    x = _numbers(4)
    model(x)
    return model, x, {"Twice": Twice}


@_archived
def _functional_subclass() -> Any:
    class Named(keras.Model):
        pass

    x = keras.Input((4,))
    return Named(x, layers.Dense(2)(x), name="net"), _numbers(4), {"Named": Named}


@_good
def _convolutional() -> Any:
    stack = [
        layers.Conv2D(3, 3, padding="same", kernel_regularizer="l2", bias_constraint="non_neg"),
        layers.BatchNormalization(),
        layers.ReLU(max_value=6.0),
        layers.DepthwiseConv2D(3, depthwise_regularizer=keras.regularizers.L1L2(0.1, 0.2)),
        layers.GroupNormalization(1),
        layers.MaxPooling2D(),
        layers.Conv2DTranspose(2, 2),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.3),
        layers.Dense(2, "softmax"),
    ]
    return _of((8, 8, 1), *stack), _numbers(8, 8, 1)


@_good
def _convolutions_1d_and_3d() -> Any:
    x, y = keras.Input((8, 2)), keras.Input((5, 5, 5, 1))
    a = layers.GlobalMaxPooling1D()(layers.SeparableConv1D(3, 2)(layers.ZeroPadding1D(1)(x)))
    b = layers.Flatten()(layers.AveragePooling3D(2)(layers.Conv3D(2, 2)(y)))
    return keras.Model([x, y], [a, b]), [_numbers(8, 2), _numbers(5, 5, 5, 1)]


@_good
def _recurrent() -> Any:
    stack = [
        layers.Bidirectional(layers.LSTM(2, return_sequences=True), merge_mode="sum"),
        layers.GRU(3, return_sequences=True, reset_after=False),
        layers.SimpleRNN(2),
    ]
    return _of((5, 3), *stack), _numbers(5, 3)


@_good
def _cells() -> Any:
    cell = layers.StackedRNNCells([layers.LSTMCell(2), layers.GRUCell(3)])
    return _of((5, 3), layers.RNN(cell)), _numbers(5, 3)


@_good
def _convolutional_recurrent() -> Any:
    return _of((3, 6, 6, 1), layers.ConvLSTM2D(2, 3)), _numbers(3, 6, 6, 1)


@_good
def _distributed() -> Any:
    inner = layers.TimeDistributed(layers.TimeDistributed(layers.Dense(2)))
    return _of((3, 4, 5), inner), _numbers(3, 4, 5)


@_good
def _embedding() -> Any:
    stack = [layers.Embedding(10, 3, mask_zero=True), layers.LSTM(2)]
    return _of((5,), *stack), _words(5)


@_archived  # In `.h5`, Keras takes its `score_mode` for the function `dot`.
def _attention() -> Any:
    x = keras.Input((5, 4))
    y = layers.MultiHeadAttention(2, 2)(x, x, use_causal_mask=True)
    y = layers.LayerNormalization()(x + layers.Dense(4, "gelu")(y))
    return keras.Model(x, layers.Attention()([y, y])), _numbers(5, 4)


@_good
def _einsum() -> Any:
    return _of((3, 4), layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")), _numbers(3, 4)


@_good
def _spectral() -> Any:
    return _of((4,), layers.SpectralNormalization(layers.Dense(3))), _numbers(4)


@_good
def _initializers() -> Any:
    kernels = ["he_normal", "orthogonal", keras.initializers.VarianceScaling(0.5),
               "lecun_uniform", keras.initializers.Constant(0.2),
               keras.initializers.RandomNormal(seed=3)]  # fmt: skip
    return _of((4,), *(layers.Dense(4, kernel_initializer=k) for k in kernels)), _numbers(4)


@_good
def _activations() -> Any:
    names = ["gelu", "silu", "tanh", "softplus", "leaky_relu", "hard_sigmoid", "selu"]
    more = [layers.PReLU(), layers.ELU(0.5), layers.Softmax(), layers.Activation("mish")]
    return _of((4,), *(layers.Dense(4, n) for n in names), *more), _numbers(4)


@_archived
def _mixed_precision() -> Any:
    policy = keras.DTypePolicy("mixed_float16")
    return _of((4,), layers.Dense(3, dtype=policy), layers.Dense(1, dtype="float32")), _numbers(4)


@_archived
def _bfloat16() -> Any:
    return _of((4,), layers.Dense(3, dtype="bfloat16")), _numbers(4)


@_archived
def _quantized() -> Any:
    model = _of((4,), layers.Dense(3), layers.Dense(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says that an `InputLayer` is not quantized.
        model.quantize("int8")
    return model, _numbers(4)


@_archived
def _unbuilt() -> Any:
    return keras.Sequential([layers.Dense(3), layers.Dense(2)], name="net"), None


@_archived
def _string_lookup() -> Any:
    x = keras.Input((1,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["a", "b", "\u00e4"], output_mode="one_hot")
    return keras.Model(x, layers.Dense(2)(lookup(x))), _strings("a", "\u00e4")


@_archived
def _text() -> Any:
    vectorize = layers.TextVectorization(output_sequence_length=4)
    vectorize.adapt(["the cat sat", "on the mat"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), vectorize,
                              layers.Embedding(20, 2)])  # fmt: skip
    return model, _strings("the mat", "a cat")


@_archived
def _integer_lookup() -> Any:
    return _of((3,), layers.IntegerLookup(vocabulary=[1, 2, 7])), _words(3)


def _strings(*words: str) -> Any:
    return keras.ops.convert_to_tensor([[word] for word in words], dtype="string")


@_archived
def _normalized() -> Any:
    normalization = layers.Normalization()
    normalization.adapt(_numbers(4) * 3 + 1)
    return _of((4,), normalization, layers.Dense(1)), _numbers(4)


@_archived
def _bins() -> Any:
    discretization = layers.Discretization(bin_boundaries=[-1.0, 0.0, 1.0])
    return _of((4,), discretization, layers.CategoryEncoding(4, "multi_hot")), _numbers(4)


@_archived
def _images() -> Any:
    stack = [layers.Rescaling(1 / 255), layers.Resizing(6, 6), layers.CenterCrop(4, 4),
             layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomZoom(0.1)]  # fmt: skip
    return _of((8, 8, 3), *stack), _numbers(8, 8, 3)


@_archived
def _lambda_by_name() -> Any:
    return _of((4,), layers.Lambda(bent)), _numbers(4), {"bent": bent}


@_good
def _shapes() -> Any:
    stack = [layers.Reshape((2, 2)), layers.Permute((2, 1)), layers.RepeatVector(2),
             layers.UpSampling1D(2), layers.Cropping1D(1)]  # fmt: skip
    return _of((4,), stack[0], stack[1], layers.Flatten(), stack[2], stack[3], stack[4]), _numbers(
        4
    )


@_good
def _frozen() -> Any:
    model = _of((4,), layers.Dense(3), layers.BatchNormalization(), layers.Dense(2))
    model.layers[0].trainable = False
    model.compile(keras.optimizers.AdamW(0.01, clipnorm=1.0, use_ema=True), "mse")
    model.train_on_batch(_numbers(4), _numbers(2))
    return model, _numbers(4)


@_good
def _no_weights() -> Any:
    return _of((4,), layers.ReLU()), _numbers(4)

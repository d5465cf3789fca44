"""One small instance of each of Keras' layers, to be trained; and what it is trained on.

The classes are found by looking into `keras.layers`. A class that is not in the table is made
without arguments and given the first of several inputs that it takes; if that does not work, the
tests fail until somebody has looked at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

BATCH = 4
VECTOR, ROWS, IMAGE, VIDEO = (8,), (6, 3), (8, 8, 3), (4, 8, 8, 3)

# These cannot be trained alone, or not on TensorFlow.
LEFT_OUT = {
    "FlaxLayer": "needs Flax",
    "InputLayer": "computes nothing",
    "JaxLayer": "needs JAX",
    "Layer": "computes nothing",
    "MaxNumBoundingBoxes": "takes bounding boxes, and has no state",
    "TFSMLayer": "needs a SavedModel",
    "TorchModuleWrapper": "needs PyTorch",
    "Wrapper": "computes nothing",
}


def _two(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [shape, shape]


def _rnn(cell: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: layers.RNN(cell(), stateful=True)


def _normalization() -> Any:
    layer = layers.Normalization(mean=0.5, variance=2.0)
    layer.build((BATCH, *VECTOR))  # Inside the trial run of another model it cannot be.
    return layer


# By name: how it is made, and the shape of a sample, or several.
CASES: dict[str, tuple[Callable[[], Any], Any]] = {
    "Activation": (lambda: layers.Activation("relu"), VECTOR),
    "AdditiveAttention": (lambda: layers.AdditiveAttention(dropout=0.3), _two(ROWS)),
    "AlphaDropout": (lambda: layers.AlphaDropout(0.3), VECTOR),
    "Attention": (lambda: layers.Attention(use_scale=True, dropout=0.3), _two(ROWS)),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(2, stateful=True)), ROWS),
    "CategoryEncoding": (lambda: layers.CategoryEncoding(5), "numbers"),
    "CenterCrop": (lambda: layers.CenterCrop(4, 4), IMAGE),
    "Discretization": (lambda: layers.Discretization([0.2, 0.6]), VECTOR),
    "Dot": (lambda: layers.Dot(1), _two(VECTOR)),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cd->abd", (6, 4), bias_axes="d"), ROWS),
    "Embedding": (lambda: layers.Embedding(5, 2), "numbers"),
    "GaussianDropout": (lambda: layers.GaussianDropout(0.3), VECTOR),
    "GaussianNoise": (lambda: layers.GaussianNoise(0.3), VECTOR),
    "GroupNormalization": (lambda: layers.GroupNormalization(2), VECTOR),
    "GroupedQueryAttention": (
        lambda: layers.GroupQueryAttention(2, 2, 1, dropout=0.3),
        ["call", ROWS, ROWS],
    ),
    "GRU": (lambda: layers.GRU(2, stateful=True, recurrent_dropout=0.3), ROWS),
    "GRUCell": (_rnn(lambda: layers.GRUCell(2)), ROWS),
    "HashedCrossing": (lambda: layers.HashedCrossing(5), ["numbers", "numbers"]),
    "Hashing": (lambda: layers.Hashing(5), "numbers"),
    "IntegerLookup": (lambda: layers.IntegerLookup(vocabulary=[1, 3, 2]), "numbers"),
    "Lambda": (lambda: layers.Lambda(lambda x: x * 2), VECTOR),
    "LSTM": (lambda: layers.LSTM(2, stateful=True, dropout=0.3), ROWS),
    "LSTMCell": (_rnn(lambda: layers.LSTMCell(2)), ROWS),
    "MelSpectrogram": (lambda: layers.MelSpectrogram(fft_length=8, sequence_stride=4), (32,)),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(2, 2, dropout=0.3),
        ["call", ROWS, ROWS],
    ),
    "Normalization": (_normalization, VECTOR),
    "Permute": (lambda: layers.Permute((2, 1)), ROWS),
    "Pipeline": (lambda: layers.Pipeline([layers.RandomFlip(), layers.RandomContrast(0.3)]), IMAGE),
    "RNN": (_rnn(lambda: [layers.LSTMCell(2), layers.SimpleRNNCell(2)]), ROWS),
    "RandomCrop": (lambda: layers.RandomCrop(8, 8), IMAGE),
    "RandomTranslation": (lambda: layers.RandomTranslation(0.2, 0.2), IMAGE),
    "RandomZoom": (lambda: layers.RandomZoom(0.2), IMAGE),
    "RepeatVector": (lambda: layers.RepeatVector(2), VECTOR),
    "Rescaling": (lambda: layers.Rescaling(0.5), VECTOR),
    "Reshape": (lambda: layers.Reshape((4, 2)), VECTOR),
    "Resizing": (lambda: layers.Resizing(4, 4), IMAGE),
    "ReversibleEmbedding": (lambda: layers.ReversibleEmbedding(5, 2), "numbers"),
    "STFTSpectrogram": (
        lambda: layers.STFTSpectrogram(frame_length=4, frame_step=2, fft_length=4),
        (16, 1),
    ),
    "SimpleRNN": (lambda: layers.SimpleRNN(2, stateful=True), ROWS),
    "SimpleRNNCell": (_rnn(lambda: layers.SimpleRNNCell(2)), ROWS),
    "SpectralNormalization": (lambda: layers.SpectralNormalization(layers.Dense(4)), VECTOR),
    "StackedRNNCells": (
        _rnn(lambda: layers.StackedRNNCells([layers.GRUCell(2), layers.GRUCell(2)])),
        ROWS,
    ),
    "StringLookup": (lambda: layers.StringLookup(vocabulary=["a", "b"]), "words"),
    "TextVectorization": (lambda: layers.TextVectorization(vocabulary=["a", "b"]), "words"),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dropout(0.3)), ROWS),
}
_MERGING = "Add Average Concatenate Maximum Minimum Multiply Subtract".split()
CASES |= {name: (getattr(layers, name), _two(VECTOR)) for name in _MERGING}
for _dimensions, _shape in (("1D", ROWS), ("2D", IMAGE), ("3D", VIDEO)):
    for _name in ("Conv", "SeparableConv", "DepthwiseConv"):
        if (_kind := getattr(layers, f"{_name}{_dimensions}", None)) is not None:
            _arguments = (2,) if _name == "DepthwiseConv" else (2, 2)
            CASES[f"{_name}{_dimensions}"] = (lambda k=_kind, a=_arguments: k(*a), _shape)
    _kind = getattr(layers, f"Conv{_dimensions}Transpose")
    CASES[f"Conv{_dimensions}Transpose"] = (lambda k=_kind: k(2, 2), _shape)
    _kind = getattr(layers, f"ConvLSTM{_dimensions}")
    CASES[f"ConvLSTM{_dimensions}"] = (lambda k=_kind: k(2, 2, stateful=True), (2, *_shape))
    for _name in ("AdaptiveAveragePooling", "AdaptiveMaxPooling", "AveragePooling"):
        if (_kind := getattr(layers, f"{_name}{_dimensions}", None)) is not None:
            CASES[f"{_name}{_dimensions}"] = (lambda k=_kind: k(2), _shape)
    _kind = getattr(layers, f"SpatialDropout{_dimensions}")
    CASES[f"SpatialDropout{_dimensions}"] = (lambda k=_kind: k(0.3), _shape)
# One argument, a rate or a strength; images.
_ONE = "Brightness ColorDegeneration Contrast Hue Posterization Rotation Saturation Sharpness"
for _name in _ONE.split():
    if (_kind := getattr(layers, f"Random{_name}", None)) is not None:
        _amount = 4 if _name == "Posterization" else 0.3
        CASES[f"Random{_name}"] = (lambda k=_kind, a=_amount: k(a), IMAGE)
CASES["Dropout"] = (lambda: layers.Dropout(0.3), VECTOR)
CASES["Dense"] = (lambda: layers.Dense(4), VECTOR)


def layer_classes() -> dict[str, type]:
    """Return the classes in `keras.layers`, each once, by its own name."""
    found = {
        kind.__name__: kind
        for kind in vars(layers).values()
        if isinstance(kind, type) and issubclass(kind, layers.Layer)
    }
    return {name: found[name] for name in sorted(found.keys() - LEFT_OUT.keys())}


def data_of(shape: Any, seed: int) -> Any:
    """Return a batch of samples."""
    generator = np.random.default_rng(seed)
    if shape == "numbers":
        return generator.integers(0, 5, (BATCH, 1))
    if shape == "words":
        return np.array([["a"], ["b"], ["c"], ["a"]])
    if isinstance(shape, list):
        return [data_of(one, seed + n) for n, one in enumerate(shape) if one != "call"]
    return generator.random((BATCH, *shape), dtype="float32")


class Around(keras.Model):
    """A layer, and a head that makes one number of whatever comes out of it."""

    def __init__(self, layer: Any, several: bool = False):
        super().__init__()
        self.layer = layer
        self.head = layers.Dense(1)
        self.several = several

    def call(self, inputs: Any, training: bool = False) -> Any:
        found = self.layer(*inputs) if self.several else self.layer(inputs)
        rows = [
            keras.ops.reshape(keras.ops.cast(one, "float32"), (BATCH, -1))
            for one in keras.tree.flatten(found)
        ]
        return self.head(keras.ops.concatenate(rows, axis=-1))


def built(name: str) -> tuple[keras.Model, Any]:
    """Return a model around one layer, built, and the shape of its samples."""
    kind = layer_classes()[name]
    for make, shape in [CASES[name]] if name in CASES else _tries(kind):
        try:
            model = _around(make(), shape)
        except Exception:
            if name in CASES:
                raise
            continue
        CASES[name] = make, shape  # The other times, it is known.
        return model, shape
    raise AssertionError(f"{name} is new, or takes other inputs: give it a place in the table.")


def _around(layer: Any, shape: Any) -> keras.Model:
    model = Around(layer, isinstance(shape, list) and shape[0] == "call")
    model(data_of(shape, 0))
    return model


def _tries(kind: type) -> list[tuple[Callable[[], Any], Any]]:
    return [(kind, shape) for shape in (IMAGE, ROWS, VECTOR, VIDEO)]

"""Models of every structure that Keras can save, for tests of what is saved and loaded.

Each builder makes the same structure with other weights each time, so that a file has something to
overwrite. What an older Keras lacks is not in the catalogue there.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_ckpt_tools as kct


@dataclass(frozen=True)
class Built:
    """A model, and what it is called with.

    Attributes:
        model: Built. Trained for two batches before it is saved if it is compiled.
        x: A batch of inputs.
        y: Its targets, or `None` where the model is not trained.
        steps: Batches to train for.
        eager: Whether without a trace, for which two batches are too few.
    """

    model: keras.Model
    x: Any
    y: Any = None
    steps: int = 2
    eager: bool = True


Builder = Callable[[], Built]

BUILDERS: dict[str, Builder] = {}
OBJECTS: dict[str, Any] = {}

# What the oldest supported Keras gets wrong, and a later one does not.
OLDEST = keras.__version__.startswith("3.10.")

_MERGED = "the adapter is merged into the kernel, and is a new one after that"
_OPAQUE = "stock Keras finds bytes of no type in the file, and writes nothing else"
_TF_IDF = "a bug in loading the vocabulary"
_LOSSES = ("lora", "lora_trained", "lora_quantized", "lora_convolution")

# Where stock Keras does not give back what it saved, and why; and nor do we, from either file.
STOCK_LOSES: dict[tuple[str, str], str] = {
    **{(name, file): _MERGED for name in _LOSSES for file in ("a.keras", "a.weights.h5")},
    ("float8_trained", "a.keras"): "a layer built from its config has its scales first",
}
# Which it cannot save: h5py has no such type.
UNSAVED = ("variables float8_e5m2",)
# Where it cannot open any file, and we can open ours.
STOCK_CANNOT: dict[tuple[str, str], str] = {
    (f"variables {dtype}", file): _OPAQUE
    for dtype in ("float8_e4m3fn", "float8_e5m2")
    for file in ("a.keras", "a.weights.h5")
}
# Where nobody can open any file.
NOBODY_CAN: dict[tuple[str, str], str] = {
    ("nested_and_shared", "a.keras"): "the config makes two models of one",
}
if OLDEST:
    NOBODY_CAN["StringLookup tf_idf", "a.keras"] = _TF_IDF
    NOBODY_CAN["TextVectorization tf_idf", "a.keras"] = _TF_IDF


def structure(builder: Builder) -> Builder:
    """Put a builder into the catalogue, under its name."""
    BUILDERS[builder.__name__] = builder
    return builder


def custom(cls: type) -> type:
    """Note a class as one that a load has to be given."""
    OBJECTS[cls.__name__] = cls
    return cls


def _dense(policy: Any = None, units: int = 6) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(units, activation="relu", dtype=policy),
            layers.Dropout(0.5, dtype=policy),
            layers.Dense(2, dtype=policy),
        ]
    )


def _batch(shape: tuple[int, ...] = (8,), out: tuple[int, ...] = (2,)) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.random((4, *shape), "float32"), rng.random((4, *out), "float32")


def _compiled(model: keras.Model, optimizer: Any = "sgd", **how: Any) -> keras.Model:
    model.compile(optimizer, keras.losses.MeanSquaredError(), **how)
    return model


# Optimizers, with state and without.


def _optimizers() -> dict[str, Callable[[], Any]]:
    found = {
        name: cls
        for name, cls in inspect.getmembers(keras.optimizers, inspect.isclass)
        if name not in ("Optimizer", "OptimizerMap", "LossScaleOptimizer", "MultiOptimizer")
    }
    if OLDEST:
        del found["Muon"]  # It cannot train on TensorFlow: variables have no `path` there.
    schedule = keras.optimizers.schedules.ExponentialDecay
    return found | {
        "SGD momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        "Adam amsgrad": lambda: keras.optimizers.Adam(0.1, amsgrad=True),
        "Adam schedule": lambda: keras.optimizers.Adam(schedule(0.1, 10, 0.9)),
        "RMSprop centered": lambda: keras.optimizers.RMSprop(0.1, momentum=0.5, centered=True),
        "Adam ema": lambda: keras.optimizers.Adam(0.1, use_ema=True, ema_overwrite_frequency=2),
        "SGD accumulation": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=3),
        "Adam accumulation": lambda: keras.optimizers.Adam(
            0.1, use_ema=True, gradient_accumulation_steps=2
        ),
        "LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(0.1), initial_scale=64.0, dynamic_growth_steps=2
        ),
    }


def _with_optimizer(make: Callable[[], Any], steps: int) -> Builder:
    return lambda: Built(_compiled(_dense(), make()), *_batch(), steps)


for _name, _make in _optimizers().items():
    BUILDERS[f"optimizer {_name}"] = _with_optimizer(_make, 2)
UNTRAINED = {
    name: _with_optimizer(_optimizers()[name], 0) for name in ("Adam", "LossScaleOptimizer")
}

if hasattr(keras.optimizers, "MultiOptimizer"):

    @structure
    def optimizer_multi() -> Built:
        """An optimizer for the head, and another for the rest."""
        several = keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(0.1, momentum=0.9), {".*head/.*": keras.optimizers.Adam()}
        )
        model = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(2, name="head")])
        return Built(_compiled(model, keras.optimizers.MultiOptimizer(several)), *_batch())


# Policies and dtypes.


def _with_policy(policy: str) -> Builder:
    return lambda: Built(_compiled(_dense(policy), "adam"), *_batch())


for _policy in ("mixed_float16", "mixed_bfloat16", "bfloat16", "float16", "float64"):
    BUILDERS[f"policy {_policy}"] = _with_policy(_policy)


def _zeros_and_ones(shape: Any, dtype: Any) -> Any:
    # Which every dtype has. TensorFlow casts to some of them from `float32` only.
    return tf.cast(np.random.randint(0, 2, shape).astype("float32"), dtype)


@custom
class Holder(layers.Layer):
    """Variables of a dtype: a matrix, a scalar, and one without elements."""

    def __init__(self, held: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.held_dtype = held

    def build(self, input_shape: Any) -> None:
        how = {"initializer": _zeros_and_ones, "trainable": False, "autocast": False}
        self.matrix = self.add_weight(shape=(3, 2), dtype=self.held_dtype, **how)
        self.scalar = self.add_weight(shape=(), dtype=self.held_dtype, **how)
        self.empty = self.add_weight(shape=(0, 4), dtype=self.held_dtype, **how)

    def call(self, inputs: Any) -> Any:
        return inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "held": self.held_dtype}


def _holding(*dtypes: str) -> Builder:
    def build() -> Built:
        model = keras.Sequential([keras.Input((2,)), *map(Holder, dtypes)])
        return Built(model, _batch((2,))[0])

    return build


BUILDERS["variables"] = _holding(
    *"float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64".split(),
    "bool",
    "complex64",
)
# TensorFlow has them, though no layer of Keras' own does: what it calls float8 are `float32`.
for _dtype in ("float8_e4m3fn", "float8_e5m2"):
    BUILDERS[f"variables {_dtype}"] = _holding(_dtype)


# Quantized layers.


def _quantizable() -> keras.Model:
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(11, 8)(inputs)
    x = layers.EinsumDense("abc,cd->abd", output_shape=(5, 8), bias_axes="d")(x)
    outputs = layers.Dense(4)(layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def _quantize(model: keras.Model, mode: str) -> keras.Model:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Layer .* does not have a `quantize` method")
        model.quantize(mode)
    return model


def _tokens() -> Any:
    return np.random.default_rng(1).integers(0, 11, (4, 5))


def _quantized(mode: str) -> Builder:
    return lambda: Built(_quantize(_quantizable(), mode), _tokens())


MODES = ("int8", "int4") if hasattr(keras.quantizers, "pack_int4") else ("int8",)
for _mode in MODES:
    BUILDERS[f"quantized {_mode}"] = _quantized(_mode)


@structure
def float8_trained() -> Built:
    """Scales and histories of amax beside the weights, changed by training."""
    model = keras.Sequential([keras.Input((16,)), layers.Dense(16), layers.Dense(16)])
    _quantize(model, "float8")
    # Its gradients cannot be had eagerly.
    return Built(_compiled(model, "adam"), *_batch((16,), (16,)), eager=False)


# Adapters.


def _adapted(model: keras.Model) -> keras.Model:
    for layer in model.layers:
        if hasattr(layer, "enable_lora"):
            layer.enable_lora(2)
            names = [n for n in vars(layer) if n.startswith("lora_") and n.endswith(("_a", "_b"))]
            for name in names:
                variable = getattr(layer, name)
                variable.assign(np.random.random(variable.shape))
    return model


@structure
def lora() -> Built:
    """Dense, EinsumDense and Embedding with LoRA."""
    return Built(_adapted(_quantizable()), _tokens())


@structure
def lora_trained() -> Built:
    """Where only the adapters are trained."""
    return Built(_compiled(_adapted(_dense()), "adam"), *_batch())


@structure
def lora_quantized() -> Built:
    """Quantized, and adapted after that."""
    return Built(_adapted(_quantize(_quantizable(), "int8")), _tokens())


@structure
def lora_convolution() -> Built:
    """Convolutions have adapters too."""
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3), layers.Flatten()])
    return Built(_adapted(model), _batch((6, 6, 2))[0])


# Preprocessing with vocabularies and statistics.

WORDS = ["cat dog", "dog", "bird cat cat", "fish"]


def _of_words(layer: layers.Layer) -> Built:
    data = np.array(WORDS, dtype=object)
    if isinstance(layer, layers.StringLookup):
        data = np.array([text.split()[0] for text in WORDS], dtype=object)
    layer.adapt(data)
    model = keras.Sequential([keras.Input((1,), dtype="string"), layer])
    return Built(model, tf.constant(data[:, None].tolist()))


for _mode in ("int", "tf_idf"):
    BUILDERS[f"StringLookup {_mode}"] = lambda mode=_mode: _of_words(
        layers.StringLookup(output_mode=mode)
    )
    BUILDERS[f"TextVectorization {_mode}"] = lambda mode=_mode: _of_words(
        layers.TextVectorization(
            output_mode=mode, **({"output_sequence_length": 4} if mode == "int" else {})
        )
    )


@structure
def string_lookup_of_a_given_vocabulary() -> Built:
    """Which stands in the config, and not among the assets."""
    lookup = layers.StringLookup(vocabulary=["cat", "dog"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
    return Built(model, tf.constant([["cat"], ["fish"]]))


@structure
def integer_lookup() -> Built:
    """Numbers to indices."""
    lookup = layers.IntegerLookup(output_mode="one_hot")
    lookup.adapt(np.array([3, 3, 7, 9]))
    model = keras.Sequential([keras.Input((1,), dtype="int64"), lookup])
    return Built(model, np.array([[3], [8]]))


@structure
def normalization() -> Built:
    """Statistics of data, as weights."""
    layer = layers.Normalization()
    layer.adapt(np.random.random((20, 3)))
    return Built(keras.Sequential([keras.Input((3,)), layer]), _batch((3,))[0])


@structure
def discretization() -> Built:
    """Boundaries of bins, learnt from data, that stand in the config."""
    layer = layers.Discretization(num_bins=4)
    layer.adapt(np.random.default_rng(1).random((20, 3)))
    return Built(keras.Sequential([keras.Input((3,)), layer]), _batch((3,))[0])


# Layers.


@structure
def recurrent() -> Built:
    """Cells within layers, both directions, stacked, with dropout inside."""
    inputs = keras.Input((5, 3))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True, recurrent_dropout=0.2))(inputs)
    x = layers.GRU(4, return_sequences=True)(x)
    x = layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(3)], return_sequences=True)(x)
    return Built(_compiled(keras.Model(inputs, layers.SimpleRNN(2)(x)), "adam"), *_batch((5, 3)))


@structure
def stateful_recurrent() -> Built:
    """A state that is carried from batch to batch."""
    inputs = keras.Input(batch_shape=(4, 5, 3))
    model = keras.Model(inputs, layers.LSTM(2, stateful=True)(inputs))
    model(_batch((5, 3))[0])
    return Built(model, _batch((5, 3))[0])


@structure
def attention() -> Built:
    """Layers that make layers of their own."""
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4, dropout=0.1)(inputs, inputs)
    x = layers.GroupQueryAttention(4, 2, 1)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, inputs]))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    return Built(_compiled(model, "adam"), *_batch((5, 8)))


@structure
def convolutions() -> Built:
    """With moving statistics, depthwise, separable and transposed."""
    stack = [
        keras.Input((8, 8, 2)),
        layers.RandomFlip(),
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3),
        layers.SeparableConv2D(3, 3),
        layers.SpectralNormalization(layers.Conv2DTranspose(2, 3)),
        layers.PReLU(),
        layers.SpatialDropout2D(0.2),
        layers.Flatten(),
        layers.Dense(2),
    ]
    return Built(_compiled(keras.Sequential(stack), "adam"), *_batch((8, 8, 2)))


@structure
def time_distributed() -> Built:
    """A layer within a layer."""
    stack = [
        keras.Input((5, 3)),
        layers.TimeDistributed(layers.Dense(4)),
        layers.GaussianNoise(0.1),
        layers.Flatten(),
        layers.Dense(2),
    ]
    return Built(_compiled(keras.Sequential(stack), "adam"), *_batch((5, 3)))


@structure
def embedding_trained() -> Built:
    """Whose gradients are sparse."""
    stack = [keras.Input((5,), dtype="int32"), layers.Embedding(11, 3), layers.Flatten()]
    model = _compiled(keras.Sequential([*stack, layers.Dense(2)]), "adam")
    return Built(model, _tokens(), _batch()[1])


# Ways to put layers together.


@structure
def one_layer_used_twice() -> Built:
    """Its variables are saved once."""
    inputs = keras.Input((8,))
    shared = layers.Dense(8)
    outputs = layers.Dense(2)(shared(shared(inputs)))
    return Built(_compiled(keras.Model(inputs, outputs), "adam"), *_batch())


@structure
def many_inputs_and_outputs() -> Built:
    """A functional model with dicts of both."""
    one, other = keras.Input((8,), name="one"), keras.Input((8,), name="other")
    trunk = layers.Dense(4)
    joined = layers.Concatenate()([trunk(one), trunk(other)])
    outputs = {"a": layers.Dense(2, name="a")(joined), "b": layers.Dense(2, name="b")(joined)}
    model = keras.Model({"one": one, "other": other}, outputs)
    model.compile("adam", loss={"a": "mse", "b": "mae"}, metrics={"a": ["mae"], "b": ["mse"]})
    x, y = _batch()
    return Built(model, {"one": x, "other": x}, {"a": y, "b": y})


@structure
def nested() -> Built:
    """Models within models, one of them used twice."""
    _, middle = _nest()
    outer = keras.Input((8,))
    model = keras.Model(outer, layers.Dense(2)(middle(middle(outer))))
    return Built(_compiled(model, "adam"), *_batch())


@structure
def nested_and_shared() -> Built:
    """A model that is within another, and beside it: a config makes two of it."""
    inner, middle = _nest()
    outer = keras.Input((8,))
    model = keras.Model(outer, layers.Dense(2)(inner(middle(outer))))
    return Built(_compiled(model, "adam"), *_batch())


def _nest() -> tuple[keras.Model, keras.Model]:
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dropout(0.3)])
    inputs = keras.Input((8,))
    return inner, keras.Model(inputs, layers.Dense(8)(inner(inputs)))


@custom
class Subclassed(keras.Model):
    """Layers in attributes, in a list, in a dict, and one under two names."""

    def __init__(self, width: int = 8, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = width
        self.first = layers.Dense(width)
        self.again = self.first
        self.stack = [layers.Dense(width) for _ in range(2)]
        self.named = {"b": layers.Dense(width), "a": [layers.Dense(width)]}
        self.drop = layers.Dropout(0.5)
        self.head = layers.Dense(2)

    def build(self, input_shape: Any) -> None:
        self.temperature = self.add_weight(shape=(), initializer="random_normal")
        for layer in (self.first, *self.stack, self.named["b"], *self.named["a"], self.head):
            layer.build((None, self.width))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.again(self.first(inputs))
        for layer in (*self.stack, self.named["b"], *self.named["a"]):
            x = layer(x)
        return self.head(self.drop(x, training=training)) * self.temperature

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@structure
def subclassed() -> Built:
    """A model with a `call` of its own."""
    model = Subclassed()
    model.build((None, 8))
    return Built(_compiled(model, "adam"), *_batch())


@structure
def subclassed_within_functional() -> Built:
    """And one such as a layer."""
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(2)(Subclassed()(inputs)))
    return Built(_compiled(model, "adam"), *_batch())


@custom
class Remembering(layers.Layer):
    """Has both kinds of state that are no variables: what it stores itself, and a file."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.seen = np.random.random(3)
        self.note = "never loaded"

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(), initializer="random_normal")
        self.built = True

    def call(self, inputs: Any) -> Any:
        return inputs * self.scale

    def save_own_variables(self, store: Any) -> None:
        store["scale"] = self.scale
        store["seen"] = self.seen
        store["twice"] = np.stack([self.seen, self.seen])

    def load_own_variables(self, store: Any) -> None:
        self.scale.assign(store["scale"])
        self.seen = np.array(store["twice"][1])

    def save_assets(self, inner_path: str) -> None:
        with open(f"{inner_path}/note.txt", "w", encoding="utf-8") as file:
            file.write(self.note)

    def load_assets(self, inner_path: str) -> None:
        with open(f"{inner_path}/note.txt", encoding="utf-8") as file:
            self.note = file.read()


@structure
def state_of_its_own() -> Built:
    """A layer with `save_own_variables` and `save_assets`."""
    model = keras.Sequential([keras.Input((8,)), Remembering(), layers.Dense(2)])
    model.layers[0].note = "saved"
    return Built(_compiled(model, "adam"), *_batch())


@custom
class Sampling(layers.Layer):
    """Draws random numbers from two generators of its own."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.one = keras.random.SeedGenerator(1)
        self.many = [keras.random.SeedGenerator(2)]

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        noise = keras.random.normal(keras.ops.shape(inputs), seed=self.one)
        return inputs + noise * keras.random.uniform((), seed=self.many[0])


@structure
def random_generators() -> Built:
    """Seed generators in an attribute and in a list."""
    model = keras.Sequential([keras.Input((8,)), Sampling(), layers.Dropout(0.5), layers.Dense(2)])
    return Built(_compiled(model, "sgd"), *_batch())


@structure
def without_variables() -> Built:
    """Nothing to save."""
    return Built(keras.Sequential([keras.Input((8,)), layers.ReLU()]), _batch()[0])


@structure
def frozen() -> Built:
    """Of which a part is not trained."""
    model = _dense()
    model.layers[0].trainable = False
    return Built(_compiled(model, "adam"), *_batch())


@structure
def with_metrics() -> Built:
    """Metrics have variables too."""
    model = _dense()
    model.compile("adam", "mse", metrics=["mae", keras.metrics.RootMeanSquaredError()])
    return Built(model, *_batch())


def trained(builder: Builder) -> Built:
    """Build, and train where the structure is one to be trained."""
    built = builder()
    built.model.run_eagerly = built.eager
    train_on(built)
    return built


def train_on(built: Built) -> None:
    """Train as much again."""
    for _ in range(built.steps if built.y is not None else 0):
        built.model.train_on_batch(built.x, built.y)


def fresh(builder: Builder) -> keras.Model:
    """Build the same with other weights, and the optimizer's state as it is before training."""
    model = builder().model
    if model.compiled:
        model.optimizer.build(model.trainable_variables)
    return model


def values(model: keras.Model) -> dict[str, Any]:
    """Return all that a file has to bring back, as bytes."""
    return {
        "weights": [_bits(variable) for variable in model.weights],
        "optimizer": [_bits(v) for v in model.optimizer.variables] if model.compiled else [],
        **state_beside(model),
    }


def random_state(model: keras.Model) -> list[Any]:
    """Return the state of the seed generators, which Keras' own files leave out."""
    return [_bits(v) for v in model.variables if v.name == "seed_generator_state"]


def _bits(variable: Any) -> tuple[str, tuple[int, ...], bytes]:
    array = np.asarray(keras.ops.convert_to_numpy(variable))
    return array.dtype.name, array.shape, array.tobytes()


def by_stock(builder: Builder, path: Path) -> dict[str, Any]:
    """Return what stock Keras gets out of a file."""
    if path.suffix == ".keras":
        return values(keras.models.load_model(path, custom_objects=OBJECTS))
    model = fresh(builder)
    model.load_weights(path)
    return values(model)


def by_us(builder: Builder, path: Path) -> dict[str, Any]:
    """Return what we get out of a file."""
    if path.suffix == ".keras":
        return values(kct.safe_load_model(path, OBJECTS))
    model = fresh(builder)
    assert kct.load_weights(model, path)
    return values(model)


def state_beside(model: keras.Model) -> dict[str, Any]:
    """Return the state of a model that is in no variable: vocabularies, and what layers keep."""
    found: dict[str, Any] = {}
    for index, layer in enumerate(model._flatten_layers()):
        if hasattr(layer, "get_vocabulary"):
            found[f"{index} vocabulary"] = [str(word) for word in layer.get_vocabulary()]
        if isinstance(layer, Remembering):
            found[f"{index} seen"] = layer.seen.tolist()
            found[f"{index} note"] = layer.note
    return found

"""Models of many kinds of layers, made by `make.py` in the environment of Keras 2.

Each function returns a model and its inputs. What one function makes is one file, so a file stands
for a family of layers.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras as keras

layers = keras.layers
RANDOM = np.random.default_rng(3)


def floats(*shape):
    """Return numbers around zero."""
    return RANDOM.normal(0, 1, (2, *shape)).astype("float32")


def shared_nested():
    """A nested functional model that is used twice, one within it, a Sequential beside it."""
    deep_in = keras.Input((3,))
    deep = keras.Model(deep_in, layers.Dense(3, activation="tanh")(deep_in), name="deep")
    tower_in = keras.Input((4,))
    normal = layers.BatchNormalization(name="bn")(layers.Dense(3, name="d")(tower_in))
    tower = keras.Model(tower_in, deep(normal), name="tower")
    head = keras.Sequential([layers.Dense(2, input_shape=(6,)), layers.BatchNormalization()])
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    both = layers.Concatenate(axis=1)([tower(a), tower(b)])
    return keras.Model([a, b], [head(both), tower(b)], name="net"), [floats(4), floats(4)]


def named_inputs():
    """Inputs and outputs in dicts."""
    inputs = {"left": keras.Input((3,), name="left"), "right": keras.Input((3,), name="right")}
    both = layers.Add()([inputs["left"], inputs["right"]])
    outputs = {"sum": both, "score": layers.Dense(1, name="score")(both)}
    return keras.Model(inputs, outputs, name="net"), [floats(3), floats(3)]


def recurrent_cells():
    """Cells, stacked cells, both directions, layers over time, older GRUs."""
    x = keras.Input((4, 3))
    stacked = layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)], return_sequences=True)(x)
    older = layers.GRU(2, reset_after=False, return_sequences=True, name="older")(stacked)
    simple = layers.Bidirectional(
        layers.SimpleRNN(2, return_sequences=True), merge_mode="sum", name="both"
    )(older)
    apart = layers.Bidirectional(
        layers.GRU(2, return_sequences=True),
        backward_layer=layers.GRU(2, return_sequences=True, go_backwards=True),
        merge_mode=None,
    )(simple)
    time = layers.TimeDistributed(layers.Dense(2, use_bias=False))(layers.Concatenate()(apart))
    state = layers.LSTM(2, return_state=True, unroll=True, dropout=0.2, recurrent_dropout=0.1)(time)
    return keras.Model(x, state, name="net"), [floats(4, 3)]


def convolutional_recurrent():
    """ConvLSTM."""
    x = keras.Input((3, 5, 5, 1))
    y = layers.ConvLSTM2D(2, 3, padding="same")(x)
    return keras.Model(x, y, name="net"), [floats(3, 5, 5, 1)]


def convolutions():
    """Of one to three dimensions, separable, depthwise, transposed; pooling and padding."""
    x = keras.Input((12, 2))
    y = layers.Conv1D(3, 3, dilation_rate=2, padding="causal", kernel_constraint="max_norm")(x)
    y = layers.SeparableConv1D(
        4, 3, depth_multiplier=2, depthwise_regularizer="l2", pointwise_initializer="he_normal"
    )(y)
    y = layers.MaxPooling1D(2)(layers.ZeroPadding1D(1)(y))
    y = layers.Conv1DTranspose(2, 2, strides=2)(y)
    y = layers.Reshape((2, -1, 2))(layers.Cropping1D((1, 1))(y))
    y = layers.DepthwiseConv2D(
        (1, 3), depth_multiplier=2, padding="same", depthwise_constraint=keras.constraints.NonNeg()
    )(y)
    y = layers.Conv2DTranspose(2, 3, padding="same", output_padding=None)(y)
    y = layers.UpSampling2D(2, interpolation="bilinear")(y)
    y = layers.AveragePooling2D((2, 2))(layers.Permute((2, 1, 3))(y))
    z = layers.Conv2D(4, 1, groups=2, data_format="channels_last", use_bias=False)(y)
    flat = layers.Flatten()(z)
    return keras.Model(x, [layers.Dense(2)(flat), layers.GlobalMaxPooling2D(keepdims=True)(z)],
                       name="net"), [floats(12, 2)]  # fmt: skip


def volumes():
    """Of three dimensions."""
    x = keras.Input((4, 4, 4, 1))
    y = layers.Conv3D(2, 2, kernel_initializer=keras.initializers.VarianceScaling(2.0))(x)
    y = layers.GlobalAveragePooling3D()(layers.MaxPooling3D(2)(y))
    return keras.Model(x, y, name="net"), [floats(4, 4, 4, 1)]


def normalizations():
    """Axes as lists, as Keras 2 writes them."""
    x = keras.Input((4, 6))
    y = layers.BatchNormalization(axis=1, momentum=0.9, center=False)(x)
    y = layers.BatchNormalization(scale=False, moving_mean_initializer="ones")(y)
    y = layers.LayerNormalization(axis=[1, 2])(y)
    y = layers.LayerNormalization(axis=-1, scale=False)(y)
    y = layers.GroupNormalization(groups=3)(y)
    y = layers.UnitNormalization(axis=[-1])(y)
    y = layers.Normalization(mean=[1.0] * 6, variance=[2.0] * 6)(y)
    return keras.Model(x, y, name="net"), [floats(4, 6)]


def attention():
    """With and without heads; layers that were built from several shapes."""
    x, m = keras.Input((4, 6)), keras.Input((3, 6))
    heads = layers.MultiHeadAttention(2, 3, value_dim=2, dropout=0.1, attention_axes=[1])
    y = heads(x, m)
    y, scores = layers.Attention(use_scale=True, score_mode="dot")(
        [y, m], return_attention_scores=True
    )
    y = layers.AdditiveAttention()([y, m])
    y = layers.Dot(axes=(1, 1), normalize=True)([y, x])
    y = layers.EinsumDense("abc,cd->abd", output_shape=(None, 2), bias_axes="d")(y)
    return keras.Model([x, m], [y, scores], name="net"), [floats(4, 6), floats(3, 6)]


def activations():
    """Layers whose arguments have other names now."""
    x = keras.Input((4, 3))
    y = layers.LeakyReLU(alpha=0.2)(x)
    y = layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.05)(y)
    y = layers.PReLU(shared_axes=[1], alpha_initializer="ones")(y)
    y = layers.ELU(alpha=0.7)(y)
    y = layers.Dense(3, activation="swish")(layers.Activation("selu")(y))
    y = layers.Dense(3, activation=tf.nn.relu, name="of_tf")(y)
    y = layers.Softmax(axis=[1, 2])(y)
    y = layers.Dense(3, activation="hard_sigmoid")(y)
    y = layers.Dense(3, activation="gelu")(y)
    return keras.Model(x, y, name="net"), [floats(4, 3)]


def arguments():
    """Initializers, regularizers, constraints, noise, masks."""
    i, r, c = keras.initializers, keras.regularizers, keras.constraints
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(
        9, 4, input_length=5, mask_zero=True, embeddings_regularizer=r.L1L2(0.1, 0.2),
        embeddings_initializer=i.RandomUniform(-0.1, 0.1, seed=4),
        embeddings_constraint="unit_norm",
    )(x)  # fmt: skip
    y = layers.Dropout(0.3, noise_shape=(None, 1, 4), seed=7)(y)
    y = layers.SpatialDropout1D(0.2)(y)
    y = layers.GaussianNoise(0.1, seed=1)(layers.GaussianDropout(0.1)(y))
    y = layers.AlphaDropout(0.1, noise_shape=None)(y)
    y = layers.Dense(
        4, kernel_initializer=i.Orthogonal(1.5), bias_initializer=i.Constant(0.3),
        kernel_regularizer=r.L2(0.01), bias_regularizer=r.L1(0.02), activity_regularizer="l1",
        kernel_constraint=c.MinMaxNorm(0.0, 2.0, axis=0), name="first",
    )(y)  # fmt: skip
    y = layers.ActivityRegularization(l1=0.1, l2=0.2)(y)
    y = layers.Dense(
        4, kernel_initializer=i.TruncatedNormal(0, 0.1),
        kernel_regularizer=r.OrthogonalRegularizer(),
        kernel_constraint=c.MaxNorm(3, axis=[0]), bias_constraint=c.NonNeg(),
    )(y)  # fmt: skip
    y = layers.LSTM(3, kernel_initializer=i.Identity(0.5), unit_forget_bias=True)(
        layers.Masking(0.0)(y)
    )
    y = layers.RepeatVector(2)(y)
    return keras.Model(x, y, name="net"), [RANDOM.integers(0, 9, (2, 5)).astype("int32")]


def merging():
    """Layers that merge."""
    a, b = keras.Input((3,)), keras.Input((3,))
    parts = [
        layers.Add()([a, b]),
        layers.Subtract()([a, b]),
        layers.Multiply()([a, b]),
        layers.Average()([a, b]),
        layers.Maximum()([a, b]),
        layers.Minimum()([a, b]),
        layers.Dot(axes=1)([a, b]),
    ]
    return keras.Model([a, b], layers.Concatenate()(parts), name="net"), [floats(3), floats(3)]


def images():
    """Preprocessing of images; what is random is so in training only."""
    x = keras.Input((6, 6, 3))
    y = layers.Rescaling(0.5, offset=-1.0)(x)
    y = layers.Resizing(8, 8, interpolation="nearest")(y)
    y = layers.CenterCrop(4, 4)(y)
    y = layers.RandomFlip("horizontal", seed=1)(y)
    y = layers.RandomRotation(0.1, fill_mode="reflect", interpolation="bilinear")(y)
    y = layers.RandomZoom(0.1, width_factor=0.2)(y)
    y = layers.RandomTranslation(0.1, 0.1)(y)
    y = layers.RandomContrast(0.1)(y)
    y = layers.RandomBrightness(0.1, value_range=[0.0, 1.0])(y)
    return keras.Model(x, layers.Conv2D(2, 3)(y), name="net"), [floats(6, 6, 3)]


def categories():
    """Preprocessing of numbers and of whole ones."""
    x = keras.Input((2,))
    bins = layers.Discretization(bin_boundaries=[-0.5, 0.0, 0.5])(x)
    counts = layers.CategoryEncoding(num_tokens=4, output_mode="multi_hot")(bins)
    whole = keras.Input((2,), dtype="int64")
    looked_up = layers.IntegerLookup(vocabulary=[3, 5, 7], output_mode="int")(whole)
    embedded = layers.Flatten()(layers.Embedding(5, 2)(looked_up))
    y = layers.Dense(2)(layers.Concatenate()([counts, embedded]))
    return keras.Model([x, whole], y, name="net"), [floats(2), np.array([[3, 9], [7, 5]])]


def words():
    """Preprocessing of text, with its vocabulary in the file."""
    x = keras.Input((1,), dtype="string")
    vectors = layers.TextVectorization(
        vocabulary=["a", "b", "cat"], output_sequence_length=3,
        standardize="lower_and_strip_punctuation",
    )(x)  # fmt: skip
    looked_up = layers.StringLookup(vocabulary=["a", "b"], num_oov_indices=1)(x)
    both = layers.Concatenate()([vectors, looked_up])
    y = layers.GlobalAveragePooling1D()(layers.Embedding(6, 2)(both))
    return keras.Model(x, y, name="net"), [np.array([["A cat!"], ["b"]])]


def operations():
    """Functions of TensorFlow between layers, each of which Keras 2 made a layer of."""
    x, m = keras.Input((4, 6), name="x"), keras.Input((6, 3), name="m")
    y = x[:, 1:, ::2]
    y = tf.nn.relu(y * 2.0 + 1.0) - y / 3.0
    y = tf.concat([y, 1.0 - tf.abs(-y)], axis=-1)
    y = tf.transpose(y, perm=[0, 2, 1])
    y = tf.reshape(y, [-1, 3, 6])
    y = tf.matmul(y, m)
    y = tf.math.sqrt(tf.square(y) + 1e-3) ** 1.5
    y = tf.reduce_mean(y, axis=1, keepdims=True) + tf.reduce_sum(y, axis=[1])[:, tf.newaxis, :]
    y = tf.squeeze(y, axis=1)
    y = tf.where(y > 3.0, y, tf.maximum(y, 0.5))
    y = tf.clip_by_value(tf.expand_dims(y, -1), 0.0, 9.0)
    first = tf.cast(y[:, :, 0], "float32")
    z = tf.stack([first, tf.nn.softmax(first), tf.exp(-first)], axis=1)
    z = tf.math.tanh(z) + tf.sigmoid(z) + tf.math.log(tf.math.subtract(z, -2.0))
    return keras.Model([x, m], [z, layers.Dense(2)(first)], name="net"), [
        floats(4, 6),
        floats(6, 3),
    ]


def residual():
    """The operator that most models use: `+` between tensors."""
    x = keras.Input((4,))
    y = layers.Dense(4, name="up")(x)
    return keras.Model(x, layers.Dense(2, name="out")(x + y), name="net"), [floats(4)]


def mixed():
    """A policy of two types, and layers with one of their own."""
    policy = keras.mixed_precision.Policy("mixed_float16")
    x = keras.Input((4,))
    y = layers.Dense(3, dtype=policy)(x)
    y = layers.BatchNormalization(dtype=policy)(y)
    return keras.Model(x, layers.Dense(2, dtype="float32")(y), name="net"), [floats(4)]


def batched():
    """A batch of a fixed size, remembered from one call to the next."""
    model = keras.Sequential(
        [
            layers.LSTM(2, stateful=True, batch_input_shape=(2, 3, 2), return_sequences=True),
            layers.GRU(2, stateful=True),
            layers.Dense(1),
        ],
        name="net",
    )
    return model, [floats(3, 2)]


def unbuilt_first():
    """A Sequential that learned its shape from data."""
    model = keras.Sequential([layers.Dense(3), layers.Dense(1, name="last")], name="net")
    x = floats(4)
    model(x)
    return model, [x]


ZOO = (
    shared_nested, named_inputs, recurrent_cells, convolutional_recurrent, convolutions, volumes,
    normalizations, attention, activations, arguments, merging, images, categories, words,
    operations, residual, mixed, batched, unbuilt_first,
)  # fmt: skip

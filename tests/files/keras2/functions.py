"""Makes `functions.zip`: models of Keras 2.15 that call TensorFlow functions between layers.

    /some/where/bin/pip install tensorflow==2.15.1
    /some/where/bin/python tests/files/keras2/functions.py

For each function there is `NAME.keras`, and `NAME.npz` with an input `x` and what Keras 2 made of
it, `o0`, `o1`, ...
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

random = np.random.RandomState(0)
ROWS = random.rand(2, 3, 4).astype("float32")
VECTORS = random.rand(2, 4).astype("float32")
IMAGES = random.rand(2, 6, 6, 3).astype("float32")
NUMBERS = np.array([[1, 2], [0, 3]])
W = tf.constant(random.rand(4, 5).astype("float32"))
K = keras.backend
concat = keras.layers.Concatenate

FUNCTIONS = {
    "mm_tb": (ROWS, lambda t: tf.matmul(t, t, transpose_b=True)),
    "mm_ta": (ROWS, lambda t: tf.matmul(t, t, transpose_a=True)),
    "mm_ta2": (ROWS, lambda t: tf.linalg.matmul(t, t + 1.0, adjoint_a=True)),
    "mm_const": (ROWS, lambda t: tf.matmul(t, W)),
    "einsum": (ROWS, lambda t: tf.einsum("bij,bkj->bik", t, t * 2.0)),
    "einsum1": (ROWS, lambda t: tf.einsum("bij->bji", t)),
    "einsum3": (ROWS, lambda t: tf.einsum("bij,bkj,bkl->bil", t, t, t)),
    "pad": (ROWS, lambda t: tf.pad(t, [[0, 0], [1, 2], [0, 1]])),
    "pad_r": (ROWS, lambda t: tf.pad(t, [[0, 0], [1, 1], [0, 1]], mode="REFLECT")),
    "pad_s": (ROWS, lambda t: tf.pad(t, [[0, 0], [1, 1], [0, 1]], "symmetric")),
    "pad_c": (
        ROWS,
        lambda t: tf.pad(t, tf.constant([[0, 0], [1, 1], [0, 1]]), constant_values=3.0),
    ),
    "one_hot": (NUMBERS, lambda t: tf.one_hot(t, 5)),
    "one_hot2": (NUMBERS, lambda t: tf.one_hot(t, depth=5, axis=1, dtype="int32")),
    "one_hot3": (NUMBERS, lambda t: tf.one_hot(t, 5, on_value=2.0, off_value=-1.0)),
    "split": (ROWS, lambda t: concat()(tf.split(t, 2, axis=-1)[::-1])),
    "split_l": (ROWS, lambda t: concat()(tf.split(t, [1, 3], axis=2)[::-1])),
    "split_o": (ROWS, lambda t: tf.split(t, 2, axis=-1)),
    "unstack": (ROWS, lambda t: tf.unstack(t, axis=1)[1]),
    "resize": (IMAGES, lambda t: tf.image.resize(t, (9, 4))),
    "resize_n": (IMAGES, lambda t: tf.image.resize(t, [9, 4], method="nearest")),
    "resize_b": (
        IMAGES,
        lambda t: tf.image.resize(t, [3, 4], method=tf.image.ResizeMethod.BICUBIC),
    ),
    "resize_a": (IMAGES, lambda t: tf.image.resize(t, [3, 4], antialias=True)),
    "reshape_d": (ROWS, lambda t: tf.reshape(t, (tf.shape(t)[0], -1))),
    "reshape_d2": (ROWS, lambda t: tf.reshape(t, [tf.shape(t)[0], 2, 6])),
    "reshape_d3": (ROWS, lambda t: tf.reshape(t, tf.stack([tf.shape(t)[0], 4, 3]))),
    "reshape_d4": (ROWS, lambda t: tf.reshape(t, [-1, tf.shape(t)[2]])),
    "shape_b": (ROWS, lambda t: t + tf.cast(tf.shape(t)[1], "float32")),
    "tile_d": (VECTORS, lambda t: tf.tile(t, [1, 3])),
    "gather": (ROWS, lambda t: tf.gather(t, [0, 2], axis=1)),
    "gather0": (ROWS, lambda t: tf.gather(t, [1, 0])),
    "norm": (ROWS, lambda t: tf.nn.l2_normalize(t, axis=-1)),
    "norm2": (ROWS, lambda t: tf.math.l2_normalize(t, -1)),
    "argmax": (ROWS, lambda t: tf.argmax(t, axis=-1)),
    "cumsum": (ROWS, lambda t: tf.cumsum(t, axis=1)),
    "zeros_like": (ROWS, lambda t: tf.zeros_like(t) + t),
    "ones_like": (ROWS, lambda t: tf.ones_like(t) * t),
    "where": (ROWS, lambda t: tf.where(t > 0.5, t, tf.zeros_like(t))),
    "sub_r": (ROWS, lambda t: 1.0 - t),
    "div": (ROWS, lambda t: 1.0 / t),
    "neg": (ROWS, lambda t: -t),
    "rsum": (ROWS, lambda t: tf.reduce_sum(t, axis=[1, 2])),
    "norm_e": (ROWS, lambda t: tf.norm(t, axis=-1)),
    "bcast": (ROWS, lambda t: tf.broadcast_to(t, [2, 3, 4])),
    "roll": (ROWS, lambda t: tf.roll(t, 1, axis=1)),
    "reverse": (ROWS, lambda t: tf.reverse(t, axis=[1])),
    "topk": (ROWS, lambda t: tf.math.top_k(t, 2)[0]),
    "lse": (ROWS, lambda t: tf.reduce_logsumexp(t, axis=1)),
    "dot": (ROWS, lambda t: tf.tensordot(t, t[0], axes=[[2], [1]])),
    "d2s": (IMAGES, lambda t: tf.nn.space_to_depth(t, 2)),
    "conv": (IMAGES, lambda t: tf.nn.avg_pool2d(t, 2, 2, "VALID")),
    "sdiff": (ROWS, lambda t: tf.math.squared_difference(t, t * 2.0)),
    "addn": (ROWS, lambda t: tf.add_n([t, t * 2.0])),
    "kbs": (ROWS, lambda t: K.sum(t, axis=1)),
    "kbm": (ROWS, lambda t: K.mean(t, axis=1)),
    "kbcat": (ROWS, lambda t: K.concatenate([t, t], axis=1)),
    "kbexp": (ROWS, lambda t: K.expand_dims(t, 1)),
    "kbdot": (ROWS, lambda t: K.batch_dot(t, t, axes=2)),
    "kbsq": (ROWS, K.square),
    "kbmax": (ROWS, lambda t: K.max(t, axis=1)),
    "kbclip": (ROWS, lambda t: K.clip(t, 0.1, 0.4)),
    "kbl2": (ROWS, lambda t: K.l2_normalize(t, axis=-1)),
    "band": (ROWS, lambda t: tf.linalg.diag_part(t[:, :3, :3])),
}


def main() -> None:
    """Write the archive."""
    target = Path(__file__).with_suffix(".zip")
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name, (x, function) in FUNCTIONS.items():
            inputs = keras.Input(x.shape[1:], dtype=x.dtype.name, name="x")
            model = keras.Model(inputs, function(inputs))
            found = model(x)
            outputs = found if isinstance(found, (list, tuple)) else [found]
            path = Path(folder, f"{name}.keras")
            model.save(path)
            archive.write(path, path.name)
            path = Path(folder, f"{name}.npz")
            np.savez(path, x=x, **{f"o{n}": np.asarray(y) for n, y in enumerate(outputs)})
            archive.write(path, path.name)


if __name__ == "__main__":
    main()

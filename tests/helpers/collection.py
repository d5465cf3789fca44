"""What the files in `tests/files` hold: how they are made, and what they have to give back.

`tests/files/<version>/` has one small file of each kind that this version of the package wrote, and
`expected.json`. A later version has to open them all. So what is built here stays as it is; what a
later version adds to its files comes in objects of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_ckpt_tools as kct
from keras_ckpt_tools.registry import Registry

FOLDER = Path(__file__).parents[1] / "files"
EXPECTED = "expected.json"
# Of the process that writes the files; a run goes on with the same one.
SEED = 1

registry = Registry()


@registry.register("kept")
class Scale(layers.Layer):
    """Multiplies by what it learns."""

    def __init__(self, start: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.start = start

    def build(self, input_shape: Any) -> None:
        start = keras.initializers.Constant(self.start)
        self.scale = self.add_weight(shape=(), initializer=start, name="scale")
        self.built = True

    def call(self, inputs: Any) -> Any:
        return inputs * self.scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start}


def reader() -> keras.Model:
    """Return a model of words: a vocabulary, a custom layer, dropout, and Adam."""
    lookup = layers.StringLookup(name="lookup")
    lookup.adapt(tf.constant(["cat", "dog", "cat"]))
    stack = [
        keras.Input((2,), dtype="string"),
        lookup,
        layers.Embedding(4, 3, name="embedding"),
        layers.Flatten(name="flat"),
        Scale(2.0, name="scale"),
        layers.Dropout(0.5, name="dropout"),
        layers.Dense(2, name="head"),
    ]
    return _compiled(keras.Sequential(stack, name="reader"))


def numeric() -> keras.Model:
    """Return a model of numbers, for the formats that have no assets."""
    stack = [keras.Input((4,)), layers.Dense(3, name="dense"), Scale(name="scale")]
    return _compiled(keras.Sequential([*stack, layers.Dense(2, name="head")], name="numeric"))


def _compiled(model: keras.Model) -> keras.Model:
    model.compile("adam", keras.losses.MeanSquaredError())
    return model


WORDS = tf.constant([["cat", "dog"], ["dog", "bird"]])
NUMBERS = np.arange(8, dtype="float32").reshape(2, 4)
TARGETS = np.eye(2, dtype="float32")


def tracked() -> dict[str, Any]:
    """Return what the manager's checkpoint has: two of a kind, and what Keras does not know."""
    objects: dict[str, Any] = {}
    for name in ("generator", "critic"):
        model = keras.Sequential([keras.Input((2,)), layers.Dense(2)], name=name)
        objects[name] = model
        objects[f"{name}_optimizer"] = keras.optimizers.Adam()
        objects[f"{name}_optimizer"].build(model.trainable_variables)
    return objects | {"rng": np.random.default_rng(0), "noise": tf.Variable([0.0, 0.0])}


def change(objects: Mapping[str, Any]) -> None:
    """Bring tracked objects into the state that is saved."""
    for name in ("generator", "critic"):
        for number, variable in enumerate(objects[f"{name}_optimizer"].variables):
            variable.assign(np.full(variable.shape, number + 1))
    objects["rng"].random(3)
    objects["noise"].assign([1.5, -2.5])


def held(item: Any) -> dict[str, Any]:
    """Return what an object holds, as digests: what `expected.json` keeps and a load gives back."""
    if isinstance(item, np.random.Generator):
        return {"state": _digest(json.dumps(item.bit_generator.state, sort_keys=True).encode())}
    if isinstance(item, keras.Model):
        words = [layer.get_vocabulary() for layer in item.layers if layer.name == "lookup"]
        optimizer = item.optimizer.variables if item.compiled else ()
        return {
            "weights": [_digest_of(variable) for variable in item.weights],
            "optimizer": [_digest_of(variable) for variable in optimizer],
            "vocabulary": [str(word) for vocabulary in words for word in vocabulary],
        }
    if isinstance(item, keras.optimizers.Optimizer):
        return {"variables": [_digest_of(variable) for variable in item.variables]}
    return {"value": _digest_of(item)}


def _digest_of(variable: Any) -> str:
    array = np.asarray(keras.ops.convert_to_numpy(variable))
    return f"{array.dtype.name}{list(array.shape)} {_digest(array.tobytes())}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def progress_of(path: Path) -> dict[str, Any]:
    """Return what a file says about where training was, but for the clock."""
    progress = kct.training_progress(path)
    return {
        "epochs_completed": progress.epochs_completed,
        "batches_completed": progress.batches_completed,
        "step": progress.step,
        "history": {name: len(values) for name, values in progress.history.items()},
        "best": progress.best and [progress.best.monitor, progress.best.epoch],
        "has_a_run_id": bool(progress.run_id),
    }

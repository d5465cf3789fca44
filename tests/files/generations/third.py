"""The third: another package, module and name; a gate; the tint has no dimension any more.

It opens what the two before it have written.
"""

from __future__ import annotations

import keras
import numpy as np

import keras_ckpt_tools as kct


def migrate_tint(weights, from_version):
    """Take the dimension away, if there is one."""
    return {"vars/0": weights["vars/0"].reshape(())}


class Tint(keras.layers.Layer):
    """A factor."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones", name="factor")

    def call(self, x):
        return x * self.factor


def migrate(config, from_version):
    """Say `units` for `width`: a file of stock Keras says no version, so what is there counts."""
    if "width" in config:
        config["units"] = config.pop("width")
    return config


def migrate_weights(weights, from_version):
    """Go from any former generation to this one, a step at a time."""
    if "inner/vars/0" in weights:
        return weights  # Of this generation, in a file of stock Keras.
    if "dense/vars/0" not in weights:
        weights = {
            "dense/vars/0": weights["vars/0"],
            "dense/vars/1": weights["vars/1"].reshape(-1),
            "tint/vars/0": np.ones((), "float32"),
        }
    inner = {name.replace("dense/", "inner/"): array for name, array in weights.items()}
    return {**inner, "vars/0": np.ones(weights["dense/vars/1"].shape, "float32")}


class GatedBlock(keras.layers.Layer):
    """`gate * tint(tanh(inner(x)))`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = keras.layers.Dense(units, activation="tanh")
        self.tint = Tint()

    def build(self, shape):
        self.gate = self.add_weight(shape=(self.units,), initializer="ones", name="gate")
        self.inner.build(shape)
        self.tint.build((*shape[:-1], self.units))

    def call(self, x):
        return self.gate * self.tint(self.inner(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Stage(keras.layers.Layer):
    """Several blocks, which no config names."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.blocks = [GatedBlock(width), GatedBlock(width)]

    def build(self, shape):
        for block in self.blocks:
            block.build(shape)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def register():
    """Register the classes, with all that they were called before."""
    kct.register("workshop", aliases=["lab>Tint"], version=2, migrate_weights=migrate_tint)(Tint)
    kct.register(
        "workshop",
        aliases=["lab>OldBlock", "lab>Block"],
        version=3,
        migrate=migrate,
        migrate_weights=migrate_weights,
    )(GatedBlock)
    kct.register("workshop", aliases=["lab>Stage"])(Stage)


def layers():
    """Return the layers of the model of this generation."""
    return [GatedBlock(3, name="entry"), Stage(3, name="stage")]

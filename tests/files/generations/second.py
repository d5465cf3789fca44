"""The second: another name; a layer does the work; a tint; the count is gone."""

from __future__ import annotations

import keras

import keras_ckpt_tools as kct


@kct.register("lab")
class Tint(keras.layers.Layer):
    """A factor."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(1,), initializer="ones", name="factor")

    def call(self, x):
        return x * self.factor


def migrate(config, from_version):
    """Say `units` for `width`."""
    config["units"] = config.pop("width")
    return config


@kct.register("lab", aliases=["OldBlock"], version=2, migrate=migrate)
class Block(keras.layers.Layer):
    """`tint(tanh(dense(x)))`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units, activation="tanh")
        self.tint = Tint()

    def build(self, shape):
        self.dense.build(shape)
        self.tint.build((*shape[:-1], self.units))

    def call(self, x):
        return self.tint(self.dense(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@kct.register("lab")
class Stage(keras.layers.Layer):
    """Several blocks, which no config names."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.blocks = [Block(width), Block(width)]

    def build(self, shape):
        for block in self.blocks:
            block.build(shape)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def layers():
    """Return the layers of the model of this generation."""
    return [Block(3, name="entry"), Stage(3, name="stage")]

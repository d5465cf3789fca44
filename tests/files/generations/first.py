"""The first generation: a block with a kernel, a bias of two dimensions, and a count."""

from __future__ import annotations

import keras

import keras_ckpt_tools as kct


@kct.register("lab")
class OldBlock(keras.layers.Layer):
    """`tanh(x @ kernel + bias)`."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.width), name="kernel")
        self.bias = self.add_weight(shape=(1, self.width), name="bias")
        self.count = self.add_weight(shape=(), trainable=False, name="count")

    def call(self, x):
        return keras.ops.tanh(keras.ops.matmul(x, self.kernel) + self.bias)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@kct.register("lab")
class Stage(keras.layers.Layer):
    """Several blocks, which no config names."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.blocks = [OldBlock(width), OldBlock(width)]

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
    return [OldBlock(3, name="entry"), Stage(3, name="stage")]

"""Programs that draw random numbers, for tests to run in processes of their own."""

from __future__ import annotations

import random
import sys
from typing import Any

import keras
import numpy as np
import state_files
import tensorflow as tf

from keras_ckpt_tools.training.state.random_generators import RandomStates


def draw() -> dict[str, list[float]]:
    """Draw from every generator of the process."""
    shuffled = tf.data.Dataset.range(8).shuffle(8).as_numpy_iterator()
    return {
        "random": [random.random(), random.gauss(0.0, 1.0), random.randint(0, 2**70)],
        "numpy": [*np.random.normal(size=3), *np.random.permutation(4)],
        "tf eager": tf.random.normal([3]).numpy().tolist(),
        "tf generator": tf.random.get_global_generator().normal([3]).numpy().tolist(),
        "tf.data": [int(n) for n in shuffled],
        "keras": np.asarray(keras.random.normal((3,))).tolist(),
        "keras layer": np.asarray(keras.layers.Dropout(0.5)(np.ones(9), training=True)).tolist(),
    }


def begin(seed: int, path: str) -> dict[str, list[float]]:
    """Draw, save, and go on: what an uninterrupted run sees after the save."""
    keras.utils.set_random_seed(seed)
    tf.random.set_global_generator(tf.random.Generator.from_seed(seed))
    for _ in range(3):
        draw()
    # An odd number of normal draws leaves one in the pocket of NumPy and of Python.
    random.gauss(0.0, 1.0)
    np.random.normal()
    state_files.save(path, RandomStates().get_state())
    return draw()


def resume(path: str, seed: int | None) -> dict[str, list[float]]:
    """Restore and go on, in a process that may have been seeded and have drawn by then."""
    if seed is not None:
        keras.utils.set_random_seed(seed)
        tf.random.set_global_generator(tf.random.Generator.from_seed(seed))
        draw()
    RandomStates().set_state(state_files.load(path))
    return draw()


def draw_in_functions(path: str, restore: bool) -> dict[str, Any]:
    """Draw inside a `tf.function`, save or restore, and draw again."""
    if restore:
        RandomStates().set_state(state_files.load(path))
    else:
        keras.utils.set_random_seed(5)
        tf.random.set_global_generator(tf.random.Generator.from_seed(5))
    generator = tf.random.get_global_generator()

    @tf.function
    def kernel() -> Any:
        return tf.random.uniform([2])

    @tf.function
    def variable() -> Any:
        return generator.uniform([2])

    def both() -> dict[str, list[float]]:
        eager = tf.random.uniform([2], seed=5)
        drawn = {"kernel": kernel(), "variable": variable(), "eager with a seed": eager}
        return {name: value.numpy().tolist() for name, value in drawn.items()}

    first = both()
    if not restore:
        state_files.save(path, RandomStates().get_state())
    second = both()
    return {"first": first, "second": second}


def modules_after_a_state() -> list[str]:
    """Return which of the frameworks that are not in use taking a state has imported."""
    before = set(sys.modules)
    RandomStates().set_state(RandomStates().get_state())
    return sorted({"torch", "jax"} & (sys.modules.keys() - before))

"""Programs that make and read data, for tests to run in processes of their own; see `processes`.

Each is called twice by its tests, in two fresh processes: once as the run that is not interrupted,
and once as the one that goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.data.iterators import iterator_state, restore_iterator

Epochs = list[list[list[int]]]


class Recorder(keras.Model):
    """Trains nothing, and keeps the first feature of each sample that it is given, by epoch."""

    def __init__(self, **compiled: Any):
        super().__init__()
        self.head = keras.layers.Dense(1)
        self.epochs: Epochs = []
        self.weights_seen: list[list[float]] = []
        self.compile("sgd", "mse", **compiled)

    def call(self, x: Any) -> Any:
        return self.head(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, _, weight = keras.utils.unpack_x_y_sample_weight(data)
        first = tf.nest.flatten(x)[0]
        tf.numpy_function(self._record, [first, -1.0 if weight is None else weight], [])
        return {"loss": tf.constant(0.0)}

    def _record(self, first: np.ndarray, weight: np.ndarray) -> None:
        self.epochs[-1].append([int(value) for value in first.reshape(len(first), -1)[:, 0]])
        self.weights_seen.append(np.ravel(weight).tolist())


class AtEachEpoch(keras.callbacks.Callback):
    """Opens an epoch of the recorder, after something else was done."""

    def __init__(self, do: Callable[[int], Any] = lambda epoch: None):
        super().__init__()
        self.do = do

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.do(epoch)
        self.model.epochs.append([])


def fitted(
    x: Any, y: Any = None, *, do: Callable[[int], Any] = lambda epoch: None, **fit: Any
) -> Epochs:
    """Return what `fit()` trains on: epochs of batches of the samples' first feature."""
    compiled = {"steps_per_execution": fit.pop("steps_per_execution", 1)}
    model = Recorder(**compiled)
    model.fit(x, y, verbose=0, callbacks=[AtEachEpoch(do)], **fit)
    return [[list(batch) for batch in epoch] for epoch in model.epochs]


def numbers(count: int) -> np.ndarray:
    """Return `count` samples of one feature, which is the index of the sample."""
    return np.arange(count, dtype="float32").reshape(count, 1)


def joined(lists: Any) -> list[Any]:
    """Return the elements of all lists in one."""
    return list(itertools.chain.from_iterable(lists))


def listed(batches: Any) -> list[Any]:
    """Return what a dataset or an iterator gives, as lists."""
    return [batch.numpy().tolist() for batch in batches]


# Pipelines, by the name of what is particular about them.


def _range(*arguments: int) -> tf.data.Dataset:
    return tf.data.Dataset.range(*arguments)


def _shuffled_inside() -> tf.data.Dataset:
    inner = _range(4).shuffle(4, seed=7)
    return _range(3).flat_map(lambda _: inner).batch(2)


PIPELINES: dict[str, Callable[[], tf.data.Dataset]] = {
    "plain": lambda: _range(12).batch(2),
    "seeded": lambda: _range(12).shuffle(5, seed=5).batch(2),
    "kept order": lambda: _range(12).shuffle(12, seed=5, reshuffle_each_iteration=False).batch(2),
    "kept order, no seed": lambda: _range(12).shuffle(12, reshuffle_each_iteration=False).batch(2),
    "no seed": lambda: _range(12).shuffle(12).batch(2),
    "two shuffles": lambda: (
        _range(3)
        .shuffle(3, seed=1)
        .flat_map(lambda i: _range(10 * i, 10 * i + 4))
        .shuffle(5, seed=2)
        .batch(2)
    ),
    "shuffled inside": _shuffled_inside,
    "cached": lambda: _range(12).shuffle(12, seed=5).cache().batch(2),
    "prefetched": lambda: (
        _range(12).shuffle(5, seed=5).map(lambda i: i, num_parallel_calls=2).batch(2).prefetch(2)
    ),
    "random map": lambda: _range(6).map(lambda i: tf.random.uniform([])).batch(2),
    "seeded random map": lambda: _range(6).map(lambda i: tf.random.uniform([], seed=4)).batch(2),
    "stateless random map": lambda: (
        _range(6).map(lambda i: tf.random.stateless_uniform([], [4, i])).batch(2)
    ),
    "repeated": lambda: _range(4).shuffle(4, seed=5).repeat().batch(2).take(12),
}


def passes(name: str, count: int, global_seed: int | None = None) -> list[Any]:
    """Return what so many passes over a pipeline give."""
    if global_seed is not None:
        tf.random.set_seed(global_seed)
    dataset = PIPELINES[name]()
    return [listed(dataset) for _ in range(count)]


def later_pass(
    name: str, number: int, how: str, batch: int = 0, global_seed: int | None = None
) -> list[Any]:
    """Return one pass over a pipeline, in a process that did not train on those before it.

    Args:
        name: Of the pipeline.
        number: Zero-based, of the pass.
        how: What is done for each pass before it: its iterator is made, its first batch is read,
            or all of it is.
        batch: Where in the pass to begin, by `skip`.
        global_seed: For `tf.random.set_seed`.
    """
    if global_seed is not None:
        tf.random.set_seed(global_seed)
    dataset = PIPELINES[name]()
    for _ in range(number):
        iterator = iter(dataset)
        if how == "its first batch is read":
            next(iterator)
        if how == "all of it is read":
            listed(iterator)
    return listed(dataset.skip(batch) if batch else dataset)


def saved_inside_a_pass(name: str) -> tuple[bytes, list[Any], list[Any]]:
    """Return the state after the first batch of the second pass, what followed, and the next."""
    dataset = PIPELINES[name]()
    listed(dataset)
    iterator = iter(dataset)
    next(iterator)
    state = iterator_state(iterator)
    return state, listed(iterator), listed(dataset)


def restored_inside_a_pass(name: str, state: bytes) -> tuple[list[Any], list[Any]]:
    """Return what follows a state in another process, and the pass after that."""
    dataset = PIPELINES[name]()
    iterator = iter(dataset)
    restore_iterator(iterator, state)
    return listed(iterator), listed(dataset)


# What `fit()` trains on.


def fitted_on_arrays(seed: int | None, draw_first: bool = False, **fit: Any) -> Epochs:
    """Return what `fit()` trains on when it is given arrays."""
    if seed is not None:
        keras.utils.set_random_seed(seed)
    if draw_first:
        tf.random.uniform([])
    return fitted(numbers(8), numbers(8), batch_size=4, **fit)


def fitted_on_array_dataset(first_epoch: int, first_batch: int, epochs: int) -> Epochs:
    """Return what `fit()` trains on when an `ArrayDataset` is begun somewhere."""
    dataset = kct.data.ArrayDataset(
        numbers(10), numbers(10), batch_size=3, shuffle=True, seed=11, workers=2
    )
    dataset.start(first_epoch, first_batch)
    return [[x[:, 0].astype(int).tolist() for x, _ in dataset] for _ in range(first_epoch, epochs)]

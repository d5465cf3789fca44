"""What the tests of data share: arrays that count what is read, and a pipeline for each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from data_programs import numbers

import keras_ckpt_tools as kct


class CountedArray:
    """Looks like an array to `ArrayDataset`, and keeps which rows were read."""

    def __init__(self, values: np.ndarray):
        self.values = values
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> np.ndarray:
        self.read += np.arange(len(self.values))[rows].tolist()
        return self.values[rows]


@pytest.fixture
def counted() -> CountedArray:
    """Ten samples of one feature; nothing of them is read yet."""
    return CountedArray(numbers(10))


@pytest.fixture
def shuffled_dataset() -> Callable[..., kct.data.ArrayDataset]:
    """A function that makes a dataset of ten samples in batches of three, always the same."""

    def make(**options: Any) -> kct.data.ArrayDataset:
        settings = {"batch_size": 3, "shuffle": True, "seed": 11, **options}
        return kct.data.ArrayDataset(numbers(10), numbers(10), **settings)

    return make


@pytest.fixture
def orders() -> list[list[list[int]]]:
    """The batches of the first epochs of `shuffled_dataset`."""
    dataset = kct.data.ArrayDataset(numbers(10), batch_size=3, shuffle=True, seed=11)
    return [
        [dataset.batch(epoch, index)[:, 0].astype(int).tolist() for index in range(4)]
        for epoch in range(10)
    ]


@pytest.fixture
def pipeline_of() -> Callable[[int], tf.data.Dataset]:
    """A pipeline that is a function of the epoch: its samples are 100 times the epoch and more."""

    def make(epoch: int) -> tf.data.Dataset:
        x = numbers(10) + 100 * epoch
        return tf.data.Dataset.from_tensor_slices((x, x)).batch(3)

    return make

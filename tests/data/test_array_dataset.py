"""`ArrayDataset` by itself: what it gives, in which order, and what it refuses."""

from __future__ import annotations

import pickle
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from data_programs import fitted_on_array_dataset, joined, numbers
from processes import run

import keras_ckpt_tools as kct
from keras_ckpt_tools.data.positions import Positioned
from keras_ckpt_tools.errors import ArgumentError


def firsts(batches: Any) -> list[list[int]]:
    """Return the samples of each batch."""
    return [x[:, 0].astype(int).tolist() for x, _ in batches]


def test_every_loop_is_the_next_epoch(shuffled_dataset, orders):
    """And each epoch has every sample once, in an order of its own."""
    dataset = shuffled_dataset()
    epochs = [firsts(dataset) for _ in range(3)]
    assert epochs == orders[:3]
    assert all(sorted(joined(epoch)) == list(range(10)) for epoch in epochs)
    assert len({str(epoch) for epoch in epochs}) == 3


def test_order_is_this_one_for_ever():
    """A checkpoint of today is resumed by the NumPy of tomorrow, so it is written down."""
    dataset = kct.data.ArrayDataset(numbers(10), numbers(10), batch_size=5, shuffle=True, seed=3)
    dataset.start(epoch=2)
    assert firsts(dataset) == [[9, 0, 6, 5, 3], [8, 2, 7, 4, 1]]


def test_no_seed_and_epoch_have_the_order_of_others():
    """Numbers that a list of seed and epoch would run together are kept apart."""
    dataset = [
        kct.data.ArrayDataset(numbers(50), batch_size=50, shuffle=True, seed=seed)
        for seed in (5, 2**32 + 5)
    ]
    assert not np.array_equal(dataset[0].batch(1, 0), dataset[1].batch(0, 0))


def test_another_process_has_the_same_order(shuffled_dataset):
    """Nothing of the order comes from what the process did before."""
    dataset = shuffled_dataset()
    expected = [firsts(dataset) for _ in range(4)]
    resumed = run(fitted_on_array_dataset, 2, 1, 4)
    assert resumed == [expected[2][1:], expected[3]]


def test_a_pass_can_begin_anywhere_without_reading_what_comes_before(counted):
    """Batch 2 of an epoch costs the rows of batch 2."""
    dataset = kct.data.ArrayDataset(counted, batch_size=3, shuffle=True, seed=11)
    whole = [batch[:, 0].astype(int).tolist() for batch in dataset]
    counted.read.clear()
    dataset.start(epoch=0, batch=2)
    rest = [batch[:, 0].astype(int).tolist() for batch in dataset]
    assert rest == whole[2:]
    assert sorted(counted.read) == sorted(joined(rest))


def test_making_a_dataset_reads_one_sample(counted):
    """Enough to see that it can be read."""
    kct.data.ArrayDataset(counted)
    assert counted.read == [0]


def test_an_iterator_that_is_not_used_is_no_epoch(shuffled_dataset, orders):
    """A pass begins when its first batch is asked for."""
    dataset = shuffled_dataset()
    iter(dataset)
    assert firsts(dataset) == orders[0]


def test_a_pass_goes_on_as_it_began(shuffled_dataset, orders):
    """Whatever is started or read from the same dataset meanwhile."""
    dataset = shuffled_dataset()
    under_way = iter(dataset)
    begun = [next(under_way)]
    dataset.start(epoch=7, batch=2)
    assert firsts(dataset) == orders[7][2:]
    assert firsts([*begun, *under_way]) == orders[0]
    assert firsts(dataset) == orders[8]


def test_a_pass_may_begin_at_its_end(shuffled_dataset, orders):
    """All batches are done: nothing comes, and then the next epoch."""
    dataset = shuffled_dataset()
    dataset.start(epoch=4, batch=4)
    assert firsts(dataset) == []
    assert firsts(dataset) == orders[5]


def test_without_shuffle_batches_come_in_the_order_of_the_arrays(shuffled_dataset):
    """The last one is smaller."""
    assert firsts(shuffled_dataset(shuffle=False)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_a_remainder_can_be_dropped(shuffled_dataset):
    """Then all batches have one size."""
    dataset = shuffled_dataset(drop_remainder=True)
    assert len(dataset) == 3
    assert [len(batch) for batch in firsts(dataset)] == [3, 3, 3]


def test_structures_are_given_back_as_they_were_given():
    """Dicts, lists and tuples, each leaf by the same rows."""
    x = {"a": numbers(5), "b": [np.arange(5), (np.arange(10).reshape(5, 2),)]}
    dataset = kct.data.ArrayDataset(x, numbers(5), np.arange(5), batch_size=2, shuffle=True, seed=0)
    batch, y, weight = dataset[0]
    rows = y[:, 0].astype(int)
    assert list(batch) == ["a", "b"]
    assert isinstance(batch["b"], list)
    assert isinstance(batch["b"][1], tuple)
    np.testing.assert_array_equal(batch["b"][0], rows)
    np.testing.assert_array_equal(batch["b"][1][0], np.arange(10).reshape(5, 2)[rows])
    np.testing.assert_array_equal(weight, rows)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", ["memmap", "h5py", "tensor", "pandas-like", "uint8", "str"])
def test_anything_with_rows_serves(kind, shuffle, tmp_path):
    """Each gives the rows that a plain array would give, as NumPy."""
    plain = (numbers(10) + 0).astype("uint8" if kind == "uint8" else "float32")
    source: Any = plain
    if kind == "memmap":
        source = np.memmap(tmp_path / "x", dtype="float32", mode="w+", shape=(10, 1))
        source[:] = plain
    elif kind == "h5py":
        source = h5py.File(tmp_path / "x.h5", "w").create_dataset("x", data=plain, chunks=(2, 1))
    elif kind == "tensor":
        source = tf.constant(plain)
    elif kind == "pandas-like":
        source = ByLabel(plain)
    elif kind == "str":
        source = plain = plain.astype("U5")
    dataset = kct.data.ArrayDataset(source, batch_size=4, shuffle=shuffle, seed=1)
    expected = kct.data.ArrayDataset(plain, batch_size=4, shuffle=shuffle, seed=1)
    for batch, same in zip(dataset, expected, strict=True):
        assert type(batch) is np.ndarray
        np.testing.assert_array_equal(batch, same)


class ByLabel:
    """As a column of pandas whose labels run backwards."""

    def __init__(self, values: np.ndarray):
        self.values = values
        self.iloc = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, labels: Any) -> np.ndarray:
        return self.values[::-1][labels]

    def to_numpy(self) -> np.ndarray:
        """Return the values by position."""
        return self.values


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_batch_is_the_loops_own(shuffle):
    """Working on it in place does not change the user's arrays."""
    x = numbers(10)
    for batch in kct.data.ArrayDataset(x, shuffle=shuffle, seed=0):
        np.add(batch, 1, out=batch)
    np.testing.assert_array_equal(x, numbers(10))


def test_a_dataset_survives_pickling(shuffled_dataset, orders):
    """As it has to for workers that are not forked."""
    dataset = shuffled_dataset()
    dataset.start(epoch=1, batch=2)
    assert firsts(pickle.loads(pickle.dumps(dataset))) == orders[1][2:]


def test_it_is_what_keras_and_the_engine_take_it_for(shuffled_dataset):
    """A `PyDataset` that has positions."""
    dataset = shuffled_dataset()
    assert isinstance(dataset, keras.utils.PyDataset)
    assert isinstance(dataset, Positioned)
    assert dataset.num_batches == len(dataset) == 4


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (0, 5), (0.5, 0), (True, 0), ("1", 0)])
def test_a_place_that_is_none_is_refused(shuffled_dataset, place):
    """With what was received."""
    with pytest.raises(ArgumentError, match="no such position") as caught:
        shuffled_dataset().start(*place)
    assert repr(place[0]) in str(caught.value)


@pytest.mark.parametrize("index", [-1, 4])
def test_a_batch_that_is_none_is_an_index_error(shuffled_dataset, index):
    """As Python's own sequences have it."""
    with pytest.raises(IndexError):
        shuffled_dataset()[index]


def test_shuffling_without_a_seed_is_refused():
    """It says why, and what to pass."""
    with pytest.raises(ArgumentError, match=r"no other process could make the same .*seed=0"):
        kct.data.ArrayDataset(numbers(4), shuffle=True)


def test_all_that_is_wrong_comes_at_once():
    """One error, however many faults."""
    with pytest.raises(ArgumentError) as caught:
        kct.data.ArrayDataset(
            {"a": numbers(4), "b": numbers(3)},
            [1, 2],
            numbers(0),
            batch_size=0,
            shuffle=True,
            workers=-1,
            max_queue_size=0,
        )
    for part in ("x['a'] has 4, x['b'] has 3, sample_weight has 0", "y[0] is 1", "y[1] is 2"):
        assert part in str(caught.value)
    for name in ("batch_size=0", "workers=-1", "max_queue_size=0", "needs a seed"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(lambda: (i for i in range(3)), "generator", id="generator"),
        pytest.param(lambda: tf.data.Dataset.range(3), "kct.data.resumable", id="tf.data"),
        pytest.param(lambda: kct.data.ArrayDataset(numbers(3)), "unchanged", id="PyDataset"),
        pytest.param(lambda: numbers(0), "no samples", id="empty"),
        pytest.param(dict, "holds no array", id="no leaves"),
        pytest.param(lambda: None, "None", id="None"),
        pytest.param(lambda: "text", "'text'", id="str"),
        pytest.param(lambda: np.float32(3), "not an array", id="scalar"),
        pytest.param(lambda: range(4), "cannot be indexed with an array", id="range"),
    ],
)
def test_what_has_no_rows_is_refused(given, said):
    """With what to do instead."""
    with pytest.raises(ArgumentError) as caught:
        kct.data.ArrayDataset(given())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 2.0}, "batch_size=2.0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"shuffle": "batch"}, "shuffle='batch'"),
        ({"batch_size": 5, "drop_remainder": True}, "no batch of 4 samples"),
        ({"sample_weight": np.ones(4)}, "y is not"),
    ],
)
def test_an_option_that_cannot_work_is_refused(options, said):
    """By name and value."""
    with pytest.raises(ArgumentError) as caught:
        kct.data.ArrayDataset(numbers(4), **options)
    assert said in str(caught.value)

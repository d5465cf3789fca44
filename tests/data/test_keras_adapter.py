"""`fit()` on an `ArrayDataset`: our order is the order, whatever `fit()` is told."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
from data_programs import AtEachEpoch, Recorder, fitted, numbers
from keras.src.trainers.data_adapters import py_dataset_adapter

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import CkptError

WORKERS = [
    pytest.param({"workers": 0}, id="none"),
    pytest.param({"workers": 1}, id="one"),
    pytest.param({"workers": 2, "max_queue_size": 2}, id="threads"),
    pytest.param({"workers": 2, "use_multiprocessing": True}, id="processes"),
    pytest.param({"workers": 1, "use_multiprocessing": True}, id="one process"),
]


@pytest.mark.parametrize("workers", WORKERS)
def test_fit_takes_the_epochs_in_their_order(shuffled_dataset, orders, workers):
    """Though `shuffle=True` is the default of `fit()`, and by whichever workers."""
    assert fitted(shuffled_dataset(**workers), epochs=3) == orders[:3]


@pytest.mark.parametrize("workers", WORKERS)
def test_fit_begins_where_it_is_told_to(shuffled_dataset, orders, workers):
    """`start` in `on_epoch_begin` is in time for that epoch."""
    dataset = shuffled_dataset(**workers)
    epochs = fitted(dataset, epochs=5, initial_epoch=3, do=dataset.start, batch_size=None)
    assert epochs == orders[3:5]


def test_keras_would_shuffle_the_batches_of_others():
    """What this is about: the same arrays in a `PyDataset` of the user's come out of order."""

    class Plain(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return numbers(10)[3 * index :][:3], numbers(10)[3 * index :][:3]

    random.seed(1)
    epochs = fitted(Plain(), epochs=2)
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def test_pythons_random_numbers_are_not_drawn(shuffled_dataset):
    """A backup keeps them, and so `fit()` must not draw behind its back."""
    model = Recorder()
    model.fit(shuffled_dataset(), verbose=0, callbacks=[AtEachEpoch()])
    before = random.getstate()
    model.fit(shuffled_dataset(), epochs=2, verbose=0, callbacks=[AtEachEpoch()])
    assert random.getstate() == before


def test_fit_reads_no_batch_twice(counted):
    """Nor one before it is asked for, to see what batches are like."""
    dataset = kct.data.ArrayDataset(counted, counted, batch_size=3, shuffle=True, seed=11)
    counted.read.clear()
    fitted(dataset, epochs=2)
    # x and y, and one sample of each that shows what they are like.
    assert sorted(counted.read) == sorted([0, 0] + 4 * list(range(10)))


@pytest.mark.parametrize("workers", WORKERS)
def test_steps_per_epoch_takes_one_pass_after_the_other(shuffled_dataset, orders, workers):
    """As Keras has it: an epoch ends where its steps do, or where the data does."""
    with pytest.warns(UserWarning, match="ran out of data"):
        epochs = fitted(shuffled_dataset(**workers), epochs=4, steps_per_epoch=3)
    assert epochs == [orders[0][:3], orders[0][3:], orders[1][:3], orders[1][3:]]


def test_steps_per_epoch_of_a_whole_pass_is_a_pass(shuffled_dataset, orders):
    """Here Keras makes the iterator of an epoch before that epoch begins; `start` is in time."""
    dataset = shuffled_dataset()
    assert fitted(dataset, epochs=3, steps_per_epoch=4) == orders[:3]
    assert fitted(dataset, epochs=3, steps_per_epoch=4, do=dataset.start) == orders[:3]


def test_several_steps_in_one_execution(shuffled_dataset, orders):
    """The last execution of an epoch has fewer."""
    assert fitted(shuffled_dataset(), epochs=2, steps_per_execution=3) == orders[:2]


def test_other_uses_of_the_dataset_do_not_change_the_epochs(shuffled_dataset, orders):
    """Evaluating, predicting and peeking before and in the middle, with `start` at each epoch."""
    dataset = shuffled_dataset()
    model = Recorder()
    next(iter(dataset))
    model.predict(dataset, verbose=0)
    model.evaluate(dataset, verbose=0)

    class Between(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            other.predict(dataset, verbose=0)

    other = Recorder()
    callbacks = [AtEachEpoch(dataset.start), Between()]
    model.fit(dataset, validation_data=dataset, epochs=3, verbose=0, callbacks=callbacks)
    assert model.epochs == orders[:3]


def test_class_weights_are_applied():
    """Keras looks them up for each batch's targets."""
    y = np.array([0, 1, 1, 0, 1])
    dataset = kct.data.ArrayDataset(numbers(5), y, batch_size=2, shuffle=True, seed=1)
    model = Recorder()
    model.fit(dataset, class_weight={0: 2.0, 1: 3.0}, verbose=0, callbacks=[AtEachEpoch()])
    expected = [[2.0 + y[int(row)] for row in batch] for batch in model.epochs[0]]
    assert model.weights_seen == expected


def test_sample_weights_are_applied():
    """They come as the third of a batch."""
    dataset = kct.data.ArrayDataset(numbers(5), numbers(5), np.arange(5.0), batch_size=5)
    model = Recorder()
    model.fit(dataset, verbose=0, callbacks=[AtEachEpoch()])
    assert model.weights_seen == [[0.0, 1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize(
    "structure", [list, tuple, lambda pair: dict(zip("ab", pair, strict=True))]
)
def test_models_of_several_inputs_are_trained(structure):
    """Lists, tuples and dicts of inputs, as `fit()` takes them for arrays."""
    inputs = {name: keras.layers.Input((1,), name=name) for name in "ab"}
    outputs = keras.layers.Dense(1)(keras.layers.Concatenate()(list(inputs.values())))
    model = keras.Model(structure(list(inputs.values())), outputs)
    model.compile("sgd", "mse")
    data = structure([numbers(6) / 6, numbers(6) / 6])
    dataset = kct.data.ArrayDataset(data, numbers(6), batch_size=2)
    history = model.fit(dataset, validation_data=dataset, epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]
    assert model.predict(kct.data.ArrayDataset(data), verbose=0).shape == (6, 1)


def test_training_is_what_it_is_on_arrays(build_cnn, digits):
    """To the last bit: the same batches give the same weights."""
    x, y = digits.x_train[:96], digits.y_train[:96]
    on_arrays, on_dataset = build_cnn(), build_cnn()
    on_arrays.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    on_dataset.fit(kct.data.ArrayDataset(x, y), epochs=2, verbose=0)
    for a, b in zip(on_arrays.get_weights(), on_dataset.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("argument", ["y", "sample_weight"])
def test_targets_beside_the_dataset_are_refused(shuffled_dataset, argument):
    """By Keras, as for every `PyDataset`."""
    with pytest.raises(ValueError, match="PyDataset"):
        Recorder().fit(shuffled_dataset(), verbose=0, **{argument: numbers(10)})


def test_an_order_of_keras_own_is_refused(shuffled_dataset):
    """If Keras took the dataset past our adapter, that would not pass in silence."""
    adapter = py_dataset_adapter.PyDatasetAdapter(shuffled_dataset(), shuffle=True)
    with pytest.raises(CkptError, match="order of its own"):
        adapter.on_epoch_begin()

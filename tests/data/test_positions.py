"""Which pass over the data `fit()` is in; seen in `fit()` itself."""

from __future__ import annotations

import warnings

import pytest
from data_programs import fitted, numbers

import keras_ckpt_tools as kct
from keras_ckpt_tools.data.positions import pass_and_batch


@pytest.mark.parametrize("steps_per_execution", [1, 2, 3])
@pytest.mark.parametrize("steps_per_epoch", [None, 1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("batches", [1, 4, 5])
def test_the_pass_is_the_one_that_fit_is_in(batches, steps_per_epoch, steps_per_execution):
    """For each epoch, its first batch is the one that is computed."""
    dataset = kct.data.ArrayDataset(numbers(batches), batch_size=1, shuffle=True, seed=2)
    expected = {
        (epoch, index): dataset.batch(epoch, index).astype(int).ravel().tolist()
        for epoch in range(5)
        for index in range(batches)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ran out of data")
        epochs = fitted(
            dataset,
            epochs=5,
            steps_per_epoch=steps_per_epoch,
            steps_per_execution=steps_per_execution,
        )
    for epoch, seen in enumerate(epochs):
        for batch, samples in enumerate(seen):
            place = pass_and_batch(
                epoch,
                batch,
                batches=batches,
                steps_per_epoch=steps_per_epoch,
                steps_per_execution=steps_per_execution,
            )
            assert expected[place] == samples


def test_data_without_end_is_one_pass():
    """An execution of several steps is not cut short at the end of an epoch."""
    assert pass_and_batch(2, 1, batches=None, steps_per_epoch=3) == (0, 7)
    assert pass_and_batch(2, 1, batches=None, steps_per_epoch=3, steps_per_execution=2) == (0, 9)

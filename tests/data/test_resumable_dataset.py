"""`resumable`: one tf.data.Dataset whose passes are the epochs of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from data_programs import AtEachEpoch, Recorder, fitted, joined, numbers

import keras_ckpt_tools as kct
from keras_ckpt_tools.data.positions import Positioned
from keras_ckpt_tools.errors import ArgumentError


def firsts(batches: Any) -> list[list[int]]:
    """Return the samples of each batch."""
    return [x.numpy()[:, 0].astype(int).tolist() for x, _ in batches]


def whole(epoch: int) -> list[list[int]]:
    """Return the batches of an epoch of `pipeline_of`."""
    samples = [100 * epoch + i for i in range(10)]
    return [samples[i : i + 3] for i in range(0, 10, 3)]


def test_every_loop_is_the_next_epoch(pipeline_of):
    """The function is called anew for each."""
    dataset = kct.data.resumable(pipeline_of, first_epoch=3)
    assert [firsts(dataset) for _ in range(3)] == [whole(3), whole(4), whole(5)]


def test_a_pass_can_begin_anywhere(pipeline_of):
    """And the pass after it is the next epoch."""
    dataset = kct.data.resumable(pipeline_of)
    dataset.start(epoch=5, batch=2)
    assert [firsts(dataset), firsts(dataset)] == [whole(5)[2:], whole(6)]


def test_it_is_a_dataset_that_has_positions(pipeline_of):
    """Its length and the kind of its elements are those of each epoch."""
    dataset = kct.data.resumable(pipeline_of)
    assert isinstance(dataset, tf.data.Dataset)
    assert isinstance(dataset, Positioned)
    assert len(dataset) == int(dataset.cardinality()) == 4
    assert dataset.element_spec == pipeline_of(0).element_spec
    assert not dataset.options().deterministic
    dataset.start(2, 1)
    assert "next is epoch 2, batch 1" in repr(dataset)


def test_an_iterator_that_is_not_used_is_no_epoch(pipeline_of):
    """A pass begins when its first batch is asked for, and so does the call of the function."""
    called: list[int] = []

    def fn(epoch: int) -> tf.data.Dataset:
        called.append(epoch)
        return pipeline_of(epoch)

    dataset = kct.data.resumable(fn)
    unused = iter(dataset)
    assert firsts(dataset) == whole(0)
    assert called == [0, 0]
    assert firsts(unused) == whole(1)


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_fit_takes_the_epochs_one_by_one(pipeline_of, steps_per_execution):
    """Keras makes one iterator too many for each epoch, and that changes nothing."""
    called: list[int] = []

    def fn(epoch: int) -> tf.data.Dataset:
        called.append(epoch)
        return pipeline_of(epoch)

    dataset = kct.data.resumable(fn)
    epochs = fitted(dataset, epochs=3, shuffle=False, steps_per_execution=steps_per_execution)
    assert epochs == [whole(0), whole(1), whole(2)]
    assert called == [0, 0, 1, 2]


def test_fit_begins_where_it_is_told_to(pipeline_of):
    """`start` in `on_epoch_begin` is in time for that epoch."""
    dataset = kct.data.resumable(pipeline_of)
    epochs = fitted(dataset, epochs=5, initial_epoch=3, shuffle=False, do=dataset.start)
    assert epochs == [whole(3), whole(4)]


@pytest.mark.parametrize("steps", [2, 4])
def test_steps_per_epoch_takes_one_pass_after_the_other(pipeline_of, steps):
    """As of any tf.data.Dataset."""
    dataset = kct.data.resumable(pipeline_of)
    epochs = fitted(dataset, epochs=4, shuffle=False, steps_per_epoch=steps)
    taken = [batch for epoch in range(4) for batch in whole(epoch)]
    assert epochs == [taken[i * steps : (i + 1) * steps] for i in range(4)]


def test_an_epoch_without_end_is_one_pass(pipeline_of):
    """With `repeat` inside the function, `steps_per_epoch` counts within epoch 0 of the data."""
    dataset = kct.data.resumable(lambda epoch: pipeline_of(epoch).repeat())
    epochs = fitted(dataset, epochs=3, shuffle=False, steps_per_epoch=3)
    assert joined(epochs) == (whole(0) * 3)[:9]


def test_class_weights_are_applied_and_the_place_is_kept():
    """Keras trains on a dataset that it makes of ours; `start` on ours moves that one too."""
    y = np.array([0, 1, 1, 0, 1])

    def fn(epoch: int) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((numbers(5) + 10 * epoch, y)).batch(2)

    dataset = kct.data.resumable(fn)
    model = Recorder()
    callbacks = [AtEachEpoch(lambda epoch: dataset.start(epoch + 4, 1))]
    weights = {0: 2.0, 1: 3.0}
    # Without the engine, Keras still counts to the length of a whole epoch.
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(dataset, class_weight=weights, shuffle=False, verbose=0, callbacks=callbacks)
    assert model.epochs == [[[42, 43], [44]]]
    assert model.weights_seen == [[3.0, 2.0], [3.0]]


def test_structures_validation_and_prediction(pipeline_of):
    """Whatever a tf.data.Dataset may give, this may."""
    inputs = {name: keras.layers.Input((1,), name=name) for name in "ab"}
    outputs = keras.layers.Dense(1)(keras.layers.Concatenate()(list(inputs.values())))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")

    def fn(epoch: int) -> tf.data.Dataset:
        x = {"a": numbers(6) / 6, "b": numbers(6) / 6}
        return tf.data.Dataset.from_tensor_slices((x, numbers(6))).batch(2)

    dataset = kct.data.resumable(fn)
    history = model.fit(dataset, validation_data=dataset, epochs=2, verbose=0, shuffle=False)
    assert history.history["loss"][1] < history.history["loss"][0]
    assert model.predict(dataset, verbose=0).shape == (6, 1)


def test_training_is_what_it_is_on_the_pipeline(build_cnn, digits):
    """To the last bit, and compiled as ever."""
    pipeline = tf.data.Dataset.from_tensor_slices((digits.x_train[:96], digits.y_train[:96]))
    pipeline = pipeline.batch(32)
    plain, resumed = build_cnn(), build_cnn()
    plain.fit(pipeline, epochs=2, verbose=0, shuffle=False)
    resumed.fit(kct.data.resumable(lambda epoch: pipeline), epochs=2, verbose=0, shuffle=False)
    for a, b in zip(plain.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_transformations_are_applied_in_each_epoch(pipeline_of):
    """And `start` counts what comes out of them."""
    dataset = kct.data.resumable(pipeline_of).unbatch().batch(5).map(lambda x, y: (x + 1, y))
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    assert int(dataset.cardinality()) == tf.data.UNKNOWN_CARDINALITY
    assert firsts(dataset) == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    dataset.start(2, 1)
    assert firsts(dataset) == [[206, 207, 208, 209, 210]]


def test_every_transformation_of_tensorflow_is_known():
    """A method of a later TensorFlow that returns a dataset needs a decision here."""
    plain = tf.data.Dataset.range(2)
    no_transformations = {
        "as_numpy_iterator", "cardinality", "choose_from_datasets", "counter", "element_spec",
        "fingerprint", "from_generator", "from_tensor_slices", "from_tensors", "get_single_element",
        "list_files", "load", "options", "random", "range", "reduce", "repeat",
        "sample_from_datasets", "save", "zip",
    }  # fmt: skip
    names = {name for name in dir(plain) if not name.startswith("_")} - no_transformations
    dataset = type(kct.data.resumable(lambda epoch: plain))
    assert {name for name in names if name not in vars(dataset)} == set()


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda d: tf.data.Dataset.zip(d, d), id="zip"),
        pytest.param(lambda d: d.reduce(0, lambda a, b: a), id="reduce"),
        pytest.param(tf.function(lambda d: d.cardinality()), id="argument of tf.function"),
        pytest.param(lambda d: tf.function(lambda: next(iter(d)))(), id="inside tf.function"),
        pytest.param(
            lambda d: tf.distribute.MirroredStrategy(["CPU:0"]).experimental_distribute_dataset(d),
            id="strategy",
        ),
    ],
)
def test_what_would_take_one_epoch_for_all_is_refused(pipeline_of, use: Callable[[Any], Any]):
    """In place of the first epoch again and again, in silence."""
    with pytest.raises(ArgumentError, match="inside the function given to `resumable`"):
        use(kct.data.resumable(pipeline_of))


def test_repeating_is_refused(pipeline_of):
    """It would repeat one epoch, where the next is wanted."""
    with pytest.raises(ArgumentError, match="is the next epoch already"):
        kct.data.resumable(pipeline_of).repeat()


def test_an_epoch_of_other_elements_is_refused(pipeline_of):
    """Both kinds are named, in `fit()` too."""
    dataset = kct.data.resumable(
        lambda epoch: pipeline_of(0) if epoch < 1 else pipeline_of(0).map(lambda x, y: x)
    )
    with pytest.raises(ArgumentError, match=r"epoch 1 has other elements.*expected \(TensorSpec"):
        fitted(dataset, epochs=2, shuffle=False)


@pytest.mark.parametrize("returned", [None, numbers(3), "later"])
def test_what_is_no_dataset_is_refused(pipeline_of, returned):
    """At once, or in the epoch where it happens."""
    if isinstance(returned, str):
        dataset = kct.data.resumable(lambda epoch: pipeline_of(0) if epoch < 1 else [1])
        firsts(dataset)
        with pytest.raises(ArgumentError, match=r"fn\(1\)=list"):
            firsts(dataset)
    else:
        with pytest.raises(ArgumentError, match=r"has to return a tf.data.Dataset.*fn\(0\)="):
            kct.data.resumable(lambda epoch: returned)


def test_an_error_of_the_function_is_the_users(pipeline_of):
    """It comes up in the loop, as it was raised."""

    def fn(epoch: int) -> tf.data.Dataset:
        if epoch == 1:
            raise FileNotFoundError("epoch1.tfrecord")
        return pipeline_of(epoch)

    with pytest.raises(FileNotFoundError, match=r"epoch1\.tfrecord"):
        fitted(kct.data.resumable(fn), epochs=2, shuffle=False)


def test_a_function_is_needed(pipeline_of):
    """Not the dataset that it would make; and an index to begin with."""
    with pytest.raises(ArgumentError, match="needs a function"):
        kct.data.resumable(pipeline_of(0))
    with pytest.raises(ArgumentError, match="first_epoch=-1"):
        kct.data.resumable(pipeline_of, first_epoch=-1)


@pytest.mark.parametrize("place", [(-1, 0), (0, 5), (0, 1.0)])
def test_a_place_that_is_none_is_refused(pipeline_of, place):
    """As by an `ArrayDataset`."""
    with pytest.raises(ArgumentError, match="no such position"):
        kct.data.resumable(pipeline_of).start(*place)

"""What of each kind of input can be replayed: the rows of the tables in `docs/data.md`.

Each row is seen in two fresh processes: the run that is not interrupted, and the one that goes on.
"""

from __future__ import annotations

import pytest
import tensorflow as tf
from data_programs import (
    PIPELINES,
    fitted,
    fitted_on_arrays,
    joined,
    later_pass,
    listed,
    numbers,
    passes,
)
from processes import run

MADE, BEGUN, READ = "its iterator is made", "its first batch is read", "all of it is read"

# By which of these the third pass is what it was in the run that was not interrupted.
REPLAYED_BY = {
    "plain": {MADE, BEGUN, READ},
    "seeded": {MADE, BEGUN, READ},
    "kept order": {MADE, BEGUN, READ},
    "prefetched": {MADE, BEGUN, READ},
    "seeded random map": {MADE, BEGUN, READ},
    "stateless random map": {MADE, BEGUN, READ},
    # The inner pipeline's iterator is made when the outer one's first element is asked for.
    "two shuffles": {BEGUN, READ},
    # These depend on what was read; a repetition inside of a pass is an iterator, too.
    "repeated": {READ},
    "cached": {READ},
    "shuffled inside": {READ},
    # Each process has an order of its own.
    "no seed": set(),
    "kept order, no seed": set(),
    "random map": set(),
}


@pytest.mark.parametrize("name", REPLAYED_BY)
def test_a_later_pass_is_replayed_by_what_the_table_says(name):
    """And by nothing less."""
    expected = run(passes, name, 3)[2]
    found = {how for how in (MADE, BEGUN, READ) if run(later_pass, name, 2, how) == expected}
    assert found == REPLAYED_BY[name]


@pytest.mark.parametrize("name", ["seeded", "kept order", "stateless random map"])
def test_skip_begins_in_the_middle_of_a_pass(name):
    """It counts as an iterator of the dataset, and what it passes over is made and left out."""
    expected = run(passes, name, 3)[2]
    assert run(later_pass, name, 2, MADE, 1) == expected[1:]


@pytest.mark.parametrize("name", ["no seed", "kept order, no seed", "random map"])
def test_a_global_seed_makes_a_pipeline_repeatable(name):
    """`tf.random.set_seed`, in both processes, before the dataset is made."""
    expected = run(passes, name, 3, 9)[2]
    assert run(later_pass, name, 2, MADE, 0, 9) == expected


def test_a_global_seed_counts_beside_the_seed_of_a_shuffle():
    """So it has to be the same in a run that goes on."""
    assert run(passes, "seeded", 1, 9) != run(passes, "seeded", 1)


def test_without_a_seed_of_its_own_a_shuffle_depends_on_what_was_made_before():
    """One operation more, anywhere in the program, and the order is another."""
    orders = []
    for draws in (0, 1):
        tf.random.set_seed(9)
        for _ in range(draws):
            tf.random.uniform([])
        orders.append(listed(PIPELINES["no seed"]()))
    assert orders[0] != orders[1]


def test_random_numbers_of_a_map_begin_again_in_each_pass():
    """With a seed, augmentation by `tf.random` repeats itself in each epoch."""
    first, second = run(passes, "seeded random map", 2)
    assert first == second


@pytest.mark.parametrize(
    ("make", "fit", "used"),
    [
        pytest.param(lambda d: d, {}, [0, 2, 4], id="known length"),
        pytest.param(
            lambda d: d,
            {"class_weight": dict.fromkeys(range(8), 1.0)},
            [0, 2, 4],
            id="class_weight",
        ),
        pytest.param(lambda d: d.filter(lambda *_: True), {}, [0, 1, 2], id="unknown length"),
        pytest.param(lambda d: d, {"steps_per_epoch": 4}, [0, 1, 2], id="steps_per_epoch"),
        pytest.param(lambda d: d, {"initial_epoch": 1}, [0, 2], id="initial_epoch"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_fit_makes_iterators_that_it_does_not_use(make, fit, used):
    """Where the length is known, each epoch but the first is the second next pass."""

    def dataset() -> tf.data.Dataset:
        x = tf.data.Dataset.from_tensor_slices((numbers(8), numbers(8)))
        return make(x.shuffle(8, seed=5).batch(2))

    again = dataset()
    expected = [[x.numpy()[:, 0].astype(int).tolist() for x, _ in again] for _ in range(6)]
    epochs = fitted(dataset(), epochs=3, shuffle=False, **fit)
    assert [expected.index(epoch) for epoch in epochs] == used


def test_a_repeated_dataset_is_one_iterator_for_all_epochs():
    """`skip` of all that was trained on begins it in the middle, exactly."""

    def dataset() -> tf.data.Dataset:
        x = tf.data.Dataset.from_tensor_slices((numbers(8), numbers(8)))
        return x.shuffle(8, seed=5).batch(2).repeat()

    epochs = fitted(dataset(), epochs=4, steps_per_epoch=3, shuffle=False)
    resumed = fitted(dataset().skip(7), epochs=1, steps_per_epoch=5, shuffle=False)
    assert joined(epochs)[7:] == joined(resumed)


def test_arrays_have_one_order_for_one_global_seed():
    """So an epoch can be begun again exactly, whatever random numbers were drawn before it."""
    epochs = run(fitted_on_arrays, 9)
    assert epochs == run(fitted_on_arrays, 9) == run(fitted_on_arrays, 9, True)
    assert epochs[0] != [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_arrays_have_the_same_order_in_every_epoch_with_a_global_seed():
    """Keras' shuffle is a random operation in a map, which begins again in each pass."""
    first, second = fitted_on_arrays(9, epochs=2)
    assert first == second


def test_arrays_have_another_order_in_each_process_without_a_global_seed():
    """There is nothing that it could be replayed from."""
    assert run(fitted_on_arrays, None) != run(fitted_on_arrays, None)


def test_arrays_without_shuffle_are_taken_in_their_order():
    """Exact wherever it is begun."""
    assert fitted_on_arrays(None, shuffle=False) == [[[0, 1, 2, 3], [4, 5, 6, 7]]]


def test_a_generator_continues_where_it_was():
    """What is drawn from it, it will not give again; how far Keras reads ahead is a race."""
    drawn = []

    def generate():
        while True:
            drawn.append(len(drawn))
            yield numbers(2) + 10 * drawn[-1], numbers(2)

    assert fitted(generate(), epochs=2, steps_per_epoch=2, shuffle=False) == [
        [[0, 1], [10, 11]],
        [[20, 21], [30, 31]],
    ]
    assert len(drawn) >= 4

"""The state of a tf.data iterator goes to another process and is refused where it does not fit."""

from __future__ import annotations

import pytest
import tensorflow as tf
from data_programs import PIPELINES, restored_inside_a_pass, saved_inside_a_pass
from hypothesis import given
from hypothesis import strategies as st
from processes import run

import keras_ckpt_tools as kct
from keras_ckpt_tools.data.iterators import iterator_state, restore_iterator
from keras_ckpt_tools.errors import ArgumentError, DamagedArtefactError, RestoreError

EXACT = ["plain", "seeded", "kept order", "two shuffles", "shuffled inside", "cached", "prefetched",
         "stateless random map", "repeated"]  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_a_pass_goes_on_in_another_process(name):
    """And the pass after it is the one that would have come."""
    state, rest, following = run(saved_inside_a_pass, name)
    assert run(restored_inside_a_pass, name, state) == (rest, following)


@pytest.mark.parametrize("name", ["no seed", "kept order, no seed"])
def test_without_a_seed_only_the_pass_under_way_goes_on(name):
    """The passes after it have an order of their own in each process."""
    state, rest, following = run(saved_inside_a_pass, name)
    restored_rest, restored_following = run(restored_inside_a_pass, name, state)
    assert restored_rest == rest
    assert restored_following != following


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(PIPELINES["random map"], id="random map"),
        pytest.param(PIPELINES["seeded random map"], id="seeded random map"),
        pytest.param(
            lambda: tf.data.Dataset.from_generator(
                lambda: iter([1, 2]), output_signature=tf.TensorSpec((), tf.int32)
            ),
            id="generator",
        ),
    ],
)
def test_state_outside_of_the_pipeline_is_refused(make):
    """It could be saved in part only, so nothing is."""
    with pytest.raises(ArgumentError, match=r"cannot save the state.*stateful"):
        iterator_state(iter(make()))


@pytest.mark.parametrize(
    "thing",
    [
        pytest.param(lambda: tf.data.Dataset.range(3), id="a dataset"),
        pytest.param(lambda: iter([1, 2]), id="another iterator"),
        pytest.param(lambda: None, id="None"),
        pytest.param(
            lambda: iter(kct.data.resumable(lambda epoch: tf.data.Dataset.range(3))),
            id="of a resumable",
        ),
    ],
)
def test_what_is_no_iterator_of_tf_data_is_refused(thing):
    """By both functions."""
    state = iterator_state(iter(tf.data.Dataset.range(3)))
    with pytest.raises(ArgumentError, match=r"iter\(dataset\)"):
        iterator_state(thing())
    with pytest.raises(ArgumentError, match=r"iter\(dataset\)"):
        restore_iterator(thing(), state)


def in_the_middle() -> tf.data.Iterator:
    """Return an iterator after its first batch."""
    iterator = iter(PIPELINES["seeded"]())
    next(iterator)
    return iterator


@given(st.data())
def test_a_changed_byte_is_found(data):
    """Wherever it is, before TensorFlow sees any of it."""
    state = bytearray(STATE)
    state[data.draw(st.integers(0, len(state) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedArtefactError, match="incomplete or damaged"):
        restore_iterator(iter(PIPELINES["seeded"]()), bytes(state))


STATE = iterator_state(in_the_middle())


@pytest.mark.parametrize("end", [0, 5, 20, 40, -1])
def test_a_truncated_state_is_found(end):
    """Also where nothing is left."""
    with pytest.raises(DamagedArtefactError, match="incomplete or damaged"):
        restore_iterator(iter(PIPELINES["seeded"]()), STATE[:end])


def test_the_state_of_other_elements_is_refused():
    """Both kinds are named."""
    with pytest.raises(RestoreError, match=r"expected .*float32.*found .*int64"):
        restore_iterator(iter(PIPELINES["stateless random map"]()), STATE)


def test_the_state_of_another_pipeline_is_refused_and_changes_nothing():
    """As far as TensorFlow tells them apart; the iterator goes on where it was."""
    # TensorFlow alone loses the rest of a pass in some of the attempts.
    for _ in range(20):
        iterator = iter(tf.data.Dataset.range(10).batch(2).prefetch(1))
        next(iterator)
        with pytest.raises(RestoreError, match="written by TensorFlow"):
            restore_iterator(iterator, STATE)
        assert next(iterator).numpy().tolist() == [2, 3]

"""Many variables are read in few calls, and each value is still its own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ckpt_tools.live.bulk_read import BulkRead

_DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int8", "uint32", "bool")


def _variables() -> list[tf.Variable]:
    """Return variables of many types and sizes, in no order, so many that no call reads all."""
    random = np.random.default_rng(0)
    shapes = [(), (3,), (3, 5), (0, 4), (64, 128), (3,)]
    made = [
        tf.Variable(tf.cast(random.integers(0, 2, shape), dtype))
        for dtype in _DTYPES
        for shape in shapes * 12
    ]
    made += [tf.Variable(["a", "b"]), tf.Variable([1.0, 2.0], shape=tf.TensorShape(None))]
    return [made[index] for index in random.permutation(len(made))]


def _bytes(array: Any) -> tuple[Any, Any, bytes]:
    array = np.asarray(array)
    return array.shape, array.dtype, array.tobytes() if array.dtype != object else array.tolist()


def test_each_value_is_what_its_variable_has() -> None:
    """In the order of the variables, whatever they are."""
    variables = _variables()
    found = BulkRead(variables)()()
    expected = [_bytes(variable.numpy()) for variable in variables]
    assert [_bytes(array) for array in found] == expected


def test_values_are_those_of_the_call() -> None:
    """What is assigned before they are looked at does not count."""
    variables = [tf.Variable(np.full(shape, n, "float32")) for n in range(5) for shape in (2, 9999)]
    read = BulkRead(variables)
    for past in range(3):
        taken = read()
        for variable in variables:
            variable.assign_add(tf.ones_like(variable))
        assert [float(array[0]) for array in taken()] == [n + past for n in range(5) for _ in "ab"]


def test_small_ones_are_copied_and_large_ones_are_not() -> None:
    """A reference to a small one costs more than its bytes."""
    small = [tf.Variable(np.ones(16, "float32")) for _ in range(4)]
    large = [tf.Variable(np.ones(9_999, "float32")) for _ in range(4)]
    read = BulkRead([*small, *large])
    one, two = read()(), read()()
    shared = [np.shares_memory(a, b) for a, b in zip(one, two, strict=True)]
    assert shared == [False] * 4 + [True] * 4


def test_a_variable_whose_shape_changes_is_read_as_it_is() -> None:
    """TensorFlow allows it where the shape was left open."""
    variables = [tf.Variable(np.zeros(n), shape=tf.TensorShape(None)) for n in range(4)]
    read = BulkRead(variables)
    for variable in variables:
        variable.assign(np.ones((2, 3)))
    assert [array.shape for array in read()()] == [(2, 3)] * 4


def test_variables_of_keras_are_read_too() -> None:
    """They stand for one of TensorFlow's."""
    variables = [keras.Variable(float(n)) for n in range(5)]
    assert [float(array) for array in BulkRead(variables)()()] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_functions_that_run_eagerly_change_nothing() -> None:
    """A user who looks for a fault in a model turns tracing off."""
    tf.config.run_functions_eagerly(True)
    try:
        variables = [tf.Variable([float(n)] * 21) for n in range(7)]
        assert [float(array[0]) for array in BulkRead(variables)()()] == [*map(float, range(7))]
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("seed", [True, False])
def test_random_numbers_are_what_they_would_have_been(seed: bool) -> None:
    """Reading draws none: a run with saves is the same as one without."""

    def numbers(read: bool) -> list[float]:
        tf.random.set_seed(7)
        found = [float(tf.random.uniform([]))]
        if read:
            BulkRead([tf.Variable([float(n)] * 23) for n in range(6)])()
        return [*found, float(tf.random.uniform([], seed=3 if seed else None))]

    assert numbers(True) == numbers(False)

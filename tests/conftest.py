"""What every test gets: the same random numbers, Keras' global state put back, small real data.

Keras and TensorFlow are imported by those fixtures only that need them, so that the tests of what
reads without a framework start at once.
"""

from __future__ import annotations

import copy
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, MutableMapping
from itertools import zip_longest
from typing import Any, NamedTuple

# Before TensorFlow is imported anywhere: no accelerator, so that numbers repeat, and no chatter.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
import pytest
from hypothesis import settings

# In the background of a shell Ctrl-C is ignored; some tests send it to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine that is busy with something else is no reason to fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SEED = 20


class Digits(NamedTuple):
    """scikit-learn's digits: 8x8 pixels in 0..1, as `float32` of shape (n, 8, 8, 1)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@pytest.fixture(autouse=True)
def repeatable() -> None:
    """Seed every generator, and start Keras' automatic names (`dense_1`) anew."""
    random.seed(SEED)
    np.random.seed(SEED)
    if "keras" in sys.modules:
        import keras

        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(SEED)


@pytest.fixture(autouse=True)
def keras_registries_put_back() -> Iterator[None]:
    """Give Keras' two global registries back as they were: what a test registers stays in it."""
    before = [dict(table) for table in _keras_registries()]
    yield
    for table, content in zip_longest(_keras_registries(), before, fillvalue={}):
        # If the test was the first to import Keras, `before` is empty, as the tables were.
        table.clear()
        table.update(content)


def _keras_registries() -> list[dict[Any, Any]]:
    if "keras" not in sys.modules:
        return []
    from keras.src.saving import object_registration

    return [object_registration.GLOBAL_CUSTOM_NAMES, object_registration.GLOBAL_CUSTOM_OBJECTS]


@pytest.fixture(autouse=True)
def default_registry_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test have the default registry as a copy, which goes with the test."""
    from keras_ckpt_tools import registry

    table = copy.copy(registry._table)
    for name, value in vars(table).items():
        if isinstance(value, MutableMapping):
            setattr(table, name, copy.copy(value))
    monkeypatch.setattr(registry, "_table", table)


@pytest.fixture
def registry() -> Any:
    """A registry of the test's own, which neither Keras nor another test sees."""
    from keras_ckpt_tools.registry import Registry

    return Registry()


@pytest.fixture(scope="session")
def digits() -> Digits:
    """The digits, split in two; read-only, because all tests share them."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images / 16.0).astype("float32")[..., np.newaxis]
    y = bunch.target.astype("int32")
    split = Digits(x[:1500], y[:1500], x[1500:], y[1500:])
    for array in split:
        array.setflags(write=False)
    return split


@pytest.fixture
def build_cnn() -> Callable[..., Any]:
    """A function that builds a small compiled CNN for the digits, the same one each time."""
    import keras

    def build(*, compiled: bool = True, filters: int = 4, dropout: float = 0.0) -> Any:
        keras.utils.set_random_seed(SEED)
        model = keras.Sequential(
            [
                keras.layers.Input((8, 8, 1)),
                keras.layers.Conv2D(filters, 3, activation="relu", name="conv"),
                keras.layers.MaxPooling2D(name="pool"),
                keras.layers.Flatten(name="flat"),
                keras.layers.Dropout(dropout, name="dropout"),
                keras.layers.Dense(10, activation="softmax", name="head"),
            ],
            name="cnn",
        )
        if compiled:
            model.compile(
                optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"]
            )
        return model

    return build

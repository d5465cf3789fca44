"""Story: whatever can be saved goes from us to stock Keras and back, bit by bit.

What is expected is what stock Keras gives back from its own file, which is what was saved but for
the few cases that `structures` lists with their reasons. The first test here holds these to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from structures import (
    BUILDERS,
    NOBODY_CAN,
    OBJECTS,
    STOCK_CANNOT,
    STOCK_LOSES,
    UNTRAINED,
    by_stock,
    by_us,
    random_state,
    trained,
    values,
)

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import DamagedArtefactError, RestoreError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.training.writing import save_model

# All structures are given one table of custom objects.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.* does not use these names:UserWarning"),
]

every_structure = pytest.mark.parametrize("saved", BUILDERS, indirect=True, scope="module")
every_file = pytest.mark.parametrize("file", ["a.keras", "a.weights.h5"])


def refused() -> Any:
    """Expect stock Keras to fail, in whatever way it does; skipping with a warning is one."""
    return pytest.raises((OSError, TypeError, ValueError, UserWarning))


@every_structure
@every_file
def test_stock_keras_gives_back_what_it_saved(saved: Any, file: str) -> None:
    """Or does not, where we say so: a Keras that does makes this fail."""
    case = (saved.name, file)
    if case in STOCK_CANNOT or case in NOBODY_CAN:
        with refused():
            saved.by_stock(file)
    elif case in STOCK_LOSES:
        assert saved.by_stock(file) != saved.held
    else:
        assert saved.by_stock(file) == saved.held


@every_structure
@every_file
def test_stock_keras_opens_ours(saved: Any, file: str) -> None:
    """It gets out of our file what it gets out of its own."""
    case = (saved.name, file)
    if case in STOCK_CANNOT or case in NOBODY_CAN:
        with refused():
            by_stock(saved.builder, saved.ours / file)
    else:
        assert by_stock(saved.builder, saved.ours / file) == saved.by_stock(file)


@every_structure
@every_file
def test_we_open_ours(saved: Any, file: str) -> None:
    """What was saved, or what stock Keras makes of it; where it cannot be had, an error says so."""
    case = (saved.name, file)
    if case in NOBODY_CAN:
        with pytest.raises(RestoreError):
            by_us(saved.builder, saved.ours / file)
    else:
        expected = saved.held if case in STOCK_CANNOT else saved.by_stock(file)
        assert by_us(saved.builder, saved.ours / file) == expected


@every_structure
@every_file
def test_we_open_those_of_stock_keras(saved: Any, file: str) -> None:
    """Files without a record, whatever is in them."""
    case = (saved.name, file)
    if case in STOCK_CANNOT or case in NOBODY_CAN:
        with pytest.raises((RestoreError, DamagedArtefactError, FileNotFoundError)):
            by_us(saved.builder, saved.stock / file)
    else:
        assert by_us(saved.builder, saved.stock / file) == saved.by_stock(file)


@pytest.mark.parametrize("name", UNTRAINED)
def test_an_optimizer_without_state_yet_is_whole(name: str, tmp_path: Path) -> None:
    """Stock Keras skips it, in its own file as in ours; with us its step and rate come back."""
    model = trained(UNTRAINED[name]).model
    model.optimizer.learning_rate = 0.125
    save_model(str(tmp_path / "ours.keras"), model, TrainingProgress(), ".keras")
    model.save(tmp_path / "stock.keras")
    for file in ("ours.keras", "stock.keras"):
        with refused():
            keras.models.load_model(tmp_path / file)
        loaded = kct.safe_load_model(tmp_path / file)
        assert loaded.optimizer.built
        assert float(np.asarray(loaded.optimizer.learning_rate)) == 0.125
        assert values(loaded)["weights"] == values(model)["weights"]


def test_random_generators_come_back_from_ours(tmp_path: Path) -> None:
    """Stock Keras leaves them out."""
    for name in ("random_generators", "recurrent", "attention"):
        built = trained(BUILDERS[name])
        path = str(tmp_path / "a.keras")
        save_model(path, built.model, TrainingProgress(), ".keras")
        expected = random_state(built.model)
        assert expected
        assert random_state(kct.safe_load_model(path, OBJECTS)) == expected
        assert random_state(keras.models.load_model(path, custom_objects=OBJECTS)) != expected

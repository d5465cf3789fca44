"""Files of each format, written by us, for the tests of what reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def trained() -> Any:
    """A small compiled model with dropout, trained for one batch."""
    import keras
    import numpy as np

    model = keras.Sequential(
        [
            keras.layers.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    model.compile("adam", keras.losses.MeanSquaredError())
    model.fit(np.ones((4, 8), "float32"), np.ones((4, 3), "float32"), verbose=0)
    return model


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """A function that saves a model by our writer, under the name of a format."""
    from keras_ckpt_tools.metadata import TrainingProgress
    from keras_ckpt_tools.training.writing import save_model

    def write(model: Any, suffix: str, **progress: Any) -> Path:
        path = tmp_path / f"model{suffix}"
        save_model(str(path), model, TrainingProgress(**progress), suffix)
        return path

    return write

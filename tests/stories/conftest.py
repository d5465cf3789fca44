"""Each structure, saved once by us and by stock Keras, for the tests that open the files."""

from __future__ import annotations

import contextlib
import functools
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="module")
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of one structure: what it held, and the folders of its files, `ours` and `stock`.

    Ours are written in the background, and the model is trained on at once.
    """
    import keras
    import structures

    import keras_ckpt_tools as kct

    keras.utils.clear_session(free_memory=False)
    name = request.param
    builder = structures.BUILDERS[name]
    built = structures.trained(builder)
    ours, stock = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("stock")
    with contextlib.nullcontext() if name not in structures.UNSAVED else pytest.raises(TypeError):
        built.model.save(stock / "a.keras")
        built.model.save_weights(stock / "a.weights.h5")
    held = structures.values(built.model)
    callbacks = [
        kct.ModelCheckpoint(ours / "a.keras", background=True, on_untracked="error"),
        kct.ModelCheckpoint(
            ours / "a.weights.h5", save_weights_only=True, background=True, on_untracked="error"
        ),
    ]
    for callback in callbacks:
        callback.set_model(built.model)
        callback.on_epoch_end(0)
    structures.train_on(built)
    for callback in callbacks:
        callback.on_train_end()

    @functools.cache
    def by_stock(file: str) -> Any:
        return structures.by_stock(builder, stock / file)

    return SimpleNamespace(
        name=name, builder=builder, held=held, ours=ours, stock=stock, by_stock=by_stock
    )

"""Story 1: a CNN trained by `fit()` with a checkpoint at each epoch, then asked for its epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import keras_ckpt_tools as kct


def test_a_trained_cnn_is_asked_for_its_epoch(
    digits: Any, build_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    """The model, each file, and a model loaded from one all know."""
    model = build_cnn()
    model.fit(
        digits.x_train[:256],
        digits.y_train[:256],
        validation_data=(digits.x_test[:64], digits.y_test[:64]),
        epochs=3,
        verbose=0,
        callbacks=[kct.ModelCheckpoint(tmp_path / "{epoch:02d}-{val_loss:.2f}.keras")],
    )
    assert kct.training_progress(model).epochs_completed == 3
    files = sorted(tmp_path.iterdir())
    assert [kct.training_progress(path).epochs_completed for path in files] == [1, 2, 3]
    for path in files:
        assert path.name[3:7] == f"{kct.training_progress(path).logs['val_loss']:.2f}"
    loaded = kct.safe_load_model(files[1])
    assert kct.training_progress(loaded).epochs_completed == 2
    history = kct.training_progress(model).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert len(history["val_loss"]) == 3


def test_training_goes_on_where_the_progress_says(
    digits: Any, build_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    """`epochs_completed` is the `initial_epoch` to go on with."""
    model = build_cnn()
    callback = kct.ModelCheckpoint(tmp_path / "latest.keras")
    data = (digits.x_train[:128], digits.y_train[:128])
    model.fit(*data, epochs=2, verbose=0, callbacks=[callback])
    loaded = kct.safe_load_model(tmp_path / "latest.keras")
    np.testing.assert_array_equal(
        loaded.predict(digits.x_test[:8], verbose=0), model.predict(digits.x_test[:8], verbose=0)
    )
    history = loaded.fit(
        *data,
        initial_epoch=kct.training_progress(loaded).epochs_completed,
        epochs=4,
        verbose=0,
        callbacks=[kct.ModelCheckpoint(tmp_path / "latest.keras")],
    )
    assert history.epoch == [2, 3]
    progress = kct.training_progress(tmp_path / "latest.keras")
    assert (progress.epochs_completed, len(progress.history["loss"])) == (4, 4)


def test_a_model_that_was_never_checkpointed_gives_the_zero_record(
    build_cnn: Callable[..., Any],
) -> None:
    """No AttributeError, compiled or not."""
    for compiled in (True, False):
        progress = kct.training_progress(build_cnn(compiled=compiled))
        assert progress == kct.TrainingProgress()
        assert not progress.trained

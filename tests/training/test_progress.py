"""One answer to "where is training?", of a model, a path or a manager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from programs import small_data, small_model

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, ArtefactNotFoundError, DamagedArtefactError


def test_a_model_that_was_never_trained_gives_the_zero_record() -> None:
    """Never an AttributeError."""
    assert kct.training_progress(small_model()) == kct.TrainingProgress()


def test_a_model_trained_without_us_tells_its_steps() -> None:
    """More is not known of it."""
    model = small_model()
    model.fit(*small_data(), batch_size=4, epochs=2, verbose=0)
    assert kct.training_progress(model) == kct.TrainingProgress(step=8)


@pytest.mark.parametrize("name", ["a.keras", "a.h5", "a.weights.h5"])
def test_model_and_file_say_the_same(name: str, checkpoint: Callable[..., Any]) -> None:
    """In each format."""
    model = small_model()
    callback = checkpoint(name, model, save_weights_only=name.endswith(".weights.h5"))
    model.fit(*small_data(), batch_size=4, epochs=2, verbose=0, callbacks=[callback])
    of_model, of_file = kct.training_progress(model), kct.training_progress(callback.filepath)
    assert (of_file.epochs_completed, of_file.batches_completed, of_file.step) == (2, 0, 8)
    assert len(of_file.history["loss"]) == 2
    for field in ("epochs_completed", "step", "logs", "history", "run_id", "started_at"):
        assert getattr(of_model, field) == getattr(of_file, field)
    assert of_file.started_at < of_file.saved_at
    assert 0 < of_file.elapsed_s < 60


def test_a_directory_answers_for_its_newest_checkpoint(tmp_path: Path) -> None:
    """And the manager says the same."""
    manager = kct.CheckpointManager(tmp_path, model=small_model())
    for epoch in manager.epochs(3):
        manager.log(loss=1.0 / (epoch + 1))
    assert kct.training_progress(tmp_path).epochs_completed == 3
    assert kct.training_progress(str(tmp_path)).logs == {"loss": pytest.approx(1 / 3)}
    assert kct.training_progress(manager).history == kct.training_progress(tmp_path).history


def test_a_loaded_model_knows_where_its_training_was(checkpoint: Callable[..., Any]) -> None:
    """`fit()` goes on with the run of the file."""
    model = small_model()
    callback = checkpoint("a.keras", model)
    model.fit(*small_data(), batch_size=4, epochs=2, verbose=0, callbacks=[callback])
    loaded = kct.safe_load_model(callback.filepath)
    before = kct.training_progress(loaded)
    assert before.epochs_completed == 2
    callback = checkpoint("b.keras", loaded)
    loaded.fit(
        *small_data(), batch_size=4, initial_epoch=2, epochs=3, verbose=0, callbacks=[callback]
    )
    after = kct.training_progress(callback.filepath)
    assert (after.epochs_completed, after.step, after.run_id) == (3, 12, before.run_id)
    assert len(after.history["loss"]) == 3


def test_a_file_of_stock_keras_says_nothing(tmp_path: Path) -> None:
    """It has no record, which is no error; its optimizer has counted."""
    model = small_model()
    model.save(tmp_path / "a.keras")
    assert kct.training_progress(tmp_path / "a.keras") == kct.TrainingProgress()
    model.fit(*small_data(), batch_size=4, epochs=2, verbose=0)
    steps = int(model.optimizer.iterations)
    model.save(tmp_path / "a.keras")
    model.save_weights(tmp_path / "a.weights.h5")
    for name in ("a.keras", "a.weights.h5"):
        assert kct.training_progress(tmp_path / name) == kct.TrainingProgress(step=steps)


def test_nothing_at_the_path_is_told(tmp_path: Path) -> None:
    """With what is nearby."""
    (tmp_path / "model-1.keras").touch()
    with pytest.raises(ArtefactNotFoundError, match=r"model-1\.keras"):
        kct.training_progress(tmp_path / "model-2.keras")


def test_a_damaged_record_is_told(checkpoint: Callable[..., Any]) -> None:
    """Rather than taken for a file without one."""
    callback = checkpoint("a.weights.h5", save_weights_only=True)
    callback.on_epoch_end(0, {})
    data = bytearray(Path(callback.filepath).read_bytes())
    data[100] ^= 1
    Path(callback.filepath).write_bytes(data)
    with pytest.raises(DamagedArtefactError):
        kct.training_progress(callback.filepath)


@pytest.mark.parametrize("source", [None, 3, object()])
def test_what_has_no_progress_is_refused(source: object) -> None:
    """With what to pass."""
    with pytest.raises(ArgumentError, match="a path, or a `CheckpointManager`"):
        kct.training_progress(source)


def test_directory_of_models_says_what_its_newest_says(tmp_path: Path) -> None:
    """As `ModelCheckpoint` leaves it, with a file of others beside."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    saver = kct.ModelCheckpoint(tmp_path / "{epoch:02d}.keras", monitor="loss")
    saver.set_model(model)
    for epoch in range(3):
        saver.on_epoch_begin(epoch)
        saver.on_epoch_end(epoch, {"loss": 1 / (epoch + 1)})
    (tmp_path / "notes.txt").write_text("not a model")
    assert kct.training_progress(tmp_path).epochs_completed == 3
    assert len(kct.training_progress(tmp_path).history["loss"]) == 3

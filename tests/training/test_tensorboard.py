"""The trail of saves, read back as TensorBoard reads it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import keras
import pytest
from programs import small_data, small_model

import keras_ckpt_tools as kct


def train(callbacks: list[Any], epochs: int) -> None:
    """Train a model for some epochs of two batches."""
    model = small_model()
    model.fit(*small_data(2), batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks)


def read(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[tuple[int, str]]]:
    """Return the scalars of a run by tag, and its texts, each with its step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]}
    (text,) = tags["tensors"]
    texts = [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors(text)]
    return scalars, texts


@pytest.mark.parametrize("background", [False, True])
def test_each_save_leaves_a_trail(background: bool, tmp_path: Path) -> None:
    """Where to, how large, how long it took and how long training stood still, at its step."""
    path = tmp_path / "epoch-{epoch}.keras"
    saver = kct.ModelCheckpoint(path, tensorboard=tmp_path / "logs", background=background)
    train([saver], epochs=3)
    scalars, texts = read(tmp_path / "logs" / "saves" / "epoch-_epoch_.keras")
    assert texts == [(2 * n, str(tmp_path / f"epoch-{n}.keras")) for n in (1, 2, 3)]
    assert scalars["save/bytes"] == [
        (step, float(Path(saved).stat().st_size)) for step, saved in texts
    ]
    took, blocked = scalars["save/seconds"], scalars["save/seconds_blocked"]
    assert [step for step, _ in took] == [step for step, _ in blocked] == [2, 4, 6]
    assert all(0 < seconds < 60 for _, seconds in [*took, *blocked])
    if not background:
        assert all(t <= b for (_, t), (_, b) in zip(took, blocked, strict=True))


class Killed(keras.callbacks.Callback):
    """Be gone before anybody hears that training has ended."""

    def on_train_end(self, logs: Any = None) -> None:
        raise KeyboardInterrupt


def test_a_run_that_goes_on_has_no_step_twice(tmp_path: Path) -> None:
    """What a killed run saved after what was resumed from is void in the trail, too."""

    def callbacks() -> list[Any]:
        saver = kct.ModelCheckpoint(
            tmp_path / "a.keras", save_freq=1, tensorboard=tmp_path / "logs"
        )
        return [saver, kct.BackupAndRestore(tmp_path / "b", delete_checkpoint=False, save_freq=3)]

    with pytest.raises(KeyboardInterrupt):
        train([Killed(), *callbacks()], epochs=4)
    train(callbacks(), epochs=5)  # Goes on after step 6 of 8, as if it had been killed.
    folder = tmp_path / "logs" / "saves" / "a.keras"
    assert len(list(folder.iterdir())) == 2
    scalars, texts = read(folder)
    assert [step for step, _ in scalars["save/bytes"]] == list(range(1, 11))
    assert [step for step, _ in texts] == list(range(1, 11))


def test_a_manager_and_a_backup_have_runs_of_their_own(tmp_path: Path) -> None:
    """Two callbacks of one `fit()` do not draw one zigzag."""
    logs = tmp_path / "logs"
    manager = kct.CheckpointManager(tmp_path / "run", tensorboard=logs, model=small_model())
    manager.save()
    train([kct.BackupAndRestore(tmp_path / "b", tensorboard=str(logs))], epochs=1)
    assert sorted(path.name for path in (logs / "saves").iterdir()) == ["b", "run"]
    assert read(logs / "saves" / "run")[1] == [(0, manager.latest_checkpoint)]


def test_a_trail_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """The checkpoint matters, and its trail does not."""
    (tmp_path / "saves").write_text("a file where the folder should be")
    saver = kct.ModelCheckpoint(tmp_path / "a.keras", tensorboard=tmp_path)
    with pytest.warns(
        UserWarning, match="history of saves for TensorBoard cannot be written"
    ) as said:
        train([saver], epochs=2)
    assert len(said) == 1
    assert kct.training_progress(tmp_path / "a.keras").epochs_completed == 2


def test_a_copied_callback_has_a_trail_of_its_own(tmp_path: Path) -> None:
    """Tuners copy callbacks; an open file cannot be copied."""
    saver = kct.ModelCheckpoint(tmp_path / "a.keras", tensorboard=tmp_path / "logs")
    train([saver], epochs=1)
    train([copy.deepcopy(saver)], epochs=1)
    assert len(list((tmp_path / "logs" / "saves" / "a.keras").iterdir())) == 2


def test_a_log_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    """At once, not at the first save."""
    with pytest.raises(ValueError, match="tensorboard=''"):
        kct.ModelCheckpoint(tmp_path / "a.keras", tensorboard="")

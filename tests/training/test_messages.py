"""What is said of saves and restarts: printed or logged, once, and never by another thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import small_data, small_model

import keras_ckpt_tools as kct

Make = Callable[..., Any]


def train(callback: Any, epochs: int = 2) -> None:
    """Train a model for some epochs of two batches."""
    small_model().fit(*small_data(2), batch_size=4, epochs=epochs, verbose=0, callbacks=callback)


def backup(path: Path, **arguments: Any) -> Any:
    """Return a `BackupAndRestore` whose checkpoints stay."""
    return kct.BackupAndRestore(path, delete_checkpoint=False, **arguments)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("verbose", [0, 1])
def test_a_message_goes_one_way(
    verbose: int,
    background: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With `verbose=1` it is printed, without it is logged: whoever hears both hears it once."""
    caplog.set_level(logging.INFO, "keras_ckpt_tools")
    train(backup(tmp_path, verbose=verbose, background=background))
    again = backup(tmp_path, verbose=verbose, background=background, resume="must")
    train(again, epochs=3)
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    logged = [r.getMessage() for r in caplog.records if r.name.startswith("keras_ckpt_tools")]
    said, other = (printed, logged) if verbose else (logged, printed)
    assert other == []
    assert [line.partition(" (")[0] for line in said] == [
        f"Epoch 1, step 2: saved {tmp_path}/ckpt-00000001.weights.h5",
        f"Epoch 2, step 4: saved {tmp_path}/ckpt-00000002.weights.h5",
        f"Resuming from {tmp_path}/ckpt-00000002.weights.h5 with epoch 3, after 4 steps",
        f"Epoch 3, step 6: saved {tmp_path}/ckpt-00000003.weights.h5",
    ]


def test_nothing_is_printed_by_the_thread_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would come in the middle of Keras' progress bar."""
    from keras_ckpt_tools.training import messages

    spoke: list[threading.Thread] = []
    monkeypatch.setattr(
        messages.internals, "print_msg", lambda message: spoke.append(threading.current_thread())
    )
    train(kct.ModelCheckpoint(tmp_path / "a.keras", verbose=1, background=True))
    train(backup(tmp_path / "b", verbose=1, background=True))
    assert len(spoke) == 6
    assert set(spoke) == {threading.main_thread()}


def test_a_manager_says_what_it_does(
    manager: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In lines of their own: there is no progress bar of Keras' to get out of the way of."""
    manager(verbose=1).save()
    manager(verbose=1).restore_or_initialize()
    saved, restored = capsys.readouterr().out.splitlines()
    assert saved.startswith(f"Epoch 1, step 0: saved {tmp_path}/ckpt-00000001.weights.h5 (")
    assert restored.endswith("with epoch 1, after 0 steps")


def test_levels_tell_what_was_done_from_what_was_decided(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A save is "info"; why there was one, or none, is "debug"."""
    caplog.set_level(logging.DEBUG, "keras_ckpt_tools")
    train(
        kct.ModelCheckpoint(tmp_path / "a.keras", monitor="loss", mode="max", save_best_only=True)
    )
    levels = [
        (record.levelname, record.getMessage().partition(" to ")[0]) for record in caplog.records
    ]
    assert levels[:2] == [
        ("DEBUG", levels[0][1]),
        ("INFO", "Epoch 1: finished saving model"),
    ]
    assert "improved from None" in levels[0][1]
    assert levels[2][0] == "DEBUG"
    assert "did not improve" in levels[2][1]


def test_a_program_that_asks_for_nothing_hears_nothing() -> None:
    """The package's logger has a handler, so Python does not print for want of one."""
    assert kct.CheckpointManager
    handlers = logging.getLogger("keras_ckpt_tools").handlers
    assert [type(handler) for handler in handlers] == [logging.NullHandler]

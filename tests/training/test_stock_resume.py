"""A directory that Keras 3's own `BackupAndRestore` wrote is gone on from.

What writes it is stock Keras, in processes that are killed.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import outcome, run, run_killed
from programs import (
    back_up_twice,
    constant_model,
    constant_of,
    fit_with_backup,
    names_in,
    small_data,
    small_model,
    state_of,
)

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import DamagedArtefactError, RestoreError, ResumeError

EPOCHS = 4


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A stock backup of a run that was killed in its third epoch; four batches an epoch."""
    run_killed(fit_with_backup, False, str(tmp_path / "backup"), {}, EPOCHS, (2, 1))
    return tmp_path / "backup"


def content(directory: Path) -> dict[str, bytes]:
    """Return the files in a directory."""
    return {name: (directory / name).read_bytes() for name in names_in(directory)}


def fit(model: keras.Model, *callbacks: Any, epochs: int = EPOCHS) -> keras.callbacks.History:
    """Train."""
    x, y = small_data()
    return model.fit(
        x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


def stock_restores(directory: Path) -> tuple[list[bytes], int]:
    """Return what stock Keras makes of a backup: weights and optimizer, and the epoch."""
    model = small_model()
    stock = keras.callbacks.BackupAndRestore(str(directory))
    stock.set_model(model)
    stock.on_train_begin()
    return state_of(model), model._initial_epoch


def ours_restores(directory: Path, match: str = "Resuming with") -> tuple[list[bytes], int]:
    """Return the same of ours."""
    model = small_model()
    ours = kct.BackupAndRestore(directory)
    ours.set_model(model)
    ours.set_params({"epochs": EPOCHS, "steps": 4})
    with pytest.warns(UserWarning, match=match):
        ours.on_train_begin()
    return state_of(model), model._initial_epoch


def test_the_run_goes_on_as_if_it_had_not_been_killed(backup: Path) -> None:
    """Weights, optimizer and the history of the epochs that follow are those of a whole run."""
    whole = small_model()
    expected = fit(whole).history["loss"]
    model = small_model()
    with pytest.warns(UserWarning, match="with epoch 3 .*History.* start over.*not deleted"):
        history = fit(model, kct.BackupAndRestore(backup))
    assert history.epoch == [2, 3]
    assert history.history["loss"] == expected[2:]
    assert state_of(model) == state_of(whole)


def test_what_is_restored_is_what_keras_restores(backup: Path) -> None:
    """Bit for bit, the optimizer as well, and the epoch."""
    assert ours_restores(backup) == stock_restores(backup)


def test_random_generators_go_on_from_where_they_are(tmp_path: Path) -> None:
    """Stock Keras does not save that of a dropout layer, and its lack is no misfit."""
    directory = tmp_path / "backup"
    run_killed(fit_with_backup, False, str(directory), {}, EPOCHS, (2, 1), 0.5)
    model, stock = small_model(0.5), small_model(0.5)
    manager = kct.CheckpointManager(directory, model=model)
    with pytest.warns(UserWarning, match="does not contain .* random generators"):
        manager.restore_or_initialize()
    callback = keras.callbacks.BackupAndRestore(str(directory))
    callback.set_model(stock)
    callback.on_train_begin()
    assert state_of(model) == state_of(stock)


def test_its_files_are_never_touched(backup: Path) -> None:
    """Neither while training goes on, nor when it has ended and our own checkpoints go."""
    before = content(backup)
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(content(backup).items() >= before.items())
    )
    seen: list[bool] = []
    with pytest.warns(UserWarning, match="delete it then"):
        fit(small_model(), kct.BackupAndRestore(backup), look)
    assert seen == [True, True]
    assert content(backup) == before


def test_our_own_checkpoints_come_first(backup: Path) -> None:
    """From the first save on, the backup of stock Keras has done its part."""
    with pytest.warns(UserWarning, match="Resuming with epoch 3"):
        fit(small_model(), kct.BackupAndRestore(backup, delete_checkpoint=False), epochs=3)
    history = fit(small_model(), kct.BackupAndRestore(backup, resume="must"), epochs=4)
    assert history.epoch == [2, 3]


def test_an_epoch_under_way_begins_again_with_its_weights(tmp_path: Path) -> None:
    """Its metrics are not in the backup, and the message says so."""
    directory = tmp_path / "backup"
    run_killed(fit_with_backup, False, str(directory), {"save_freq": 3}, EPOCHS, (1, 2))
    progress = kct.training_progress(directory)
    assert (progress.epochs_completed, progress.batches_completed, progress.step) == (1, 2, 6)
    told = "Resuming with epoch 2 .*Epoch 2 was interrupted after 2 batches and starts over"
    assert ours_restores(directory, told) == stock_restores(directory)


def test_a_save_after_the_last_batch_is_the_end_of_the_epoch(tmp_path: Path) -> None:
    """Stock Keras trains that epoch once more."""
    directory = tmp_path / "backup"
    run_killed(fit_with_backup, False, str(directory), {"save_freq": 4}, EPOCHS, (1, 3))
    state, epoch = stock_restores(directory)
    assert epoch == 1
    assert ours_restores(directory, "Resuming with epoch 3") == (state, 2)
    assert kct.training_progress(directory).epochs_completed == 2


def test_a_second_interruption_does_not_lose_the_epoch(tmp_path: Path) -> None:
    """Stock Keras has written epoch 0; what its optimizer has counted says which it was."""
    directory = tmp_path / "backup"
    for _ in range(2):
        run_killed(fit_with_backup, False, str(directory), {"save_freq": 3}, EPOCHS, (2, 2))
    state, epoch = stock_restores(directory)
    assert not epoch
    told = "Resuming with epoch 3 .*It contains epoch 0, batch 2, .*12 updates at 4 an epoch"
    assert ours_restores(directory, told) == (state, 2)


@pytest.mark.parametrize("twentieths", [2, 10, 19])
@pytest.mark.parametrize("double", [False, True])
def test_a_kill_in_a_backup_of_keras_is_never_a_silent_new_start(
    twentieths: int, double: bool, tmp_path: Path
) -> None:
    """The file is written in place: the previous one is taken, or it is said what is damaged."""
    directory = tmp_path / "backup"
    calls = run(back_up_twice, False, str(tmp_path / "whole"), None)
    run_killed(back_up_twice, False, str(directory), calls * twentieths // 20)
    if double:  # As `double_checkpoint=True` leaves it: the backup before, beside the other.
        run(back_up_twice, False, str(tmp_path / "before"), None)
        for name in ("latest.weights.h5", "training_metadata.json"):
            shutil.copy(tmp_path / "before" / name, directory / f"{name}.bkp")
    model = constant_model(0.0)
    ours = kct.BackupAndRestore(directory)
    ours.set_model(model)
    ours.set_params({})
    if double:
        with pytest.warns(UserWarning, match="epoch 3 .*Skipped latest.weights.h5: .*damaged"):
            ours.on_train_begin()
        assert (constant_of(model), model._initial_epoch) == (2.0, 2)
    else:
        with pytest.raises(DamagedArtefactError, match=r"(?s)latest\.weights\.h5.*resume='never'"):
            ours.on_train_begin()
        assert (constant_of(model), model._initial_epoch) == (0.0, None)


def test_double_checkpoints_of_keras_are_found_by_their_names(tmp_path: Path) -> None:
    """The previous one, as `double_checkpoint=True` writes it, with the epoch it is of."""
    directory = tmp_path / "backup"
    arguments = {"double_checkpoint": True}
    run_killed(fit_with_backup, False, str(directory), arguments, EPOCHS, (3, 1))
    (directory / "latest.weights.h5").write_bytes(b"")
    whole = run(fit_with_backup, True, str(tmp_path / "whole"), {}, EPOCHS)
    model = small_model()
    with pytest.warns(UserWarning, match="epoch 3 .*Skipped latest.weights.h5: .*empty"):
        fit(model, kct.BackupAndRestore(directory))
    assert state_of(model) == whole["state"]


@pytest.mark.parametrize("text", [None, "", '{"epoch": 1'])
def test_numbers_that_are_lost_are_counted_anew(text: str | None, backup: Path) -> None:
    """From the updates of the optimizer, where it is known how many an epoch has."""
    state, _ = stock_restores(backup)
    metadata = backup / "training_metadata.json"
    metadata.unlink() if text is None else metadata.write_text(text)
    assert ours_restores(backup, "8 updates at 4 an epoch") == (state, 2)
    with pytest.raises(DamagedArtefactError, match="training_metadata"):
        kct.training_progress(backup)
    with pytest.raises(DamagedArtefactError, match=r"(?s)lost.*training_metadata.*resume='never'"):
        kct.CheckpointManager(backup, model=small_model()).restore_or_initialize()


def test_weights_that_are_newer_than_the_numbers_are_counted(backup: Path) -> None:
    """As a kill between the two files leaves them."""
    metadata = backup / "training_metadata.json"
    metadata.write_text(json.dumps({"epoch": 1, "batch": 0}))
    os.utime(metadata, ns=(0, 0))
    assert ours_restores(backup, "It contains epoch 1, batch 0")[1] == 2


def test_resume_says_whether_it_is_used(backup: Path) -> None:
    """`"must"` is content with it, `"never"` does not look at it, however damaged."""
    with pytest.warns(UserWarning, match="Resuming with epoch 3"):
        fit(small_model(), kct.BackupAndRestore(backup, resume="must"))
    (backup / "latest.weights.h5").write_bytes(b"")
    history = fit(small_model(), kct.BackupAndRestore(backup, resume="never"))
    assert history.epoch == [0, 1, 2, 3]
    shutil.rmtree(backup)
    with pytest.raises(ResumeError):
        fit(small_model(), kct.BackupAndRestore(backup, resume="must"))


def test_a_manager_goes_on_from_it(backup: Path) -> None:
    """A hand-written loop, with the optimizer in the model or beside it."""
    expected, _ = stock_restores(backup)
    compiled = small_model()
    manager = kct.CheckpointManager(backup, model=compiled)
    with pytest.warns(UserWarning, match="Resuming with epoch 3"):
        assert manager.restore_or_initialize() == str(backup / "latest.weights.h5")
    assert state_of(compiled) == expected
    assert (manager.progress.epochs_completed, manager.progress.step) == (2, 8)
    under_another_name = small_model()
    manager = kct.CheckpointManager(backup, net=under_another_name)
    with pytest.warns(UserWarning, match="Resuming with epoch 3"):
        manager.restore_or_initialize()
    assert state_of(under_another_name) == expected
    bare = keras.Sequential.from_config(small_model().get_config())
    optimizer = keras.optimizers.Adam(0.5)
    manager = kct.CheckpointManager(backup, net=bare, optimizer=optimizer)
    with pytest.warns(UserWarning, match="Resuming with epoch 3"):
        assert list(manager.epochs(3)) == [2]
    variables = [*bare.weights, *optimizer.variables]
    assert [np.asarray(v).tobytes() for v in variables] == expected
    assert len(manager.checkpoints) == 1


def test_a_manager_of_other_things_refuses_it(backup: Path) -> None:
    """They are not in the backup, and half of a run is none."""
    model = small_model()
    before = state_of(model)
    number = tf.Variable(1.0)
    with pytest.raises(RestoreError, match=r"a model and its optimizer.*model, number"):
        kct.CheckpointManager(backup, model=model, number=number).restore_or_initialize()
    assert state_of(model) == before


def test_another_model_is_refused_and_unchanged(backup: Path) -> None:
    """All that differs is listed, before anything is changed."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    before = [np.asarray(v).copy() for v in model.weights]
    with pytest.raises(RestoreError, match="dense"):
        fit(model, kct.BackupAndRestore(backup))
    assert all(map(np.array_equal, before, model.weights))


def test_a_fresh_process_goes_on(backup: Path, tmp_path: Path) -> None:
    """The whole way, as a program does it that has changed its import and nothing else."""
    whole = run(fit_with_backup, True, str(tmp_path / "whole"), {}, EPOCHS)
    done = outcome(fit_with_backup, True, str(backup), {}, EPOCHS)
    assert done["batches"][0] == (2, 0)
    assert done["state"] == whole["state"]

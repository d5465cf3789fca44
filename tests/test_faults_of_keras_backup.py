"""The faults of Keras' `BackupAndRestore`, which ours does not have; see `test_faults_of_keras`.

What is interrupted here is a process of its own, by SIGKILL.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from processes import run, run_killed
from programs import (
    back_up_twice,
    callbacks_of,
    constant_model,
    constant_of,
    fit_with_backup,
    small_data,
    small_model,
)

import keras_ckpt_tools as kct

on_both = pytest.mark.parametrize("ours", [False, True], ids=["keras", "ours"])


def judge(ours: bool, faulty: bool) -> None:
    """Require the fault of stock Keras, and its absence from ours."""
    if ours:
        assert not faulty
    elif not faulty:
        pytest.skip(f"Keras {keras.__version__} does not have this fault")


def backup(ours: bool, directory: Path, **arguments: Any) -> Any:
    """Return the callback."""
    return callbacks_of(ours).BackupAndRestore(str(directory), **arguments)


def fit(model: keras.Model, epochs: int, *callbacks: Any) -> list[int]:
    """Train; return the epochs that were trained."""
    trained: list[int] = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: trained.append(epoch))
    model.fit(*small_data(), batch_size=4, epochs=epochs, verbose=0, callbacks=[*callbacks, watch])
    return trained


@on_both
def test_a_second_interruption_does_not_lose_the_epoch(ours: bool, tmp_path: Path) -> None:
    """Killed in epoch 2, started again, killed in epoch 2 again: it goes on with epoch 2."""
    directory = str(tmp_path / "backup")
    arguments = {"save_freq": 3}
    run_killed(fit_with_backup, ours, directory, arguments, 4, (2, 2))
    run_killed(fit_with_backup, ours, directory, arguments, 4, (2, 2))
    done = run(fit_with_backup, ours, directory, arguments, 4)
    first_epoch, _ = done["batches"][0]
    assert first_epoch in (0, 2)
    judge(ours, first_epoch == 0)


@on_both
def test_the_batch_is_not_written_in_vain(ours: bool, tmp_path: Path) -> None:
    """Where inside the epoch a run was interrupted can be asked for."""
    directory = tmp_path / "backup"
    run_killed(fit_with_backup, ours, str(directory), {"save_freq": 3}, 4, (1, 2))
    if ours:
        progress = kct.training_progress(directory)
        assert (progress.epochs_completed, progress.batches_completed, progress.step) == (1, 2, 6)
    else:
        callback = backup(ours, directory)
        callback.set_model(small_model())
        callback.on_train_begin()
        judge(ours, callback._last_batch_seen == 0)


@on_both
def test_weights_and_epoch_agree_after_a_kill(ours: bool, tmp_path: Path) -> None:
    """A SIGKILL at any instant of a backup: weights and epoch are of the same moment."""
    calls = run(back_up_twice, ours, str(tmp_path / "whole"), None)
    found = []
    for twentieths in (5, 10, 15, 19):
        directory = tmp_path / f"killed-{twentieths}"
        run_killed(back_up_twice, ours, str(directory), calls * twentieths // 20)
        found.append(_restored(ours, directory))
    judge(ours, not set(found) <= {(1.0, 1), (2.0, 2)})


def _restored(ours: bool, directory: Path) -> tuple[float | None, int | None] | str:
    model = constant_model(0.0)
    callback = backup(ours, directory)
    callback.set_model(model)
    callback.set_params({})
    try:
        callback.on_train_begin()
    except Exception as error:  # noqa: BLE001 - whichever it is, nothing is restored
        return type(error).__name__
    return constant_of(model), model._initial_epoch


@on_both
@pytest.mark.parametrize("save_freq", [False, 0])
def test_a_save_freq_that_is_none_is_refused(ours: bool, save_freq: int, tmp_path: Path) -> None:
    """`False` is an integer for Python, and every batch would be saved."""
    raised = None
    try:
        backup(ours, tmp_path / "backup", save_freq=save_freq)
    except ValueError as error:
        raised = error
    judge(ours, raised is None)
    assert raised is None or f"save_freq={save_freq}" in str(raised)


@on_both
def test_other_files_stay_when_the_backups_go(ours: bool, tmp_path: Path) -> None:
    """`delete_checkpoint` removes what the callback wrote, and nothing else."""
    directory = tmp_path / "backup"
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    fit(small_model(), 1, backup(ours, directory))
    judge(ours, not (directory / "notes.txt").exists())
    if ours:
        assert [path.name for path in directory.iterdir()] == ["notes.txt"]


@on_both
def test_the_next_fit_begins_at_its_beginning(ours: bool, tmp_path: Path) -> None:
    """A `fit()` without the callback is not shifted by one before it that had it."""
    directory = tmp_path / "backup"
    fit(small_model(), 2, backup(ours, directory, delete_checkpoint=False))
    model = small_model()
    again = {"resume": "must"} if ours else {}
    assert fit(model, 3, backup(ours, directory, **again)) == [2]
    judge(ours, fit(model, 3) != [0, 1, 2])


@on_both
def test_a_resumed_run_drops_out_as_an_uninterrupted_one(ours: bool, tmp_path: Path) -> None:
    """With dropout, killed and resumed leave the same weights and momenta, bit for bit."""
    whole = run(fit_with_backup, ours, str(tmp_path / "whole"), {}, 4, None, 0.5)
    directory = str(tmp_path / "killed")
    run_killed(fit_with_backup, ours, directory, {}, 4, (2, 1), 0.5)
    resumed = run(fit_with_backup, ours, directory, {}, 4, None, 0.5)
    assert resumed["batches"][0] == (2, 0)
    judge(ours, resumed["state"] != whole["state"])


def _interrupted_and_resumed(
    ours: bool, directory: Path, make: Any, before: Any = lambda model: None
) -> keras.Model:
    """Stop after the second epoch, and return another model as it begins the third one."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                before(self.model)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    for model in (make(), make()):
        saver = backup(ours, directory, delete_checkpoint=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(KeyboardInterrupt):
                fit(model, 3, Stop(), saver)
    return model


@on_both
def test_adapters_come_back_as_they_were(ours: bool, tmp_path: Path) -> None:
    """Keras' layers save them merged into the kernel, and begin with zeros."""

    def make() -> keras.Model:
        model = small_model()
        dense = next(layer for layer in model.layers if hasattr(layer, "enable_lora"))
        dense.enable_lora(2)
        model.compile("sgd", "mse")
        return model

    model = _interrupted_and_resumed(ours, tmp_path, make)
    adapted = next(layer for layer in model.layers if getattr(layer, "lora_enabled", False))
    judge(ours, not np.any(adapted.lora_kernel_b))


@on_both
def test_a_backup_with_nan_is_not_resumed_from(ours: bool, tmp_path: Path) -> None:
    """The one before is."""

    def spoil(model: keras.Model) -> None:
        for variable in model.trainable_variables:
            variable.assign(np.full(variable.shape, np.nan))

    def make() -> keras.Model:
        made.append(small_model())
        return made[-1]

    made: list[keras.Model] = []
    spoilt = [spoil, lambda model: None]
    model = _interrupted_and_resumed(ours, tmp_path, make, lambda m: spoilt[made.index(m)](m))
    judge(ours, bool(np.isnan(model.trainable_variables[0]).any()))

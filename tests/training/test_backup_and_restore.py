"""`BackupAndRestore`: where `fit()` goes on, and what is on disk meanwhile.

What is killed for real is in `test_kills_and_refusals`, the faults of Keras' own class in
`test_faults_of_keras_backup`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from programs import small_data, small_model, state_of

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArgumentError,
    CommitError,
    PathInUseError,
    RestoreError,
    ResumeError,
)


class Interrupted(Exception):
    """The end of the world, to a run."""


class Interrupt(keras.callbacks.Callback):
    """Interrupt at a batch, both indices zero-based."""

    def __init__(self, epoch: int, batch: int):
        super().__init__()
        self.epoch, self.batch, self.now = epoch, batch, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.now, batch) == (self.epoch, self.batch):
            raise Interrupted


def fit(model: keras.Model, epochs: int, *callbacks: Any, **arguments: Any) -> list[int]:
    """Train; return the epochs that were trained."""
    arguments = {"batch_size": 4, "verbose": 0, "shuffle": False} | arguments
    trained: list[int] = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: trained.append(epoch))
    model.fit(*small_data(), epochs=epochs, callbacks=[*callbacks, watch], **arguments)
    return trained


def interrupt(directory: Path, epoch: int, batch: int, **arguments: Any) -> None:
    """Train until an interruption."""
    backup = kct.BackupAndRestore(directory, **arguments)
    with pytest.raises(Interrupted):
        fit(small_model(), 9, backup, Interrupt(epoch, batch))


def test_it_is_a_callback_of_keras(tmp_path: Path) -> None:
    """For programs that look for one."""
    assert isinstance(kct.BackupAndRestore(tmp_path), keras.callbacks.BackupAndRestore)


def test_fit_goes_on_with_the_next_epoch(tmp_path: Path) -> None:
    """And ends as if nothing had been, with nothing left on disk."""
    whole = small_model()
    fit(whole, 4)
    interrupt(tmp_path / "backup", 2, 1)
    model = small_model()
    assert fit(model, 4, kct.BackupAndRestore(tmp_path / "backup")) == [2, 3]
    assert state_of(model) == state_of(whole)
    assert not (tmp_path / "backup").exists()


def test_the_run_is_the_same_one(tmp_path: Path) -> None:
    """Progress, history and the name of the run go on."""
    backup = tmp_path / "backup"
    interrupt(backup, 2, 1)
    before = kct.training_progress(backup)
    assert (before.epochs_completed, before.batches_completed, before.step) == (2, 0, 8)
    model = small_model()
    fit(model, 3, kct.BackupAndRestore(backup, delete_checkpoint=False))
    after = kct.training_progress(backup)
    assert after.run_id == before.run_id == kct.training_progress(model).run_id
    assert after.history["loss"][:2] == before.history["loss"]
    assert len(after.history["loss"]) == 3
    assert after.started_at == before.started_at


def test_an_epoch_that_was_saved_inside_goes_on_at_its_next_batch(tmp_path: Path) -> None:
    """Nothing is trained twice."""
    interrupt(tmp_path, 1, 3, save_freq=3)
    progress = kct.training_progress(tmp_path)
    assert (progress.epochs_completed, progress.batches_completed) == (1, 2)
    model = small_model()
    assert fit(model, 3, kct.BackupAndRestore(tmp_path)) == [1, 2]
    assert int(np.asarray(model.optimizer.iterations)) == 12
    whole = small_model()
    fit(whole, 3)
    assert state_of(model) == state_of(whole)


def test_an_epoch_whose_data_cannot_be_replayed_begins_again(tmp_path: Path) -> None:
    """With the weights of the last save, and a warning that says what would help."""
    x, y = small_data()

    def batches() -> Iterator[Any]:
        while True:
            yield x[:4], y[:4]

    def fit_on_generator(model: keras.Model, *callbacks: Any) -> None:
        model.fit(
            batches(),
            steps_per_epoch=4,
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=list(callbacks),
        )

    backup = kct.BackupAndRestore(tmp_path, save_freq=3)
    with pytest.raises(Interrupted):
        fit_on_generator(small_model(), backup, Interrupt(1, 3))
    model = small_model()
    with pytest.warns(UserWarning, match=r"Epoch 2 was .* after 2 batches .*ArrayDataset"):
        fit_on_generator(model, kct.BackupAndRestore(tmp_path))
    assert int(np.asarray(model.optimizer.iterations)) == 6 + 8


@pytest.mark.parametrize(("double", "expected"), [(False, [4]), (True, [3, 4])])
def test_one_or_two_checkpoints_stay(double: bool, expected: list[int], tmp_path: Path) -> None:
    """`double_checkpoint`, as in Keras; the file is one that Keras opens."""
    model = small_model()
    arguments = {"double_checkpoint": double, "delete_checkpoint": False}
    fit(model, 4, kct.BackupAndRestore(tmp_path, **arguments))
    files = sorted(tmp_path.iterdir())
    assert [kct.training_progress(path).epochs_completed for path in files] == expected
    other = small_model()
    other.optimizer.build(other.trainable_variables)
    other.load_weights(files[-1])
    assert state_of(other) == state_of(model)


def test_the_checkpoint_before_a_damaged_one_is_taken(tmp_path: Path) -> None:
    """With a warning that names the damaged one."""
    backup = kct.BackupAndRestore(tmp_path, double_checkpoint=True, delete_checkpoint=False)
    fit(small_model(), 3, backup)
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=newest.name):
        epochs = fit(small_model(), 4, kct.BackupAndRestore(tmp_path, resume="must"))
    assert epochs == [2, 3]


def test_a_clock_saves(tmp_path: Path) -> None:
    """So short a time has passed at each batch."""
    interrupt(tmp_path, 0, 3, save_freq=datetime.timedelta(microseconds=1))
    assert kct.training_progress(tmp_path).batches_completed >= 3


@pytest.mark.parametrize("resume", ["never", "auto", "must"])
def test_where_to_begin_can_be_said(resume: Any, tmp_path: Path) -> None:
    """From the start, where there is something to go on from, or not at all without."""
    if resume == "must":
        with pytest.raises(ResumeError, match="resume='auto'"):
            fit(small_model(), 1, kct.BackupAndRestore(tmp_path, resume=resume))
    interrupt(tmp_path, 1, 0)
    epochs = fit(small_model(), 3, kct.BackupAndRestore(tmp_path, resume=resume))
    assert epochs == ([0, 1, 2] if resume == "never" else [1, 2])


def test_a_manager_reads_what_fit_wrote(tmp_path: Path) -> None:
    """And the other way round: both doors lead to one engine."""
    interrupt(tmp_path, 2, 0)
    model = small_model()
    manager = kct.CheckpointManager(tmp_path, model=model)
    assert [epoch for epoch in manager.epochs(4) if fit(model, 1)] == [2, 3]
    assert fit(small_model(), 6, kct.BackupAndRestore(tmp_path)) == [4, 5]


def _tracked_tensors(path: Path) -> list[str]:
    return [t.path for t in kct.inspect(path).tensors if not t.path.startswith("_")]


def test_fit_and_a_loop_leave_the_same_state(tmp_path: Path) -> None:
    """The same batches: the same weights, momenta, counters and logs."""
    fitted, looped = small_model(), small_model()
    fit(fitted, 3, kct.BackupAndRestore(tmp_path / "fit", delete_checkpoint=False))
    manager = kct.CheckpointManager(tmp_path / "loop", max_to_keep=1, model=looped)
    x, y = small_data()
    for _ in manager.epochs(3):
        losses = []
        for start in manager.batches(range(0, 16, 4)):
            looped.reset_metrics()
            losses.append(looped.train_on_batch(x[start : start + 4], y[start : start + 4]))
        manager.log(loss=np.mean(losses))
    assert state_of(looped) == state_of(fitted)
    ours, theirs = (kct.training_progress(tmp_path / name) for name in ("loop", "fit"))
    for name in ("epochs_completed", "batches_completed", "step"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.history["loss"] == pytest.approx(theirs.history["loss"])
    tracked = [_tracked_tensors(next((tmp_path / name).iterdir())) for name in ("loop", "fit")]
    assert sorted(tracked[0]) == sorted(tracked[1])


def test_an_unbuilt_model_is_built_by_fit(tmp_path: Path) -> None:
    """As in any `fit()`; what was interrupted goes on."""

    def make() -> keras.Model:
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    backup = kct.BackupAndRestore(tmp_path, delete_checkpoint=False)
    fit(make(), 2, backup)
    model = make()
    assert fit(model, 3, kct.BackupAndRestore(tmp_path, resume="must")) == [2]
    assert int(np.asarray(model.optimizer.iterations)) == 12


def test_another_model_is_refused_and_unchanged(tmp_path: Path) -> None:
    """The report names what does not fit."""
    interrupt(tmp_path, 1, 0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    before = state_of(model)
    with pytest.raises(RestoreError, match=r"layers/dense_1/vars/0") as caught:
        fit(model, 3, kct.BackupAndRestore(tmp_path))
    assert caught.value.report.unexpected
    assert state_of(model)[: len(before)] == before
    assert len(list(tmp_path.iterdir())) == 1


def test_the_hooks_work_in_any_order_and_without_logs(tmp_path: Path) -> None:
    """Without `on_train_begin`, without an epoch that began."""
    backup = kct.BackupAndRestore(tmp_path, save_freq=1, delete_checkpoint=False)
    backup.set_model(small_model())
    backup.on_train_batch_end(0)
    assert kct.training_progress(tmp_path).batches_completed == 1
    backup.on_epoch_end(0)
    backup.on_train_end()
    assert kct.training_progress(backup.model).epochs_completed == 1


@pytest.mark.parametrize(
    "arguments",
    [{"save_freq": 0}, {"save_freq": False}, {"save_freq": 1.5}, {"resume": "yes"}],
    ids=str,
)
def test_an_argument_that_cannot_work_is_refused(arguments: dict[str, Any], tmp_path: Path) -> None:
    """When the callback is made, with the value."""
    with pytest.raises(ArgumentError) as caught:
        kct.BackupAndRestore(tmp_path, **arguments)
    name, value = next(iter(arguments.items()))
    assert f"{name}={value!r}" in str(caught.value)


@pytest.mark.parametrize("directory", ["", None])
def test_a_directory_that_is_none_is_refused(directory: Any) -> None:
    """In Keras' own words."""
    with pytest.raises(ArgumentError, match="Empty `backup_dir` argument passed"):
        kct.BackupAndRestore(directory)


def test_a_file_where_a_directory_is_meant_is_refused(tmp_path: Path) -> None:
    """At once, and it is left as it is."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CommitError, match="is a file"):
        kct.BackupAndRestore(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_two_callbacks_in_one_directory_are_refused(tmp_path: Path) -> None:
    """Before the first batch."""
    backups = [kct.BackupAndRestore(tmp_path / "backup") for _ in range(2)]
    with pytest.raises(PathInUseError, match="another path to each"):
        fit(small_model(), 1, *backups)
    assert not (tmp_path / "backup").exists()


def test_a_callback_without_a_model_says_so(tmp_path: Path) -> None:
    """With the call that gives it one."""
    with pytest.raises(ArgumentError, match="set_model"):
        kct.BackupAndRestore(tmp_path).on_train_begin()

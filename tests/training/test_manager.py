"""`CheckpointManager`: the loop, what it saves, what it keeps."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from programs import constant_model, small_data, small_model

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, CommitError, ResumeError

Make = Callable[..., kct.CheckpointManager]


def epochs_of(manager: kct.CheckpointManager) -> list[int]:
    """Return how many epochs had ended at each checkpoint."""
    return [kct.training_progress(path).epochs_completed for path in manager.checkpoints]


# The loop.


def test_each_epoch_is_saved(manager: Make) -> None:
    """The loop itself says when an epoch has ended."""
    it = manager()
    assert (it.latest_checkpoint, it.checkpoints) == (None, [])
    assert list(it.epochs(3)) == [0, 1, 2]
    assert epochs_of(it) == [1, 2, 3]
    assert it.latest_checkpoint == it.checkpoints[-1]
    assert it.progress.epochs_completed == 3


def test_a_loop_started_again_goes_on(manager: Make) -> None:
    """With the next epoch; and where all are done, with none."""
    list(manager().epochs(2))
    assert list(manager().epochs(5)) == [2, 3, 4]
    with pytest.warns(UserWarning, match="Nothing is left to train"):
        assert list(manager().epochs(5)) == []
    with pytest.warns(UserWarning, match="Nothing is left to train"):
        assert list(manager().epochs(3)) == []


@pytest.mark.parametrize("how", ["break", "exception"])
def test_an_epoch_that_was_left_is_unfinished(how: str, manager: Make) -> None:
    """It is not saved, and begins again."""
    it = manager()
    try:
        for epoch in it.epochs(5):
            if epoch == 2 and how == "break":
                break
            if epoch == 2:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert epochs_of(it) == [1, 2]
    assert next(iter(manager().epochs(5))) == 2


def test_an_epoch_that_was_left_begins_again_in_the_same_process(manager: Make) -> None:
    """From its first batch, and is counted once."""
    it = manager()
    for _ in it.epochs(2):
        for batch in it.batches(range(4)):
            if batch == 2:
                break
        break
    assert [list(it.batches(range(4))) for _ in it.epochs(2)] == [[0, 1, 2, 3]] * 2
    assert it.progress.epochs_completed == 2


def test_steps_are_counted_without_an_optimizer(manager: Make) -> None:
    """One for each batch."""
    it = manager()
    for _ in it.epochs(2):
        list(it.batches(range(3)))
    assert it.progress.step == 6


def test_the_optimizer_counts_the_steps(manager: Make) -> None:
    """Two updates in a batch are two steps."""
    model = small_model()
    it = manager(model=model)
    x, y = small_data(2)
    for _ in it.epochs(1):
        for start in it.batches([0, 4]):
            for _ in range(2):
                model.train_on_batch(x[start : start + 4], y[start : start + 4])
    assert it.progress.step == 4


def test_every_hundred_steps_are_saved(manager: Make) -> None:
    """Across epochs, and the rest at the end."""
    it = manager(save_freq=100)
    for _ in it.epochs(3):
        list(it.batches(range(80)))
    assert [kct.training_progress(path).step for path in it.checkpoints] == [100, 200, 240]
    first = kct.training_progress(it.checkpoints[0])
    assert (first.epochs_completed, first.batches_completed) == (1, 20)


def test_a_clock_saves_within_an_epoch(manager: Make) -> None:
    """`save_freq` as a `timedelta`; so short a one has passed at each batch."""
    it = manager(save_freq=datetime.timedelta(microseconds=1))
    for _ in it.epochs(1):
        list(it.batches(range(3)))
    saved = [kct.training_progress(path) for path in it.checkpoints]
    assert [(one.epochs_completed, one.batches_completed) for one in saved] == [
        (0, 1),
        (0, 2),
        (1, 0),
    ]


@pytest.mark.parametrize(
    "dataset",
    [
        pytest.param(lambda: [0, 1, 2, 3, 4], id="list"),
        pytest.param(lambda: iter([0, 1, 2, 3, 4]), id="iterator"),
        pytest.param(lambda: tf.data.Dataset.range(5), id="tf.data"),
    ],
)
def test_batches_that_were_done_are_passed_over(dataset: Any, manager: Make) -> None:
    """After a restart in the middle of an epoch; the next epoch has all of them."""
    it = manager(save_freq=2)
    for _ in it.epochs(2):
        for batch in it.batches(dataset()):
            if int(batch) == 3:
                break
        break
    it = manager(save_freq=2)
    seen = [[int(batch) for batch in it.batches(dataset())] for _ in it.epochs(2)]
    assert seen == [[2, 3, 4], [0, 1, 2, 3, 4]]
    assert (it.progress.step, it.progress.epochs_completed) == (10, 2)


def test_a_loop_without_epochs_goes_on(manager: Make) -> None:
    """`steps()`: saved every so often and at the end; a step that was left is done again."""
    it = manager(save_freq=10)
    for step in it.steps(100):
        if step == 25:
            break
    assert [kct.training_progress(path).step for path in it.checkpoints] == [10, 20]
    it = manager(save_freq=10)
    seen = list(it.steps(36))
    assert (seen[0], seen[-1]) == (20, 35)
    assert kct.training_progress(it.latest_checkpoint).step == 36
    with pytest.warns(UserWarning, match="Nothing is left to train"):
        assert list(manager().steps(36)) == []


def test_logs_and_history_are_kept(manager: Make) -> None:
    """Of any kind of number; what is logged last in an epoch is the epoch's."""
    it = manager()
    for epoch in it.epochs(2):
        it.log(loss=9.0)
        it.log(loss=np.float32(epoch), accuracy=tf.constant([0.5]))
    it = manager()
    for _ in it.epochs(3):
        it.log(loss=2.0, late=1)
    assert it.progress.logs == {"loss": 2.0, "late": 1.0}
    assert it.progress.history == {"loss": (0.0, 1.0, 2.0), "accuracy": (0.5, 0.5), "late": (1.0,)}
    assert it.progress.history_epochs["late"] == (2,)


def test_what_is_no_number_is_not_logged(manager: Make) -> None:
    """All such values are named."""
    with pytest.raises(ArgumentError, match="reduce_mean") as caught:
        manager().log(loss=1.0, matrix=np.eye(2), name="a")
    assert "matrix=" in str(caught.value)
    assert "name='a'" in str(caught.value)
    assert "loss=" not in str(caught.value)


# What stays.


def test_at_most_three_stay(manager: Make, tmp_path: Path) -> None:
    """Also after a restart, which counts those that are there."""
    list(manager(max_to_keep=3).epochs(5))
    it = manager(max_to_keep=3)
    assert epochs_of(it) == [3, 4, 5]
    list(it.epochs(7))
    assert epochs_of(it) == [5, 6, 7]
    assert len(list(tmp_path.iterdir())) == 3


def test_the_best_always_stays(manager: Make) -> None:
    """Whatever `max_to_keep` says, across restarts; NaN never is the best."""
    losses = [0.9, 0.1, float("nan"), 0.5, 0.3]

    def train(epochs: int) -> kct.CheckpointManager:
        it = manager(max_to_keep=1, monitor="loss")
        for epoch in it.epochs(epochs):
            it.log(loss=losses[epoch])
        return it

    train(3)
    it = train(5)
    assert epochs_of(it) == [2, 5]
    assert it.best_checkpoint == it.checkpoints[0]
    best = it.progress.best
    assert best is not None
    assert (best.monitor, best.mode, best.value, best.epoch) == ("loss", "min", 0.1, 1)


def test_a_checkpoint_that_is_the_best_says_so(manager: Make) -> None:
    """The record of each file has the best up to that file, itself included."""
    it = manager(monitor="accuracy")
    for accuracy in it.epochs(3):
        it.log(accuracy=[0.5, 0.9, 0.7][accuracy])
    bests = [kct.training_progress(path).best for path in it.checkpoints]
    assert [(best.value, best.epoch) for best in bests if best] == [(0.5, 0), (0.9, 1), (0.9, 1)]


def test_a_policy_keeps(manager: Make) -> None:
    """Instead of a number."""
    it = manager(keep=kct.KeepLast(1) | kct.KeepEvery(2))
    list(it.epochs(5))
    assert epochs_of(it) == [2, 4, 5]


# Save and restore by hand.


def test_the_familiar_verbs(manager: Make) -> None:
    """Of `tf.train.CheckpointManager`: save, restore_or_initialize, latest_checkpoint."""
    variable = tf.Variable(1.0)
    it = manager(variable=variable)
    assert it.restore_or_initialize() is None
    path = it.save()
    variable.assign(2.0)
    it.save()
    assert it.restore(path) == kct.training_progress(path)
    assert float(variable) == 1.0
    assert it.restore_or_initialize() == it.latest_checkpoint
    assert float(variable) == 2.0


@pytest.mark.parametrize("resume", ["never", "auto", "must"])
def test_where_to_begin_can_be_said(resume: Any, manager: Make) -> None:
    """From the start, where there is something to go on from, or not at all without."""
    if resume == "must":
        with pytest.raises(ResumeError, match="resume='auto'"):
            list(manager(resume=resume).epochs(1))
    list(manager().epochs(1))
    assert list(manager(resume=resume).epochs(3)) == ([0, 1, 2] if resume == "never" else [1, 2])


def test_models_know_the_run_they_are_in(manager: Make) -> None:
    """`training_progress` of a model that a manager tracks."""
    model, other = constant_model(1.0), constant_model(1.0)
    list(manager(model=model, other=other).epochs(2))
    for one in (model, other):
        assert kct.training_progress(one).epochs_completed == 2


def test_a_manager_shows_what_it_has(manager: Make) -> None:
    """In a terminal and in a notebook."""
    it = manager()
    list(it.epochs(2))
    assert "2 saved" in repr(it)
    assert "ckpt-00000002.weights.h5" in it._repr_html_()


def test_an_optimizer_of_a_compiled_model_is_saved_once(manager: Make, tmp_path: Path) -> None:
    """Whether it is passed or not, the file looks the same."""
    model = small_model()
    model.fit(*small_data(), batch_size=4, verbose=0)
    alone = manager(model=model).save()
    both = manager(model=model, optimizer=model.optimizer, resume="never").save()
    assert os.path.getsize(alone) == os.path.getsize(both)


# What others do to the directory.


def test_checkpoints_that_another_process_has_changed_are_seen(
    manager: Make, tmp_path: Path
) -> None:
    """Deleted and saved ones."""
    it, other = manager(variable=tf.Variable(0.0)), manager(variable=tf.Variable(1.0))
    first, second = it.save(), it.save()
    assert it.checkpoints == [first, second]
    os.unlink(first)
    assert it.checkpoints == [second]
    other.restore_or_initialize()
    third = other.save()
    assert it.checkpoints == [second, third]
    assert it.latest_checkpoint == third
    fourth = it.save()
    assert it.checkpoints == [second, third, fourth]
    for path in (second, third, fourth):
        os.unlink(path)
    assert it.latest_checkpoint is None


def test_a_directory_that_may_only_be_read_can_be_restored_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be written to is told when something would be, before it is trained."""
    path = kct.CheckpointManager(tmp_path, variable=tf.Variable(3.0)).save()
    variable = tf.Variable(0.0)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    it = kct.CheckpointManager(tmp_path, variable=variable)
    assert it.restore_or_initialize() == path
    assert float(variable) == 3.0
    assert list(it.epochs(0)) == []
    with pytest.raises(CommitError, match="not writable"):
        next(it.epochs(1))
    with pytest.raises(CommitError, match="not writable"):
        next(it.steps(1))


@pytest.mark.parametrize("form", ["h5", "tf"])
def test_the_same_step_saved_again_pushes_nothing_out(manager: Make, form: str) -> None:
    """Each restart of a run may save where it is."""
    variable = tf.Variable(0.0)
    it = manager(max_to_keep=2, variable=variable, format=form)
    for _ in it.steps(3):
        variable.assign_add(1.0)
        it.save()
    for _ in range(3):
        it.save()
    assert [kct.training_progress(path).step for path in it.checkpoints] == [2, 3]

"""The one place that counts: epochs, batches, logs and history of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keras_ckpt_tools.errors import ArgumentError, PathInUseError
from keras_ckpt_tools.metadata import Best, TrainingProgress
from keras_ckpt_tools.training.run import (
    Run,
    check_resume,
    join_run,
    known_run,
    plain_logs,
    run_of,
)


def counters(run: Run) -> tuple[int, int]:
    """Return the two counters of a run."""
    progress = run.progress()
    return progress.epochs_completed, progress.batches_completed


class Writer:
    """Something that writes to a path."""


def test_an_epoch_is_counted_once_however_often_it_is_told() -> None:
    """Two callbacks on one model report the same events."""
    run = Run(TrainingProgress())
    for _ in range(2):
        run.epoch_begins(0)
    for batch in range(3):
        for _ in range(2):
            run.batch_ends(batch)
    assert counters(run) == (0, 3)
    for _ in range(2):
        run.epoch_ends(0, {"loss": 0.5})
    assert counters(run) == (1, 0)
    assert run.progress().history == {"loss": (0.5,)}


def test_batches_alone_begin_a_run() -> None:
    """A loop over `train_on_batch` need not speak of epochs."""
    run = Run(TrainingProgress())
    run.batch_ends(4)
    assert counters(run) == (0, 5)
    assert run.progress().run_id


def test_going_back_to_an_earlier_epoch_begins_another_run() -> None:
    """A second `fit()` from epoch 0 is not the third and fourth epoch of the first."""
    run = Run(TrainingProgress())
    for epoch in range(3):
        run.epoch_begins(epoch)
        run.epoch_ends(epoch, {"loss": float(epoch)})
    first = run.progress().run_id
    run.epoch_begins(0)
    assert run.progress().run_id != first
    assert counters(run) == (0, 0)
    assert run.progress().history == {}


def test_a_later_initial_epoch_goes_on_with_the_run() -> None:
    """`fit(initial_epoch=3)` after `fit(epochs=3)` is the same run."""
    run = Run(TrainingProgress())
    run.epoch_ends(2, {"loss": 0.2})
    before = run.progress().run_id
    run.epoch_begins(3)
    assert (run.progress().run_id, counters(run)) == (before, (3, 0))


def test_a_repeated_epoch_replaces_its_logs() -> None:
    """The history has one value for each epoch, also where validation was not run in all."""
    run = Run(TrainingProgress())
    run.epoch_ends(0, {"loss": 0.9})
    run.epoch_ends(1, {"loss": 0.8, "val_loss": 0.7})
    run.epoch_ends(1, {"loss": 0.6, "val_loss": 0.5})
    progress = run.progress()
    assert progress.history == {"loss": (0.9, 0.6), "val_loss": (0.5,)}
    assert progress.history_epochs == {"loss": (0, 1), "val_loss": (1,)}


def test_a_run_goes_on_from_its_record() -> None:
    """Counters, history, best, name of the run: all of it, through JSON."""
    run = Run(TrainingProgress())
    run.epoch_ends(0, {"loss": float("nan")})
    run.epoch_ends(1, {"loss": 0.5})
    run.set_best(Best("loss", "min", 0.5, 1))
    before = run.progress()
    again = Run(TrainingProgress.from_json(before.to_json()))
    after = again.progress()
    np.testing.assert_array_equal(after.history["loss"], before.history["loss"])
    assert (after.run_id, after.best) == (before.run_id, before.best)
    assert counters(again) == (2, 0)
    assert after.elapsed_s >= before.elapsed_s


def test_a_restart_is_noted_once_training_moves() -> None:
    """What is loaded and only looked at was not gone on with; another run has its own restarts."""
    run = Run(TrainingProgress(epochs_completed=2, step=8, run_id="a", saves=((2, 0, 8),)))
    assert run.progress().restarts == ()
    run.epoch_begins(2)
    run.batch_ends(0)
    (restart,) = run.progress().restarts
    assert restart[:3] == (2, 0, 8)
    again = Run(run.progress())
    again.batch_ends(1)
    assert [one[:3] for one in again.progress().restarts] == [(2, 0, 8), (2, 1, 8)]
    assert again.progress().saves == ()
    again.epoch_begins(0)
    again.batch_ends(0)
    assert again.progress().restarts == ()


def test_steps_are_the_optimizers_where_it_counts() -> None:
    """A counter lives in one place."""

    class Optimizer:
        iterations = 41

    run = Run(TrainingProgress(step=40, run_id="a"))
    assert run.progress(Optimizer()).step == 40
    run.batch_ends(0)
    assert run.progress(Optimizer()).step == 41
    run.count_step()
    assert run.progress().step == 41


def test_logs_become_plain_numbers() -> None:
    """Of NumPy, of TensorFlow, of low precision; what is not one number is left out."""
    import tensorflow as tf

    logs: dict[str, Any] = {
        "a": 1,
        "b": np.float32(0.5),
        "c": tf.constant([0.25]),
        "d": tf.constant(2.0, tf.bfloat16),
        "e": np.eye(2),
        "f": "text",
        "g": None,
        "h": True,
    }
    assert plain_logs(logs) == {"a": 1.0, "b": 0.5, "c": 0.25, "d": 2.0, "h": 1.0}
    assert plain_logs(None) == {}


def test_two_writers_of_one_fit_are_refused_one_path() -> None:
    """Each would overwrite what the other saved."""
    run = Run(TrainingProgress())
    parameters: dict[str, int] = {"epochs": 3}
    one, other = Writer(), Writer()
    run.begin(parameters)
    run.claim("/a", one)
    run.begin(parameters)
    run.claim("/a", one)
    run.claim("/b", other)
    with pytest.raises(PathInUseError, match="Writer and Writer") as caught:
        run.claim("/a", other)
    assert caught.value.path == "/a"


def test_the_next_fit_may_write_to_the_same_path() -> None:
    """One after the other is no conflict."""
    run = Run(TrainingProgress())
    one, other = Writer(), Writer()
    run.begin({"epochs": 3})
    run.claim("/a", one)
    run.begin({"epochs": 3})
    run.claim("/a", other)


def test_models_of_one_run_share_it() -> None:
    """As those of a manager do."""
    from programs import constant_model

    run = Run(TrainingProgress())
    one, other = constant_model(1.0), constant_model(1.0)
    assert known_run(one) is None
    join_run(one, run)
    join_run(other, run)
    assert run_of(one) is run_of(other) is known_run(one) is run


@pytest.mark.parametrize("resume", [True, False, None, "yes"])
def test_a_way_to_resume_that_is_none_is_refused(resume: Any) -> None:
    """With the ways there are."""
    with pytest.raises(ArgumentError, match="'auto', 'never' or 'must'"):
        check_resume(resume)

"""Where an epoch of `fit()` ends: saves that are due there, and epochs that are left before it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import RestoreError
from keras_ckpt_tools.runs.phases import forget_phases

BATCHES = 5
X = np.arange(2 * BATCHES, dtype="float32").reshape(-1, 1) / 10
Y = X * 2 + 1


class Gone(Exception):
    """Stands for whatever ends a process."""


class At(keras.callbacks.Callback):
    """Do something when an optimizer has made so many updates."""

    def __init__(self, step: int, *, stop: bool = False):
        super().__init__()
        self.step, self.stop = step, stop

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == self.step:
            if not self.stop:
                raise Gone
            self.model.stop_training = True


class Logged(keras.callbacks.Callback):
    """Note the logs of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[int, dict[str, float]] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.loss = logs["loss"]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        assert self.loss is not None
        self.logs[epoch] = dict(logs)


def arrays() -> Any:
    """Return data of known length."""
    return kct.data.ArrayDataset(X, Y, batch_size=2, shuffle=True, seed=0)


def generator() -> Iterator[Any]:
    """Yield one epoch of batches."""
    for index in range(BATCHES):
        yield X[2 * index : 2 * index + 2], Y[2 * index : 2 * index + 2]


def unsized() -> Any:
    """Return a pipeline of unknown length that gives the same in each epoch."""
    import tensorflow as tf

    spec = (tf.TensorSpec((2, 1)), tf.TensorSpec((2, 1)))
    return kct.data.resumable(
        lambda epoch: tf.data.Dataset.from_generator(generator, output_signature=spec)
    )


def fit(
    path: Path,
    *others: keras.callbacks.Callback,
    data: Any = arrays,
    epochs: int = 3,
    together: int = 0,
    validate: bool = False,
    fit_arguments: Any = None,
    **arguments: Any,
) -> Any:
    """Train as a process of its own does; return the model, the history and the logs."""
    forget_phases()
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(
        "adam",
        "mse",
        metrics=["mae"],
        steps_per_execution=together or 1,
        run_eagerly=not together,  # Its few steps are over before they would have been traced.
    )
    backup = kct.BackupAndRestore(path, delete_checkpoint=False, **arguments)
    logged = Logged()
    history = None
    validation = {"validation_data": (X, Y), "validation_batch_size": 2} if validate else {}
    with contextlib.suppress(Gone):
        history = model.fit(
            data(),
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[logged, *others, backup],
            **validation,
            **(fit_arguments or {}),
        )
    return model, history, logged.logs


def place(path: Path) -> tuple[int, int, int]:
    """Return where the run is that was saved last."""
    progress = kct.training_progress(path)
    return progress.epochs_completed, progress.batches_completed, progress.step


def same(one: keras.Model, other: keras.Model) -> bool:
    """Return whether two models and their optimizers are the same bit for bit."""
    pairs = zip(
        [*one.variables, *one.optimizer.variables],
        [*other.variables, *other.optimizer.variables],
        strict=True,
    )
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


@pytest.mark.parametrize(
    ("data", "save_freq"), [(arrays, 1), (arrays, BATCHES), (unsized, 1), (unsized, BATCHES)]
)
def test_a_save_due_after_the_last_batch_is_the_one_of_the_epochs_end(
    data: Any, save_freq: int, tmp_path: Path
) -> None:
    """It has the logs of the epoch, validation included, and no epoch without batches follows."""

    class Seen(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch:
                places.append(place(tmp_path))

    places: list[Any] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*ran out of data")
        fit(tmp_path, Seen(), data=data, validate=True, save_freq=save_freq)
    assert [one[:2] for one in places] == [(1, 0), (2, 0)]
    progress = kct.training_progress(tmp_path)
    assert place(tmp_path)[:2] == (3, 0)
    assert len(progress.history["val_loss"]) == 3


@pytest.mark.parametrize("step", [1, 4, 5, 6, 10])
def test_a_process_that_is_gone_anywhere_goes_on_as_one_that_was_not(
    step: int, tmp_path: Path
) -> None:
    """Every batch is saved; each epoch of the restart has batches."""
    whole, _, logs = fit(tmp_path / "whole", save_freq=1, validate=True)
    _, _, first = fit(tmp_path / "cut", At(step), save_freq=1, validate=True)
    model, history, second = fit(tmp_path / "cut", save_freq=1, validate=True)
    assert same(whole, model)
    assert {**first, **second} == logs
    assert history.epoch == [0, 1, 2]


@pytest.mark.parametrize(
    ("data", "validate", "step"), [(arrays, True, 8), (unsized, True, 2), (unsized, False, 3)]
)
def test_a_stop_inside_an_epoch_leaves_its_other_batches_to_be_done(
    data: Any, validate: bool, step: int, tmp_path: Path
) -> None:
    """`save_freq="epoch"`, and a limit of time: the state of the last batch is saved."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*ran out of data")
        whole, _, logs = fit(tmp_path / "whole", data=data, validate=validate)
        fit(tmp_path / "cut", At(step, stop=True), data=data, validate=validate)
        assert place(tmp_path / "cut") == (step // BATCHES, step % BATCHES, step)
        model, history, second = fit(tmp_path / "cut", data=data, validate=validate)
    assert same(whole, model)
    assert history.epoch == [0, 1, 2]
    assert {epoch: logs[epoch] for epoch in second} == second


def test_a_stop_at_the_last_batch_is_the_end_of_the_epoch(tmp_path: Path) -> None:
    """All its batches are done."""
    fit(tmp_path, At(BATCHES, stop=True))
    assert place(tmp_path) == (1, 0, BATCHES)


def test_a_model_checkpoint_of_an_epoch_that_was_left_says_where(tmp_path: Path) -> None:
    """It says so as well as the backup."""
    keep = kct.ModelCheckpoint(tmp_path / "model.keras")
    model, _, _ = fit(tmp_path / "run", At(BATCHES + 2, stop=True), keep)
    assert place(tmp_path / "model.keras") == (1, 2, BATCHES + 2)
    progress = kct.training_progress(model)
    assert (progress.epochs_completed, progress.batches_completed) == (1, 2)


@pytest.mark.parametrize(("before", "gone", "after"), [(1, 3, 4), (2, 4, 3), (4, 5, 1)])
def test_steps_per_execution_may_change_inside_an_epoch(
    before: int, gone: int, after: int, tmp_path: Path
) -> None:
    """No batch is passed over, and none is trained twice."""
    whole, _, _ = fit(tmp_path / "whole", together=after, save_freq=1)
    fit(tmp_path / "cut", At(gone), together=before, save_freq=1)
    assert place(tmp_path / "cut")[1] % after != 0 or after == 1
    model, history, _ = fit(tmp_path / "cut", together=after, save_freq=1)
    assert int(model.optimizer.iterations) == 3 * BATCHES
    assert same(whole, model)
    assert history.epoch == [0, 1, 2]
    assert place(tmp_path / "cut") == (3, 0, 3 * BATCHES)


def test_executions_that_would_reach_over_the_end_of_an_epoch_begin_it_again(
    tmp_path: Path,
) -> None:
    """With `steps_per_epoch`, Keras does not cut the last one short."""
    import tensorflow as tf

    def repeated() -> Any:
        return tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).repeat()

    steps = {"steps_per_epoch": 4}
    fit(tmp_path, At(4 + 2), data=repeated, together=1, save_freq=1, fit_arguments=steps)
    assert place(tmp_path) == (1, 1, 5)
    again = {"data": repeated, "together": 2, "save_freq": 1, "fit_arguments": steps}
    with pytest.raises(RestoreError, match="changed='data'"):
        fit(tmp_path, **again)
    with pytest.warns(UserWarning, match="starts over from its first batch"):
        model, _, _ = fit(tmp_path, changed="data", **again)
    assert int(model.optimizer.iterations) == 5 + 2 * 4


def test_batches_executed_together_are_counted_by_where_they_begin(tmp_path: Path) -> None:
    """Keras before 3.12 tells callbacks the first of them at their end, later ones the last."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=4)
    backup = kct.BackupAndRestore(tmp_path, save_freq=1, delete_checkpoint=False)
    backup.set_params({"epochs": 1, "steps": 20})
    backup.set_model(model)
    backup.on_train_begin()
    backup.on_epoch_begin(0)
    for begun in (3, 7):
        backup.on_train_batch_begin(begun)
        backup.on_train_batch_end(begun)  # As Keras 3.10 does.
        assert kct.training_progress(tmp_path).batches_completed == begun + 4

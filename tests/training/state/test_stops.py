"""Whose wish it was that training stops, and which callbacks have to be carried."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from programs import small_data, small_model

import keras_ckpt_tools as kct
from keras_ckpt_tools.runs.phases import forget_phases


class TimeLimit(keras.callbacks.Callback):
    """Stop after an epoch, as the time of a job ends; it knows nothing of the run."""

    def __init__(self, last: int):
        super().__init__()
        self.last = last

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.last:
            self.model.stop_training = True


class Counting(TimeLimit):
    """The same by a count of its own, which is carried."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.seen = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen += 1
        self.model.stop_training = self.seen > self.last


def fit(directory: Path, callbacks: list[Any], carried: list[Any], **backup: Any) -> Any:
    """Train for five epochs; return the history and the warnings about the restart."""
    forget_phases()
    x, y = small_data(2)
    saver = kct.BackupAndRestore(directory, callbacks=carried, delete_checkpoint=False, **backup)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = small_model(0.3).fit(x, y, epochs=5, batch_size=4, verbose=0, shuffle=False,
                                  callbacks=[*callbacks, saver])  # fmt: skip
    return history.epoch, [str(one.message) for one in caught]


def patient(patience: int = 50) -> Any:
    """Return a callback that stops after so many epochs."""
    return keras.callbacks.EarlyStopping("loss", patience=patience, min_delta=9, mode="min")


@pytest.mark.parametrize("carry_the_limit", [False, True])
@pytest.mark.parametrize("limit_first", [False, True])
def test_a_limit_on_the_time_does_not_end_the_run(
    carry_the_limit: bool, limit_first: bool, tmp_path: Path
) -> None:
    """The next start trains on, with `EarlyStopping` carried beside it, in every order."""

    def run(last: int) -> Any:
        limit, stopping = TimeLimit(last), patient()
        callbacks = [limit, stopping] if limit_first else [stopping, limit]
        return fit(tmp_path, callbacks, callbacks if carry_the_limit else [stopping])

    assert run(1) == ([0, 1], [])
    assert run(2) == ([0, 1, 2], [])
    assert run(99) == ([0, 1, 2, 3, 4], [])


@pytest.mark.parametrize("limit_first", [False, True])
def test_what_early_stopping_has_ended_stays_ended(limit_first: bool, tmp_path: Path) -> None:
    """Also where the time was over in the same epoch; and each advice in the warning works."""

    def run(carry: bool, **backup: Any) -> Any:
        limit, stopping = TimeLimit(2), patient(2)
        callbacks = [limit, stopping] if limit_first else [stopping, limit]
        return fit(tmp_path, callbacks, [stopping] if carry else [], **backup)

    assert run(True) == ([0, 1, 2], [])
    for _ in range(2):
        epochs, (message,) = run(True)
        assert epochs == [0, 1, 2]
        assert "EarlyStopping had stopped the run" in message
        assert "remove it from `BackupAndRestore(callbacks=...)`" in message
        assert "pass `resume='never'`" in message
    epochs, messages = run(False)
    assert epochs == [0, 1, 2, 3, 4]
    assert any("'EarlyStopping' is not used: this call does not carry it" in m for m in messages)
    epochs, _ = run(True, resume="never")
    assert epochs == [0, 1, 2]


def test_a_users_callback_with_state_may_end_the_run(tmp_path: Path) -> None:
    """What it has counted is carried, and it would not want to go on."""

    def run() -> Any:
        counting = Counting(1)
        return fit(tmp_path, [counting], [counting])

    assert run() == ([0, 1], [])
    epochs, (message,) = run()
    assert epochs == [0, 1]
    assert "Counting had stopped the run" in message


def test_a_limit_on_the_time_does_not_end_a_loop(tmp_path: Path) -> None:
    """The callbacks of a manager are all carried, those without a state too."""

    def run(last: int, *more: Any) -> list[int]:
        model = small_model()
        manager = kct.CheckpointManager(
            tmp_path, model=model, callbacks=[TimeLimit(last), patient(), *more]
        )
        return list(logged(manager))

    def logged(manager: Any) -> Iterator[int]:
        for epoch in manager.epochs(4):
            manager.log(loss=1.0)
            yield epoch

    assert run(0) == [0]
    assert run(99, patient(1)) == [1, 2]
    with pytest.warns(UserWarning, match=r"EarlyStopping_2 had stopped.*CheckpointManager"):
        assert run(99, patient(1)) == []
    with pytest.warns(UserWarning, match="'EarlyStopping_2' is not used: this call"):
        assert run(99) == [3]


def averaged(directory: Path, order: str, carry: bool, epochs: int, **more: Any) -> Any:
    """Train a model whose weights are exchanged for their averages after each epoch."""
    model = small_model(0.3)
    model.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5), "mse")
    x, y = small_data(4)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    backup = kct.BackupAndRestore(
        directory, callbacks=[swap] if carry else [], delete_checkpoint=False
    )
    callbacks = {"before": [swap, backup], "behind": [backup, swap]}[order]
    history = model.fit(x, y, epochs=epochs, batch_size=4, verbose=0, shuffle=False,
                        callbacks=[*callbacks, *more.get("last", [])])  # fmt: skip
    return history.history["loss"], [w.tobytes() for w in model.get_weights()]


class Interrupt(keras.callbacks.Callback):
    """Leave `fit()` at the end of an epoch, as a kill does."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("order", ["before", "behind"])
def test_averages_that_are_exchanged_resume_exactly(order: str, tmp_path: Path) -> None:
    """Both the trained weights and their averages are saved, and which of them is which."""
    whole = averaged(tmp_path / "whole", order, True, 4)
    with pytest.raises(KeyboardInterrupt):
        averaged(tmp_path / "parts", order, True, 4, last=[Interrupt()])
    resumed = averaged(tmp_path / "parts", order, True, 4)
    assert np.array_equal(resumed[0], whole[0])
    assert resumed[1] == whole[1]


def test_averages_that_are_not_carried_are_told_of(tmp_path: Path) -> None:
    """When training begins; the advice is followed in the test above."""
    with pytest.warns(UserWarning, match=r"SwapEMAWeights would start over.*callbacks=\["):
        averaged(tmp_path, "before", False, 1)


def test_callbacks_of_keras_that_forget_are_named_once(tmp_path: Path) -> None:
    """In one warning, and not what is carried, keeps nothing, or has its state in files."""
    callbacks = [
        patient(),
        keras.callbacks.ReduceLROnPlateau("loss"),
        keras.callbacks.ModelCheckpoint(tmp_path / "a.keras", "loss", save_best_only=True),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate),
        keras.callbacks.TerminateOnNaN(),
        kct.ModelCheckpoint(tmp_path / "b.keras", "loss", save_best_only=True),
    ]
    _, messages = fit(tmp_path / "one", callbacks, callbacks[1:2])
    (message,) = (m for m in messages if "start over" in m)
    assert "EarlyStopping, ModelCheckpoint would start over" in message
    assert "ReduceLROnPlateau" not in message
    _, messages = fit(tmp_path / "two", callbacks, callbacks[:3])
    assert not any("start over" in m for m in messages)

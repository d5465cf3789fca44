"""Signals and exceptions during training, with real signals to real processes."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.runs.phases import forget_phases
from keras_ckpt_tools.training.interruption import ExceptionWatch, SignalWatch


def _model() -> Any:
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


X, Y = np.ones((12, 2), "float32"), np.ones((12, 1), "float32")


class Interrupt(keras.callbacks.Callback):
    """Sends a signal to this process within a batch."""

    def __init__(self, at: int, number: int = signal.SIGINT):
        super().__init__()
        self.at, self.number, self.seen = at, number, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == self.at:
            signal.raise_signal(self.number)


def test_ctrl_c_saves_the_state_and_then_interrupts(tmp_path: Path) -> None:
    """The batch under way is finished and saved; KeyboardInterrupt comes after that."""
    backup = kct.BackupAndRestore(tmp_path, save_on_signal=True)
    with pytest.raises(KeyboardInterrupt):
        _model().fit(X, Y, batch_size=4, epochs=3, verbose=0, callbacks=[Interrupt(5), backup])
    progress = kct.training_progress(tmp_path)
    assert (progress.epochs_completed, progress.batches_completed, progress.step) == (1, 2, 5)


def test_sigterm_goes_to_whoever_had_it_before(tmp_path: Path) -> None:
    """A handler of the user's is called after the save, and is in place again."""
    calls = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    mine = signal.getsignal(signal.SIGTERM)
    try:
        backup = kct.BackupAndRestore(tmp_path, save_on_signal=True, delete_checkpoint=False)
        _model().fit(
            X,
            Y,
            batch_size=4,
            verbose=0,
            callbacks=[Interrupt(2, signal.SIGTERM), backup],
        )
        assert calls == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_are_given_back_when_training_ends(tmp_path: Path) -> None:
    """After `fit()`, Ctrl-C does what it did before."""
    before = signal.getsignal(signal.SIGINT)
    backup = kct.BackupAndRestore(tmp_path, save_on_signal=True)
    _model().fit(X, Y, verbose=0, callbacks=[backup])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_after_training_failed_is_not_swallowed() -> None:
    """Keras does not say that `fit()` was left by an exception; the watch finds out."""
    watch = SignalWatch()
    before = signal.getsignal(signal.SIGINT)

    def train() -> None:
        watch.begin()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_is_handed_on_at_once() -> None:
    """Somebody who presses Ctrl-C twice is in a hurry."""
    watch = SignalWatch()
    watch.begin()
    signal.raise_signal(signal.SIGINT)
    assert watch.received
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_manual_loop_saves_on_a_signal_too(tmp_path: Path) -> None:
    """And goes on with the batch that comes next."""
    import tensorflow as tf

    total = tf.Variable(0)
    manager = kct.CheckpointManager(tmp_path, save_on_signal=True, total=total)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the loop is what is tested)
        for _ in manager.epochs(2):
            for number in manager.batches(range(5)):
                total.assign_add(number)
                if number == 2:
                    signal.raise_signal(signal.SIGINT)
    assert int(total) == 3
    other = tf.Variable(0)
    manager = kct.CheckpointManager(tmp_path, total=other)
    for _ in manager.epochs(2):
        for number in manager.batches(range(5)):
            other.assign_add(number)
    assert int(other) == 20


class Failing(keras.Model):
    """A model whose third step fails."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.steps = 0

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        self.steps += 1
        if self.steps == 3:
            raise ZeroDivisionError("bad batch")
        return super().train_step(data)


def test_an_exception_in_a_step_saves_the_model_beside(tmp_path: Path) -> None:
    """The regular file is not touched, and the exception goes on."""
    model = Failing()
    model.compile("sgd", "mse", run_eagerly=True)
    path = tmp_path / "m.weights.h5"
    callback = kct.ModelCheckpoint(path, save_weights_only=True, save_on_exception=True)
    with pytest.raises(ZeroDivisionError, match="bad batch"):
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[callback])
    assert [p.name for p in tmp_path.iterdir()] == ["m-interrupted.weights.h5"]
    assert kct.training_progress(tmp_path / "m-interrupted.weights.h5").batches_completed == 2


def test_the_end_of_a_dataset_is_no_exception(tmp_path: Path) -> None:
    """`fit()` finds out by an exception that there are no more batches."""
    import tensorflow as tf

    callback = kct.ModelCheckpoint(tmp_path / "m.keras", save_on_exception=True)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    _model().fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]


def test_a_save_that_fails_does_not_hide_the_exception() -> None:
    """The first exception goes on, with a note about the second."""

    class Model:
        def train_function(self) -> None:
            raise ZeroDivisionError("bad batch")

    def save() -> None:
        raise OSError("disk full")

    model = Model()
    watch = ExceptionWatch(save)

    def fit() -> None:
        watch.begin(model)
        model.train_function()

    with pytest.raises(ZeroDivisionError, match="bad batch") as caught:
        fit()
    assert "disk full" in caught.value.__notes__[0]


# In the validation.


class Noise(keras.layers.Layer):
    """Draws random numbers in the validation, too."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.seed = keras.random.SeedGenerator(3)

    def call(self, inputs: Any) -> Any:
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seed)


def _eager() -> Any:
    """Return the model; its few steps are over before they would have been traced."""
    model = _model()
    model.run_eagerly = True
    return model


def _noisy_model() -> Any:
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.layers.Input((2,)), Noise(), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=True)
    return model


class InValidation(keras.callbacks.Callback):
    """Sends a signal in the validation of an epoch, or raises an exception there."""

    def __init__(self, epoch: int, number: int | None = signal.SIGINT):
        super().__init__()
        self.epoch, self.number, self.now, self.seen = epoch, number, 0, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.now == self.epoch:
            self.seen += 1
            if self.number is None:
                raise ZeroDivisionError
            if self.seen == 1:
                signal.raise_signal(self.number)


def _arrays() -> Any:
    return kct.data.ArrayDataset(X, Y, batch_size=4, shuffle=True, seed=1)


def _generator() -> Any:
    while True:
        for start in range(0, 12, 4):
            yield X[start : start + 4], Y[start : start + 4]


DATA: dict[str, Any] = {
    "data that are replayed": lambda: {"x": _arrays()},
    "shuffled arrays": lambda: {"x": X, "y": Y, "batch_size": 4},
    "a generator": lambda: {"x": _generator(), "steps_per_epoch": 3, "shuffle": False},
    "a generator that ends": lambda: {
        "x": (batch for batch in itertools.islice(_generator(), 3)),
        "shuffle": False,
    },
}


class Epochs(keras.callbacks.Callback):
    """Notes what epochs end with, and how many batches are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[int] = []
        self.batches = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.ends.append(epoch)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("data", DATA)
def test_a_signal_in_the_validation_is_answered_at_once(data: str, tmp_path: Path) -> None:
    """No batch is trained twice, and the epoch ends once, after its validation."""
    epochs = 1 if data.endswith("ends") else 3
    fit = {"epochs": epochs, "verbose": 0, "validation_data": (X, Y), "validation_batch_size": 2}
    at = min(1, epochs - 1)
    backup = kct.BackupAndRestore(tmp_path, save_on_signal=True)
    signalled, before, after = InValidation(at), Epochs(), Epochs()
    with pytest.raises(KeyboardInterrupt):
        _noisy_model().fit(**DATA[data](), **fit, callbacks=[signalled, before, backup])
    assert signalled.seen == 1
    progress = kct.training_progress(tmp_path)
    assert (progress.epochs_completed, progress.batches_completed) == (at, 3)
    model = _noisy_model()
    backup = kct.BackupAndRestore(tmp_path, save_on_signal=True)
    history = model.fit(**DATA[data](), **fit, callbacks=[after, backup])
    assert before.ends + after.ends == list(range(epochs))
    assert before.batches + after.batches == 3 * epochs
    assert int(model.optimizer.iterations) == 3 * epochs
    assert all(len(values) == epochs for values in history.history.values())
    if data == "data that are replayed":
        whole = _noisy_model()
        expected = whole.fit(**DATA[data](), **fit)
        assert history.history == expected.history
        for one, other in zip(model.variables, whole.variables, strict=True):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_a_second_signal_in_the_same_validation_is_answered_too(tmp_path: Path) -> None:
    """After a restart that had no batch left to train."""
    fit = {"epochs": 2, "verbose": 0, "validation_data": (X, Y)}
    for _ in range(2):
        backup = kct.BackupAndRestore(tmp_path, save_on_signal=True)
        with pytest.raises(KeyboardInterrupt):
            _noisy_model().fit(_arrays(), **fit, callbacks=[InValidation(0), backup])
    model = _noisy_model()
    backup = kct.BackupAndRestore(tmp_path, save_on_signal=True)
    history = model.fit(_arrays(), **fit, callbacks=[backup])
    assert history.epoch == [0, 1]
    assert int(model.optimizer.iterations) == 6


def _before_the_end(directory: Path) -> Any:
    """Return where the last save was but that of the end of training."""
    return kct.training_progress(sorted(directory.glob("ckpt-*"))[0])


def test_a_handler_of_the_program_lets_the_validation_go_on(tmp_path: Path) -> None:
    """And the next signal is saved for as well."""
    calls: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: calls.append(number))
    try:
        backup = kct.BackupAndRestore(
            tmp_path,
            save_on_signal=signal.SIGUSR1,
            delete_checkpoint=False,
            double_checkpoint=True,
            save_freq=10**6,
        )
        signals = [InValidation(0, signal.SIGUSR1), InValidation(1, signal.SIGUSR1)]
        _noisy_model().fit(
            _arrays(),
            epochs=3,
            verbose=0,
            validation_data=(X, Y),
            callbacks=[*signals, backup],
        )
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert calls == [signal.SIGUSR1] * 2
    assert _before_the_end(tmp_path).epochs_completed == 1


def test_a_signal_in_the_validation_saves_the_model_at_once(tmp_path: Path) -> None:
    """The other callback, too."""
    saver = kct.ModelCheckpoint(tmp_path / "a.keras", save_on_signal=True)
    signalled = InValidation(0)
    with pytest.raises(KeyboardInterrupt):
        _eager().fit(
            X,
            Y,
            batch_size=4,
            verbose=0,
            validation_data=(X, Y),
            validation_batch_size=2,
            callbacks=[signalled, saver],
        )
    assert signalled.seen == 1
    assert os.listdir(tmp_path) == ["a-interrupted.keras"]


# Which signals.


@pytest.mark.parametrize(
    "save_on_signal",
    [signal.SIGUSR1, [signal.SIGTERM, signal.SIGUSR1], {signal.SIGUSR1}, int(signal.SIGUSR1)],
    ids=str,
)
def test_the_signals_are_a_choice(save_on_signal: Any, tmp_path: Path) -> None:
    """As a scheduler sends them; others do what they did."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    ctrl_c = signal.getsignal(signal.SIGINT)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            seen.append(signal.getsignal(signal.SIGINT) is ctrl_c)

    try:
        backup = kct.BackupAndRestore(
            tmp_path,
            save_on_signal=save_on_signal,
            save_freq=10**6,
            delete_checkpoint=False,
            double_checkpoint=True,
        )
        _eager().fit(
            X,
            Y,
            batch_size=4,
            verbose=0,
            callbacks=[Interrupt(2, signal.SIGUSR1), Look(), backup],
        )
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [True]
    assert _before_the_end(tmp_path).batches_completed == 2


def test_a_loop_has_the_choice_too(tmp_path: Path) -> None:
    """The same argument, the same answer."""
    import tensorflow as tf

    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        total = tf.Variable(0)
        manager = kct.CheckpointManager(
            tmp_path, save_on_signal=signal.SIGUSR1, save_freq=10**6, total=total
        )
        places = []
        for _ in manager.epochs(1):
            for number in manager.batches(range(5)):
                places.append(len(manager.checkpoints))
                if number == 2:
                    signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert places == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "wrong",
    ["SIGTERM", signal.SIGKILL, [signal.SIGTERM, signal.SIGSTOP], 12345, [], 2.5, [True], [[1]]],
    ids=str,
)
def test_what_is_no_signal_is_refused(wrong: Any, tmp_path: Path) -> None:
    """At once, with what can be passed."""
    for make in (
        lambda: kct.ModelCheckpoint(tmp_path / "a.keras", save_on_signal=wrong),
        lambda: kct.BackupAndRestore(tmp_path, save_on_signal=wrong),
        lambda: kct.CheckpointManager(tmp_path, save_on_signal=wrong, model=_eager()),
    ):
        with pytest.raises(kct.errors.ArgumentError, match="SIGUSR1"):
            make()


# Exceptions beside the step.


class Raising(keras.callbacks.Callback):
    """Raises in one of its hooks."""

    def __init__(self, hook: str):
        super().__init__()
        setattr(self, hook, self._raise)

    def _raise(self, *_: Any, **__: Any) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "hook",
    [
        "on_epoch_begin",
        "on_train_batch_begin",
        "on_train_batch_end",
        "on_test_begin",
        "on_test_batch_end",
        "on_test_end",
        "on_epoch_end",
    ],
)
def test_an_exception_of_another_callback_saves_the_model(hook: str, tmp_path: Path) -> None:
    """Whichever comes first in the list."""
    saver = kct.ModelCheckpoint(tmp_path / "a.keras", save_on_exception=True, monitor="loss")
    callbacks = [Raising(hook), saver] if hook.startswith("on_test") else [saver, Raising(hook)]
    model = _eager()
    with pytest.raises(ZeroDivisionError) as caught:
        model.fit(X, Y, batch_size=4, verbose=0, validation_data=(X, Y), callbacks=callbacks)
    assert not getattr(caught.value, "__notes__", [])
    assert "a-interrupted.keras" in os.listdir(tmp_path)
    assert kct.verify(tmp_path / "a-interrupted.keras")
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[kct.BackupAndRestore(tmp_path / "b")])


def test_an_exception_in_the_validation_saves_the_model(tmp_path: Path) -> None:
    """A step of it that fails."""

    class Failing(keras.Sequential):
        def test_step(self, data: Any) -> Any:
            raise ZeroDivisionError

    model = Failing([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    saver = kct.ModelCheckpoint(tmp_path / "a.keras", save_on_exception=True, monitor="loss")
    with pytest.raises(ZeroDivisionError):
        model.fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=[saver])
    assert os.listdir(tmp_path) == ["a-interrupted.keras"]


def test_a_model_is_given_back_as_it_was(tmp_path: Path) -> None:
    """After `fit()`, nothing is wrapped any more."""
    model = _eager()
    saver = kct.ModelCheckpoint(tmp_path / "a.keras", save_on_exception=True, monitor="loss")
    model.fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=[saver])
    assert "evaluate" not in vars(model)
    assert "interruption" not in type(model.train_function).__module__


# What has trained can be copied.


@pytest.mark.parametrize("copied", ["pickle", "deepcopy"])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("make", ["ModelCheckpoint", "BackupAndRestore"])
def test_a_callback_that_has_trained_can_be_copied(
    make: str, fails: bool, copied: str, tmp_path: Path
) -> None:
    """Pickled or copied, after a run with all that watches; and the copy works."""
    arguments: dict[str, Any] = {"save_on_signal": True, "background": True}
    if make == "ModelCheckpoint":
        callback: Any = kct.ModelCheckpoint(
            tmp_path / "a.keras", monitor="loss", save_on_exception=True, **arguments
        )
    else:
        callback = kct.BackupAndRestore(tmp_path / "b", delete_checkpoint=False, **arguments)
    raising = [Raising("on_epoch_end")] if fails else []
    try:
        _eager().fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=[callback, *raising])
    except ZeroDivisionError:
        assert fails
    callback.set_model(None)
    copies: dict[str, Any] = {
        "deepcopy": copy.deepcopy,
        "pickle": lambda it: pickle.loads(pickle.dumps(it)),
    }
    other = copies[copied](callback)
    forget_phases()
    history = _eager().fit(X, Y, epochs=2, verbose=0, callbacks=[other])
    assert history.epoch == [0, 1]


@pytest.mark.parametrize("callbacks", [None, []])
def test_no_callbacks_are_no_callbacks(callbacks: Any, tmp_path: Path) -> None:
    """Whichever way that is said."""
    model = _eager()
    backup = kct.BackupAndRestore(tmp_path / "b", callbacks=callbacks)
    model.fit(X, Y, verbose=0, callbacks=[backup])
    manager = kct.CheckpointManager(tmp_path / "m", model=model, callbacks=callbacks)
    assert list(manager.epochs(1)) == [0]


def test_a_handler_that_calls_the_one_before_it_does_not_call_for_ever(tmp_path: Path) -> None:
    """Set within `fit()`, it has ours before it, which passes the signal on once."""
    calls: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: calls.append("program"))

    class Chain(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            earlier = signal.getsignal(signal.SIGUSR1)

            def handler(number: int, frame: Any) -> None:
                calls.append("chained")
                assert len(calls) < 9
                earlier(number, frame)

            signal.signal(signal.SIGUSR1, handler)

    try:
        backup = kct.BackupAndRestore(tmp_path, save_on_signal=signal.SIGUSR1)
        _model().fit(X, Y, verbose=0, callbacks=[Chain(), backup])
        signal.raise_signal(signal.SIGUSR1)
        assert calls == ["chained", "program"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_loops_in_generators_that_take_turns_are_saved_for(tmp_path: Path) -> None:
    """The one that waits for its turn is not on the stack, and has not ended."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)

    def train(name: str, interrupted: bool) -> Any:
        manager = kct.CheckpointManager(
            tmp_path / name, model=_model(), save_on_signal=signal.SIGUSR1, save_freq=1000
        )
        for step in manager.steps(4):
            if interrupted and step == 2:
                signal.raise_signal(signal.SIGUSR1)
            yield step

    try:
        for _ in zip(train("a", True), train("b", False), strict=True):
            if (tmp_path / "a").is_dir() and list((tmp_path / "a").glob("ckpt-*")):
                break
        assert kct.training_progress(tmp_path / "a").batches_completed == 3
    finally:
        signal.signal(signal.SIGUSR1, before)

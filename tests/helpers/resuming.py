"""A small stand-in for the engine: train, save at any batch, stop, and go on with new objects.

`train` is a loop as `fit()` has it, around Keras' own `CallbackList`, which can begin in the middle
of an epoch; `fit` is `fit()` itself, which here goes on between epochs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import state_files
from processes import kill
from programs import small_data, small_model

from keras_ckpt_tools.training.state.callbacks import CallbackStates

BATCHES = 4
Place = tuple[int, int]  # The epoch and the batch of it that come next.


def eager(model: keras.Model) -> keras.Model:
    """Return the model; its few steps are over before they would have been traced."""
    model.run_eagerly = True
    return model


class Script(keras.callbacks.Callback):
    """Say what the logs are, so that a test decides when a metric gets better. Comes first."""

    def __init__(self, **logs: Sequence[float]):
        super().__init__()
        self.logs = logs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs |= {name: values[epoch] for name, values in self.logs.items()}


class Notes(keras.callbacks.Callback):
    """Note the logs of each epoch, as the last callback sees them."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.logs: dict[int, dict[str, float]] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.logs[epoch] = dict(logs)


@dataclasses.dataclass
class Outcome:
    """What a run leaves."""

    callbacks: list[Any]
    model: keras.Model
    logs: dict[int, dict[str, float]]

    @property
    def last_epoch(self) -> int:
        """The last epoch of this part of the run; -1 if there was none."""
        return max(self.logs, default=-1)

    def weights(self) -> list[bytes]:
        """Return weights and optimizer, bit for bit."""
        return [np.asarray(v).tobytes() for v in _variables(self.model)]


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.metrics_variables, *model.optimizer.variables]


def _save(path: Path, model: keras.Model, states: CallbackStates, place: Place) -> None:
    state = {
        "place": place,
        "variables": _variables(model),
        "stop": model.stop_training,
        "callbacks": states.get_state(),
    }
    state_files.save(path, state)


def _be_gone(callbacks: list[Any]) -> None:
    # Python complains of files that are left open, as a process that is killed does not.
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger):
            callback.csv_file.close()


def _restore_model(state: Any, model: keras.Model) -> None:
    for variable, value in zip(_variables(model), state["variables"], strict=True):
        variable.assign(value)


def train(
    path: Path,
    make_callbacks: Callable[[], list[Any]],
    *,
    epochs: int = 6,
    stop_at: Place | None = None,
    make_model: Callable[[], keras.Model] = lambda: eager(small_model(0.3)),
    validate: bool = False,
) -> Outcome:
    """Train; go on from what is at `path`, and be gone after a save at `stop_at`."""
    model, callbacks = make_model(), make_callbacks()
    x, y = small_data(BATCHES)
    model.optimizer.build(model.trainable_variables)
    states = CallbackStates(callbacks)
    notes = Notes()
    events = keras.callbacks.CallbackList(
        [*callbacks, notes], model=model, epochs=epochs, steps=BATCHES, verbose=0
    )
    model.stop_training = False
    state = state_files.load(path) if path.exists() else None
    first, batch = state["place"] if state else (0, 0)
    events.on_train_begin()
    outcome = Outcome(callbacks, model, notes.logs)
    states.begin()

    def restore() -> None:
        _restore_model(state, model)
        states.set_state(state["callbacks"], first, batch)

    if state and not batch:
        restore()
        if state["stop"]:
            epochs = first
    logs: dict[str, float] = {}
    for epoch in range(first, epochs):
        if epoch > first or not batch:
            model.reset_metrics()
        events.on_epoch_begin(epoch)
        start = batch if epoch == first else 0
        if start:
            restore()
        for index in range(start, BATCHES):
            events.on_train_batch_begin(index)
            part = slice(4 * index, 4 * index + 4)
            logs = model.train_on_batch(x[part], y[part], return_dict=True)
            events.on_train_batch_end(index, logs)
            if (epoch, index + 1) == stop_at:
                _save(path, model, states, stop_at)
                _be_gone(callbacks)
                return outcome
            if model.stop_training:
                break
        logs = dict(logs)
        if validate:
            found = model.evaluate(x, y, verbose=0, return_dict=True, callbacks=events)
            logs |= {f"val_{name}": value for name, value in found.items()}
        events.on_epoch_end(epoch, logs)
        if (epoch + 1, 0) == stop_at:
            _save(path, model, states, stop_at)
            _be_gone(callbacks)
            return outcome
        if model.stop_training:
            break
    model.optimizer.finalize_variable_values(model.trainable_weights)
    events.on_train_end(logs)
    return outcome


class Stopped(Exception):
    """The run was stopped."""


class Engine(keras.callbacks.Callback):
    """Saves and restores at the ends of epochs of a `fit()`. Comes last."""

    def __init__(self, path: Path, states: CallbackStates, stop_after: int | None):
        super().__init__()
        self.path, self.states, self.stop_after = path, states, stop_after
        self.state = state_files.load(path) if path.exists() else None

    def on_train_begin(self, logs: Any = None) -> None:
        """Note the beginning, and restore."""
        self.states.begin()
        if self.state:
            _restore_model(self.state, self.model)
            self.states.set_state(self.state["callbacks"], *self.state["place"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save, and be gone."""
        if epoch == self.stop_after:
            _save(self.path, self.model, self.states, (epoch + 1, 0))
            raise Stopped


def fit(
    path: Path,
    make_callbacks: Callable[[], list[Any]],
    *,
    epochs: int = 6,
    stop_after: int | None = None,
    make_model: Callable[[], keras.Model] = lambda: small_model(0.3),
    **arguments: Any,
) -> Outcome:
    """Call `fit()`; go on from what is at `path`, and be gone after a save at an epoch's end."""
    model, callbacks = make_model(), make_callbacks()
    x, y = small_data(BATCHES)
    model.optimizer.build(model.trainable_variables)
    engine = Engine(path, CallbackStates(callbacks), stop_after)
    notes = Notes()
    first = engine.state["place"][0] if engine.state else 0
    with contextlib.suppress(Stopped):
        model.fit(
            x,
            y,
            batch_size=4,
            epochs=epochs,
            initial_epoch=first,
            shuffle=False,
            verbose=0,
            callbacks=[*callbacks, notes, engine],
            **arguments,
        )
    if stop_after is not None:
        _be_gone(callbacks)
    return Outcome(callbacks, model, notes.logs)


def log_and_be_killed(directory: str, epochs: int, save_after: int, kill_after: int) -> bytes:
    """Log to a CSV file in a `fit()`; save after one epoch, and be killed after a later one."""

    class Killed(Engine):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == save_after:
                _save(self.path, self.model, self.states, (epoch + 1, 0))
            if epoch == kill_after:
                kill()

    csv = Path(directory, "log.csv")
    logger = keras.callbacks.CSVLogger(csv)
    engine = Killed(Path(directory, "state"), CallbackStates([logger]), None)
    model = small_model(0.3)
    model.optimizer.build(model.trainable_variables)
    x, y = small_data(BATCHES)
    first = engine.state["place"][0] if engine.state else 0
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(x, y, epochs=epochs, initial_epoch=first, callbacks=[logger, engine], **arguments)
    return csv.read_bytes()

"""The state of the callbacks of a run: `fit()`'s callbacks -> *states* -> snapshot, and resume.

Keras' callbacks give their state to nobody and set themselves back when training begins, so that
after a restart `EarlyStopping` has all its patience again and the best model is overwritten by a
worse one. Here a callback is taken as it is. Training has changed some of its attributes since it
began: those are the state, and go back when the next process has begun. All others are arguments,
and stay as the user gave them, also where he gave others than before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.callback_keepers import Asked, Attributes, own_access
from keras_ckpt_tools.training.known_callbacks import has_state
from keras_ckpt_tools.training.stops import Stops


class CallbackStates:
    """The states of the callbacks of one run.

    A callback that has `get_state()` and `set_state(state)` is asked for its state. Of any other
    it is the attributes that training has changed: numbers, text, arrays, and lists, tuples, dicts
    and sets of these; likewise the content of variables, metrics, random generators, and of
    whatever else was there when training began and takes its state back. A changed attribute that
    a file cannot hold (a function, an open file, an object of another class) is named once, in a
    warning.

    Args:
        callbacks: The callbacks. Their order is how two of one class are told apart.

    Attributes:
        stops: Which of them have stopped training.
        names: `"EarlyStopping"`, and `"EarlyStopping_2"` for a second one of that class.

    Raises:
        ArgumentError: something is no Keras callback.

    Example:

    >>> stopping = keras.callbacks.EarlyStopping("loss", mode="min", patience=3)
    >>> states = CallbackStates([stopping])
    >>> stopping.on_train_begin()
    >>> states.begin()
    >>> stopping.on_epoch_end(0, {"loss": 0.5})
    >>> stopping.on_epoch_end(1, {"loss": 0.6})
    >>> sorted(states.get_state()["EarlyStopping"]["attributes"].items())
    [('best', 0.5), ('wait', 1)]
    """

    def __init__(self, callbacks: Iterable[keras.callbacks.Callback]):
        self._keepers: dict[str, Asked | Attributes] = {}
        self._callbacks: dict[str, keras.callbacks.Callback] = {}
        self._told: set[str] = set()
        names: list[str] = []
        callbacks = list(callbacks)
        for callback in callbacks:
            if not isinstance(callback, keras.callbacks.Callback):
                raise ArgumentError(
                    "Only Keras callbacks can be carried as callbacks.",
                    received=f"callbacks=[..., {callback!r}]",
                    remedy="Pass objects of `keras.callbacks.Callback` and its subclasses.",
                )
            name = _free_name(type(callback).__name__, names)
            names.append(name)
            self._callbacks[name] = callback
            access = own_access(callback)
            if access is not None:
                self._keepers[name] = Asked(*access)
            elif has_state(callback):
                self._keepers[name] = Attributes(name, callback, callbacks)
        self.names = tuple(names)
        self.stops = Stops(self._callbacks)

    def begin(self) -> None:
        """Note what the callbacks hold now, after every `on_train_begin` has run."""
        for keeper in self._keepers.values():
            keeper.begin()

    def get_state(self) -> dict[str, Any]:
        """Return the state of each callback by its name, for `take_arrays`.

        Call it when all callbacks have seen the event after which is saved. Arrays and variables
        are those of the callbacks and no copies.
        """
        return {name: keeper.get_state() for name, keeper in self._keepers.items()}

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        """Return which states in a checkpoint no callback here takes, as sentences.

        They are no obstacle to a restart: a program that no longer carries a callback has chosen
        that. A callback that the checkpoint does not have is no difference: it starts now.
        """
        lost = [
            f"the state of the callback {name!r} is left: this call does not carry it"
            for name in state
            if name not in self.names
        ]
        other = [
            f"the callback {name!r} begins anew: it gives its state in another way than when it "
            "was saved, with `get_state` or by its attributes"
            for name, keeper in self._keepers.items()
            if name in state and not _has(state[name], keeper.KEY)
        ]
        return lost + other

    def final_stops(self, names: Iterable[str], state: Mapping[str, Any]) -> list[str]:
        """Return which of the callbacks that stopped training will not want to go on later.

        A wish to stop goes with the state that it comes from. A callback of the user's without
        state (a limit on the time, say) has none, and decides anew after a restart.

        Args:
            names: The callbacks that have stopped training.
            state: What `get_state` returns now.
        """
        return [
            name
            for name in names
            if type(self._callbacks[name]).__module__.startswith("keras.")
            or (name in self._keepers and self._keepers[name].has_changed(state.get(name)))
        ]

    def still_stopped(self, run: Mapping[str, Any]) -> list[str]:
        """Return which callbacks that are carried here had stopped a run that is to go on.

        Args:
            run: What a checkpoint says of the `fit()` or the loop.
        """
        # Older records do not have the names: there, all that were carried count as one.
        names = run.get("stopped by", list(self.names) if run.get("stopped") else [])
        return [name for name in names if name in self.names]

    def fitting(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of a state that these callbacks take back; see `differences`."""
        return {
            name: state[name]
            for name, keeper in self._keepers.items()
            if name in state and keeper.KEY in state[name]
        }

    def set_state(self, state: Mapping[str, Any], epoch: int, batch: int) -> None:
        """Let the callbacks go on from what `get_state` returned, all of them or none.

        What the rules for their state do not allow is left alone and named in one warning.

        Call it after every `on_train_begin`, because there callbacks set themselves back. Where
        `batch` is not 0, call it after every `on_epoch_begin` of that epoch as well: a callback's
        state in the middle of an epoch is one that has seen that event.

        Args:
            state: What `get_state` returned. Callbacks that it does not have stay as they are.
            epoch: The zero-based epoch that comes next or is under way.
            batch: The zero-based batch of it that comes next.

        Raises:
            ArgumentError: a callback did not take its state back. All are as they were.
        """
        undo: list[Callable[[], None]] = []
        left: list[str] = []
        for name, keeper in self._keepers.items():
            if name not in state or not _has(state[name], keeper.KEY):
                continue
            try:
                undo.append(keeper.remember(state[name]))
                left += keeper.set_state(state[name], epoch)
            except BaseException as error:
                for step in reversed(undo):
                    step()
                if not isinstance(error, Exception):
                    raise
                raise ArgumentError(
                    f"The callback {name!r} did not take its state back for epoch {epoch}, batch "
                    f"{batch}: {error}",
                    received=f"{type(error).__name__}",
                    remedy="All callbacks are as they were. Make this one as it was made when the "
                    "run was saved.",
                ) from error
        self._tell_of(left)

    def _tell_of(self, left: list[str]) -> None:
        new = [sentence for sentence in left if sentence not in self._told]
        self._told.update(new)
        if new:
            warn(
                "Parts of the state of callbacks in the checkpoint are not used, and what they "
                f"would have set begins anew: {'; '.join(new)}.",
                UserWarning,
                stacklevel=3,
            )


def _has(state: Any, key: str) -> bool:
    return isinstance(state, Mapping) and key in state


def restore_history(history: keras.callbacks.History, progress: TrainingProgress) -> None:
    """Fill Keras' `History` with the epochs before a restart.

    Args:
        history: The object that `fit()` will return; call this after its `on_train_begin`, which
            empties it.
        progress: The record of the run. Logs that are not one number each are not in it.

    >>> history = keras.callbacks.History()
    >>> restore_history(
    ...     history, TrainingProgress(history={"loss": (0.5, 0.4)}, history_epochs={"loss": (0, 1)})
    ... )
    >>> history.epoch, history.history
    ([0, 1], {'loss': [0.5, 0.4]})
    """
    history.epoch = sorted({e for epochs in progress.history_epochs.values() for e in epochs})
    # In place: some programs hold the dictionary.
    history.history.clear()
    history.history.update({name: list(values) for name, values in progress.history.items()})


def _free_name(name: str, taken: list[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free

"""Save and restore the state of the callbacks of a run.

Keras' callbacks have no method for their state and reset themselves when training starts. So after
a restart, `EarlyStopping` counts its patience again, and the best model is overwritten by a worse
one. Here, the attributes that training has changed since its start are the state of a callback, and
are restored in the next process. All other attributes are arguments and keep the values that the
user passed, even if they differ from those before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.state.attributes import Elsewhere, View, fill, look
from keras_ckpt_tools.training.state.callback_rules import refusal
from keras_ckpt_tools.training.state.known_callbacks import (
    CsvFile,
    flush,
    has_state,
    no_state_in,
    schema_of,
)
from keras_ckpt_tools.training.state.stops import Stops


class CallbackStates:
    """The states of the callbacks of one run.

    If a callback has `get_state()` and `set_state(state)`, these are used. Otherwise its state is
    the attributes that training has changed: numbers, text, arrays, and lists, tuples, dicts and
    sets of these; also the contents of variables, metrics, random generators and other objects that
    existed when training started and can be filled. A changed attribute that cannot be saved (a
    function, an open file, an object of another class) is named once, in a warning.

    Args:
        callbacks: The callbacks. Their order distinguishes those of the same class.

    Attributes:
        stops: The callbacks that have stopped training.
        names: `"EarlyStopping"`, and `"EarlyStopping_2"` for a second one of that class.

    Raises:
        ArgumentError: an object is not a Keras callback.

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
                    "`callbacks` accepts only Keras callbacks.",
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
        """Note the present values of the callbacks, after every `on_train_begin` has run."""
        for keeper in self._keepers.values():
            keeper.begin()

    def get_state(self) -> dict[str, Any]:
        """Return the state of each callback by its name, for `take_arrays`.

        Call it when all callbacks have handled the event before the save. Arrays and variables are
        those of the callbacks, not copies.
        """
        return {name: keeper.get_state() for name, keeper in self._keepers.items()}

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        """Return the states in a checkpoint that no callback here restores, as sentences.

        They do not prevent a restart: a program may stop carrying a callback. A callback that is
        not in the checkpoint is not a difference: it starts now.
        """
        lost = [
            f"the state of the callback {name!r} is not used: this call does not carry it"
            for name in state
            if name not in self.names
        ]
        other = [
            f"the callback {name!r} starts over: its state was saved in another way than it is "
            "restored, with `get_state` or from its attributes"
            for name, keeper in self._keepers.items()
            if name in state and not _has(state[name], keeper.KEY)
        ]
        return lost + other

    def final_stops(self, names: Iterable[str], state: Mapping[str, Any]) -> list[str]:
        """Return the callbacks that stopped training and will stop it again after a restart.

        The decision to stop is part of the saved state. A custom callback without state (a time
        limit, for example) decides again after a restart.

        Args:
            names: The callbacks that have stopped training.
            state: The present result of `get_state`.
        """
        return [
            name
            for name in names
            if type(self._callbacks[name]).__module__.startswith("keras.")
            or (name in self._keepers and self._keepers[name].has_changed(state.get(name)))
        ]

    def still_stopped(self, run: Mapping[str, Any]) -> list[str]:
        """Return the carried callbacks that had stopped the resumed run.

        Args:
            run: The state of the `fit()` or the loop in a checkpoint.
        """
        # Older records do not contain the names: all carried callbacks count as one.
        names = run.get("stopped by", list(self.names) if run.get("stopped") else [])
        return [name for name in names if name in self.names]

    def fitting(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of a state that these callbacks restore; see `differences`."""
        return {
            name: state[name]
            for name, keeper in self._keepers.items()
            if name in state and keeper.KEY in state[name]
        }

    def set_state(self, state: Mapping[str, Any], epoch: int, batch: int) -> None:
        """Restore all callbacks from the result of `get_state`, or none.

        Values that the rules do not allow are skipped and named in one warning.

        Call it after every `on_train_begin`, because callbacks reset themselves there. If `batch`
        is not 0, call it also after every `on_epoch_begin` of that epoch, because the state in the
        middle of an epoch is that of a callback that has handled this event.

        Args:
            state: The result of `get_state`. Callbacks that are not in it are not changed.
            epoch: The zero-based epoch that is next or in progress.
            batch: The zero-based batch of it that is next.

        Raises:
            ArgumentError: a callback could not restore its state. All are unchanged.
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
                    f"The callback {name!r} could not restore its state for epoch {epoch}, batch "
                    f"{batch}: {error}",
                    received=f"{type(error).__name__}",
                    remedy="All callbacks are unchanged. Create this one with the arguments it had "
                    "when the run was saved.",
                ) from error
        self._tell_of(left)

    def _tell_of(self, left: list[str]) -> None:
        new = [sentence for sentence in left if sentence not in self._told]
        self._told.update(new)
        if new:
            warn(
                "Parts of the state of callbacks in the checkpoint are not used, and the values "
                f"start over: {'; '.join(new)}.",
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
        progress: The progress of the run. Logs that are not single numbers are not in it.

    >>> history = keras.callbacks.History()
    >>> restore_history(
    ...     history, TrainingProgress(history={"loss": (0.5, 0.4)}, history_epochs={"loss": (0, 1)})
    ... )
    >>> history.epoch, history.history
    ([0, 1], {'loss': [0.5, 0.4]})
    """
    history.epoch = sorted({e for epochs in progress.history_epochs.values() for e in epochs})
    # In place: some programs reference the dictionary.
    history.history.clear()
    history.history.update({name: list(values) for name, values in progress.history.items()})


def _free_name(name: str, taken: list[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _held_by(callback: Any) -> dict[str, Any]:
    """Return the attributes of a callback, including a list or dict of its class."""
    of_classes: dict[str, Any] = {}
    for kind in reversed(type(callback).__mro__):
        if not kind.__module__.startswith(("keras.", "builtins")):
            of_classes |= {k: v for k, v in vars(kind).items() if isinstance(v, (list, dict, set))}
    held = {name: value for name, value in of_classes.items() if not name.startswith("__")}
    held.update(vars(callback))
    return held


def own_access(callback: Any) -> tuple[Callable[[], Any], Callable[[Any], None]] | None:
    """Return the methods of a callback that get and set its state, or `None`."""
    for get, put in (("get_state", "set_state"), ("state_dict", "load_state_dict")):
        if callable(getattr(callback, get, None)) and callable(getattr(callback, put, None)):
            return getattr(callback, get), getattr(callback, put)
    return None


class Asked:
    """A callback with `get_state` and `set_state`."""

    KEY = "own"

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], Any]):
        self._get, self._put = get, put

    def begin(self) -> None:
        """Do nothing: the state is not compared."""

    def get_state(self) -> dict[str, Any]:
        return {self.KEY: self._get()}

    def set_state(self, state: Any, epoch: int) -> list[str]:
        self._put(state[self.KEY])
        return []

    def has_changed(self, state: Any) -> bool:
        """Return whether training has changed the state, which is unknown here."""
        return True

    def remember(self, state: Any) -> Callable[[], None]:
        before = copy.deepcopy(self._get())
        return lambda: self._put(before)


class Attributes:
    """A callback whose attributes are saved, and the file if it is a `CSVLogger`."""

    KEY = "attributes"

    def __init__(self, name: str, callback: Any, others: Sequence[Any]):
        self.name = name
        self.callback = callback
        self._others = others
        is_logger = isinstance(callback, keras.callbacks.CSVLogger)
        self._file = CsvFile(callback) if is_logger else None
        self._skip = no_state_in(callback)
        self._schema, self._may_have_more = schema_of(callback)
        # A saved attribute stays in later checkpoints, even if it has its initial value again: the
        # initial value of the next process may differ.
        self._carried: set[str] = set()
        self._warned: set[str] = set()
        self.begin()

    def begin(self) -> None:
        """Note the present values when training starts."""
        self._carried.clear()
        self._fresh = dict(self._views())

    def get_state(self) -> dict[str, Any]:
        flush(self.callback)
        attributes = {}
        for name, view in self._views():
            fresh = self._fresh.get(name)
            if name not in self._carried and fresh is not None and fresh.digest == view.digest:
                continue
            why = self._refusal(name, view.tree, fresh) if view.can_be_restored(fresh) else ""
            if why is None:
                attributes[name] = view.tree
            else:
                self._warn_once(name, why)
        if self._file is None:
            return {self.KEY: attributes}
        return {self.KEY: attributes, "file": self._file.get_state()}

    def set_state(self, state: Any, epoch: int) -> list[str]:
        """Restore the attributes that the rules allow.

        Returns:
            What was skipped, and why, as sentences without a full stop.
        """
        elsewhere, left = self._elsewhere(), []
        for name, content in _attributes_in(state).items():
            held = _held_by(self.callback)
            present = look(held[name], elsewhere) if name in held else None
            why = self._refusal(name, content, present)
            if why is None:
                why = self._put(name, content, elsewhere)
            if why is not None:
                left.append(f"{self.name}.{name}: {why}")
        if self._file is not None:
            why = self._file.set_state(state.get("file"), epoch)
            left += [] if why is None else [f"the file of {self.name}: {why}"]
        return left

    def _refusal(self, name: Any, content: Any, present: View | None) -> str | None:
        return refusal(self.callback, name, content, present)

    def _put(self, name: str, content: Any, elsewhere: Elsewhere) -> str | None:
        undo = self._remembered([name])
        try:
            present = getattr(self.callback, name, None)
            setattr(self.callback, name, fill(present, content, elsewhere))
        except Exception as error:  # noqa: BLE001 (custom objects may raise anything)
            undo()
            return f"it could not be restored ({type(error).__name__}: {error})"
        self._carried.add(name)
        return None

    def has_changed(self, state: Any) -> bool:
        """Return whether a state contains an attribute that training has changed."""
        return bool(_attributes_in(state))

    def remember(self, state: Any) -> Callable[[], None]:
        undo = self._remembered([name for name in _attributes_in(state) if isinstance(name, str)])
        file = None if self._file is None else self._file.remember()

        def undo_all() -> None:
            undo()
            if file is not None:
                file()

        return undo_all

    def _remembered(self, names: Sequence[str]) -> Callable[[], None]:
        elsewhere = self._elsewhere()
        own = set(vars(self.callback))
        before = {k: v for k, v in _held_by(self.callback).items() if k in names}
        views = {name: look(value, elsewhere) for name, value in before.items()}

        def undo() -> None:
            for name, view in views.items():
                if not view.opaque:
                    before[name] = fill(before[name], view.tree, elsewhere)
            held = vars(self.callback)
            for name in names:
                held.pop(name, None)
            held.update({name: value for name, value in before.items() if name in own})

        return undo

    def _views(self) -> Iterator[tuple[str, View]]:
        elsewhere, model = self._elsewhere(), self.callback.model
        for name, value in _held_by(self.callback).items():
            known = name in self._schema or self._may_have_more
            if known and name not in self._skip and (model is None or value is not model):
                yield name, look(value, elsewhere)

    def _elsewhere(self) -> Elsewhere:
        return Elsewhere(self.callback.model, self._others)

    def _warn_once(self, name: str, why: str) -> None:
        if name in self._warned:
            return
        self._warned.add(name)
        value = getattr(self.callback, name, None)
        why = why or (
            f"it is or contains an object that cannot be saved ({type(value).__name__}), or that "
            "did not exist when training started"
        )
        warn(
            f"The attribute {name!r} of the callback {self.name!r} changed in training and cannot "
            f"be saved: {why}. After a restart it starts over. Add `get_state()` and "
            "`set_state(state)` to the callback.",
            UserWarning,
            stacklevel=2,
        )


def _attributes_in(state: Any) -> dict[Any, Any]:
    found = state.get(Attributes.KEY) if isinstance(state, dict) else None
    return found if isinstance(found, dict) else {}

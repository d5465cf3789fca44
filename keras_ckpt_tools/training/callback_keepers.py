"""The state of one callback: callback -> *keeper* -> `callback_states`.

A keeper notes what the callback holds when training begins, says what is different now, puts it
back in another process, and can undo that. There are two kinds: a callback with methods for its
state is asked, and of any other the attributes are read.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.callback_rules import refusal
from keras_ckpt_tools.training.known_callbacks import CsvFile, flush, no_state_in, schema_of
from keras_ckpt_tools.training.plain_views import Elsewhere, View, fill, look


def _held_by(callback: Any) -> dict[str, Any]:
    """Return the attributes of a callback; also a list or dict that its class holds for it."""
    of_classes: dict[str, Any] = {}
    for kind in reversed(type(callback).__mro__):
        if not kind.__module__.startswith(("keras.", "builtins")):
            of_classes |= {k: v for k, v in vars(kind).items() if isinstance(v, (list, dict, set))}
    held = {name: value for name, value in of_classes.items() if not name.startswith("__")}
    held.update(vars(callback))
    return held


def own_access(callback: Any) -> tuple[Callable[[], Any], Callable[[Any], None]] | None:
    """Return the methods by which a callback gives its state and takes it, or `None`."""
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
        """Nothing is compared with what it was."""

    def get_state(self) -> dict[str, Any]:
        return {self.KEY: self._get()}

    def set_state(self, state: Any, epoch: int) -> list[str]:
        self._put(state[self.KEY])
        return []

    def has_changed(self, state: Any) -> bool:
        """Return whether a state is of something that training has changed: nobody knows here."""
        return True

    def remember(self, state: Any) -> Callable[[], None]:
        before = copy.deepcopy(self._get())
        return lambda: self._put(before)


class Attributes:
    """A callback of which we know its attributes, and the file if it is a `CSVLogger`."""

    KEY = "attributes"

    def __init__(self, name: str, callback: Any, others: Sequence[Any]):
        self.name = name
        self.callback = callback
        self._others = others
        is_logger = isinstance(callback, keras.callbacks.CSVLogger)
        self._file = CsvFile(callback) if is_logger else None
        self._skip = no_state_in(callback)
        self._schema, self._may_have_more = schema_of(callback)
        # What a checkpoint has had stays in it, also when it is again what it was in the beginning:
        # the beginning of the next process may be another one.
        self._carried: set[str] = set()
        self._warned: set[str] = set()
        self.begin()

    def begin(self) -> None:
        """Note what it holds when training begins."""
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
        """Put back what the rules allow.

        Returns:
            What was left alone, and why, as sentences without a full stop.
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
        except Exception as error:  # noqa: BLE001 (objects of the user's may raise anything)
            undo()
            return f"it did not take its value back ({type(error).__name__}: {error})"
        self._carried.add(name)
        return None

    def has_changed(self, state: Any) -> bool:
        """Return whether a state is of something that training has changed."""
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
            f"it is, or holds, something that a file cannot ({type(value).__name__}), or that was "
            "not there when training began"
        )
        warn(
            f"The attribute {name!r} of the callback {self.name!r} changed in training and cannot "
            f"be saved: {why}. After a restart it begins anew. Give the callback `get_state()` and "
            "`set_state(state)`.",
            UserWarning,
            stacklevel=2,
        )


def _attributes_in(state: Any) -> dict[Any, Any]:
    found = state.get(Attributes.KEY) if isinstance(state, dict) else None
    return found if isinstance(found, dict) else {}

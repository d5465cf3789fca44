"""Detect which callback stopped training.

Keras has one flag for all, `model.stop_training`. A run that `EarlyStopping` has ended is complete
after a restart too, because of the restored state. A run that was ended by a time limit, a signal
handler or the program itself must resume. So the flag is checked before and after each call of a
carried callback.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

_HOOKS = (
    *(f"on_{what}_{when}" for what in ("train", "test", "predict") for when in ("begin", "end")),
    *(
        f"on_{what}_batch_{when}"
        for what in ("train", "test", "predict")
        for when in ("begin", "end")
    ),
    *("on_epoch_begin", "on_epoch_end"),
)


class Stops:
    """Notes which callbacks stop the training of a model.

    Args:
        callbacks: The callbacks to watch, by name.

    Attributes:
        names: The callbacks that have stopped training since the last `around`, in order.
    """

    def __init__(self, callbacks: Mapping[str, keras.callbacks.Callback]):
        self._callbacks = callbacks
        self._seen: set[str] = set()

    @property
    def names(self) -> list[str]:
        return [
            name
            for name, callback in self._callbacks.items()
            # Another callback may have set the flag earlier in the same epoch.
            if name in self._seen or getattr(callback, "stopped_epoch", False)
        ]

    def around(self, callbacks: Sequence[Any], model: Any) -> list[Any]:
        """Return the callbacks, with a check before and after each watched one."""
        self._seen = set()
        names = {id(callback): name for name, callback in self._callbacks.items()}
        found: list[Any] = []
        for callback in callbacks:
            if isinstance(callback, _Eye) and callback.stops is self:
                continue
            name = names.get(id(callback))
            if name is None:
                found.append(callback)
                continue
            before, after = self._eyes(name, model)
            found += [before, callback, after]
        return found

    def _eyes(self, name: str, model: Any) -> tuple[_Eye, _Eye]:
        was = False

        def before() -> None:
            nonlocal was
            was = bool(getattr(model, "stop_training", False))

        def after() -> None:
            if not was and getattr(model, "stop_training", False):
                self._seen.add(name)

        return _Eye(self, before), _Eye(self, after)


class _Eye(keras.callbacks.Callback):
    """Calls a function at every event."""

    def __init__(self, stops: Stops, look: Callable[[], None]):
        super().__init__()
        self.stops = stops
        self._look = look


def _seeing(hook: str) -> Callable[..., None]:
    def seen(self: _Eye, *arguments: Any, **named: Any) -> None:
        self._look()

    seen.__name__ = hook
    return seen


for _hook in _HOOKS:
    setattr(_Eye, _hook, _seeing(_hook))

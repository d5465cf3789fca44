"""What interrupts training from outside: a signal, or an exception -> *save* -> let it happen.

A machine that is about to be taken away sends SIGTERM; a person presses Ctrl-C. Either is noted,
and when the batch under way has ended its state is saved and the signal goes to whoever would have
had it. A second signal is handed on at once: somebody is in a hurry.

Keras tells callbacks nothing when `fit()` is left by an exception, so handlers that were set when
training began cannot be relied on to be taken back. Therefore each looks, when it is called,
whether the training that it belongs to is still on the stack, and stands aside if not.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

Place = tuple[int, Any]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOT_TRAINING = ("keras_ckpt_tools.", "keras.src.callbacks", "keras.src.utils")


class SignalWatch:
    """Notes SIGTERM and SIGINT from `begin` to `end`."""

    def __init__(self) -> None:
        self._earlier: dict[int, Any] = {}
        self._received: int | None = None
        self._training: Place | None = None

    @property
    def received(self) -> bool:
        """Whether there is a signal to save for."""
        return self._received is not None

    def begin(self) -> None:
        """Watch from now on. Signals reach the main thread only, so elsewhere nothing is set."""
        if threading.current_thread() is not threading.main_thread():
            warnings.warn(
                "`save_on_signal` works in the main thread only; training runs in another.",
                UserWarning,
                stacklevel=3,
            )
            return
        self.end()
        self._training = _training_now()
        for number in _SIGNALS:
            self._earlier[number] = signal.signal(number, self._note)

    def end(self) -> None:
        """Give the signals back to whoever had them before."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()
        self._received = None

    def hand_on(self) -> None:
        """Let the signal that was noted do what it would have done."""
        number = self._received
        self.end()
        if number is not None:
            signal.raise_signal(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        hurry = self._received is not None
        self._received = number
        if hurry or not _is_under_way(self._training, frame):
            self.hand_on()


def _training_now() -> Place:
    """Return the place of the loop that is being run: `fit()`, or what calls the hooks itself."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_NOT_TRAINING):
        frame = frame.f_back
    return _key(frame)


def _is_under_way(place: Place | None, frame: FrameType | None) -> bool:
    while frame is not None:
        if _key(frame) == place:
            return True
        frame = frame.f_back
    return False


def _key(frame: FrameType) -> Place:
    # Not the frame itself: that would keep alive whatever training had in its variables.
    return id(frame), frame.f_code


class ExceptionWatch:
    """Calls something when a step of `fit()` raises, before the exception goes on its way.

    Args:
        save: What to call. Should it raise, that is reported, and the first exception goes on.
    """

    def __init__(self, save: Callable[[], Any]):
        self._save = save
        self._model: Any = None
        self._step: Any = None
        self._training: Place | None = None

    def begin(self, model: Any) -> None:
        """Watch the steps of a model's `fit()` from now on."""
        self.end()
        step = getattr(model, "train_function", None)
        if step is None:
            return
        self._model, self._step, self._training = model, step, _training_now()
        model.train_function = self._watched

    def end(self) -> None:
        """Stop watching."""
        if self._model is not None and self._model.train_function == self._watched:
            self._model.train_function = self._step
        self._model = self._step = None

    def _watched(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._step(*args, **kwargs)
        except BaseException as error:
            under_way = _is_under_way(self._training, sys._getframe(1))
            if under_way and not isinstance(error, StopIteration) and not _is_end_of_data(error):
                self._rescue(error)
            raise

    def _rescue(self, error: BaseException) -> None:
        self.end()
        try:
            self._save()
        except Exception as second:  # noqa: BLE001 (the first exception is the one that matters)
            error.add_note(f"keras_ckpt_tools could not save the model before this left: {second}")


def _is_end_of_data(error: BaseException) -> bool:
    # How TensorFlow says that a dataset has no more batches; `fit()` expects it.
    return type(error).__name__ == "OutOfRangeError"

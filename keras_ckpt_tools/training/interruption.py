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
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

Place = tuple[int, Any]

_A_MOMENT_S = 0.05
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOT_TRAINING = ("keras_ckpt_tools.", "keras.src.callbacks", "keras.src.utils")


class SignalWatch:
    """Notes SIGTERM and SIGINT from `begin` to `end`.

    All watches of the process share one pair of handlers, set by the first and taken back by the
    last. A signal goes on when every watch that noted it has dealt with it.

    Args:
        at_once: A method; called by the handler, between two instructions of whatever runs.
    """

    _watches: ClassVar[list[SignalWatch]] = []
    _earlier: ClassVar[dict[int, Any]] = {}
    _owed: ClassVar[int | None] = None

    def __init__(self, at_once: Callable[[], None] | None = None) -> None:
        # Whoever is called has this watch: nobody else keeps it in memory.
        self._at_once = None if at_once is None else weakref.WeakMethod(at_once)
        self._received = False
        self._training: Place | None = None

    @property
    def received(self) -> bool:
        """Whether there is a signal to save for."""
        return self._received

    def begin(self) -> None:
        """Watch from now on. Signals reach the main thread only, so elsewhere nothing is set."""
        if threading.current_thread() is not threading.main_thread():
            warnings.warn(
                "`save_on_signal` works in the main thread only; training runs in another.",
                UserWarning,
                stacklevel=3,
            )
            return
        self._training = _training_now()
        self._received = False
        if self not in self._watches:
            self._watches.append(self)
        if not self._earlier:
            for number in _SIGNALS:
                self._earlier[number] = signal.signal(number, SignalWatch._note)

    def hand_on(self) -> None:
        """Let the signal that was noted do what it would have done, once all have saved."""
        self._received = False
        if not any(watch.received for watch in self._watches):
            number = SignalWatch._let_go()
            if number is not None:
                signal.raise_signal(number)

    def end(self) -> None:
        """Stop watching. A signal that came too late to be saved for is not swallowed."""
        if self in self._watches:
            self._watches.remove(self)
            self._received = False
        if not self._watches or (self._owed and not any(w.received for w in self._watches)):
            number = SignalWatch._let_go()
            if number is not None:
                _send_soon(number)

    @classmethod
    def _let_go(cls) -> int | None:
        """Give the signals back to whoever had them; return the one that is owed to them."""
        number, cls._owed = cls._owed, None
        cls._watches.clear()
        while cls._earlier:
            earlier_number, handler = cls._earlier.popitem()
            signal.signal(earlier_number, handler)
        return number

    @staticmethod
    def _note(number: int, frame: FrameType | None) -> None:
        hurry = SignalWatch._owed is not None
        SignalWatch._owed = number
        training = [w for w in SignalWatch._watches if _is_under_way(w._training, frame)]
        if hurry or not training:
            SignalWatch._let_go()
            signal.raise_signal(number)
        for watch in training:
            watch._received = True
            at_once = watch._at_once and watch._at_once()
            if at_once:
                at_once()


def _send_soon(number: int) -> None:
    """Send the main thread a signal, in a moment.

    Not at once: a generator that is being closed would swallow the KeyboardInterrupt.
    """
    main = threading.main_thread().ident
    sender = threading.Timer(_A_MOMENT_S, signal.pthread_kill, args=(main, number))
    sender.daemon = True
    sender.start()


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

    All watches of a model share one wrapper around its step. What a callback raises passes it by:
    `fit()` calls callbacks itself, and lets none of them around that.

    Args:
        save: What to call. Should it raise, that is noted on the first exception, which goes on.
    """

    def __init__(self, save: Callable[[], Any]):
        self._save = save
        self._model: weakref.ref[Any] | None = None

    def begin(self, model: Any) -> None:
        """Watch the steps of a model's `fit()` from now on."""
        self.end()
        step = getattr(model, "train_function", None)
        if step is None:
            return
        if not isinstance(step, _WatchedStep):
            step = model.train_function = _WatchedStep(step)
        step.savers[self] = (_training_now(), self._save)
        self._model = weakref.ref(model)

    def end(self) -> None:
        """Stop watching."""
        model: Any = self._model() if self._model else None
        step = getattr(model, "train_function", None)
        if isinstance(step, _WatchedStep):
            step.savers.pop(self, None)
            if not step.savers:
                model.train_function = step.step
        self._model = None


class _WatchedStep:
    """A model's step, and who wants to know when it raises."""

    def __init__(self, step: Any):
        self.step = step
        self.savers: dict[ExceptionWatch, tuple[Place, Callable[[], Any]]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.step(*args, **kwargs)
        except BaseException as error:
            if not isinstance(error, StopIteration) and not _is_end_of_data(error):
                self._rescue(error)
            raise

    def _rescue(self, error: BaseException) -> None:
        savers, self.savers = list(self.savers.values()), {}
        for training, save in savers:
            if not _is_under_way(training, sys._getframe(1)):
                continue
            try:
                save()
            except Exception as second:  # noqa: BLE001 (the first exception is what matters)
                error.add_note(f"keras_ckpt_tools could not save the model first: {second}")


def _is_end_of_data(error: BaseException) -> bool:
    # How TensorFlow says that a dataset has no more batches; `fit()` expects it.
    return type(error).__name__ == "OutOfRangeError"

"""Save on a signal or an exception that interrupts training.

A cluster sends SIGTERM before it takes a machine away; a user presses Ctrl-C. The signal is noted,
the state is saved at the end of the current batch, and the signal is passed to its previous
handler. A second signal is passed on at once. Schedulers may send another signal
(`#SBATCH --signal=USR1@120`), so the watched signals are an argument.

Keras does not notify callbacks when `fit()` ends with an exception, so handlers set at the start of
training may stay installed. Therefore each handler checks whether its training is still on the
stack, and does nothing otherwise.
"""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, ClassVar

import keras

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.showing.messages import warn

Place = tuple[int, Any, Any]
SaveOnSignal = bool | signal.Signals | Iterable[signal.Signals]
"""The argument `save_on_signal`: SIGTERM and SIGINT, or the signals themselves."""

_A_MOMENT_S = 0.05
_DEFAULT = (signal.SIGTERM, signal.SIGINT)
_CANNOT_BE_CAUGHT = ("SIGKILL", "SIGSTOP")
_NOT_TRAINING = ("keras_ckpt_tools.", "keras.src.callbacks", "keras.src.utils")
_HOOKS = tuple(
    f"on_{event}"
    for event in (
        "epoch_begin",
        "epoch_end",
        "train_batch_begin",
        "train_batch_end",
        "test_begin",
        "test_batch_begin",
        "test_batch_end",
        "test_end",
    )
)


def signals_of(save_on_signal: Any) -> tuple[signal.Signals, ...]:
    """Return the signals that an argument `save_on_signal` selects.

    Raises:
        ArgumentError: it is neither a bool nor signals that can be caught. All invalid values are
            listed.

    >>> signals_of(True), signals_of(signal.SIGUSR1)
    ((<Signals.SIGTERM: 15>, <Signals.SIGINT: 2>), (<Signals.SIGUSR1: 10>,))
    """
    if save_on_signal is None or (type(save_on_signal) in (bool, int) and save_on_signal in (0, 1)):
        return _DEFAULT if save_on_signal else ()
    given = save_on_signal if _is_several(save_on_signal) else [save_on_signal]
    found = {one: _signal_of(one) for one in dict.fromkeys(map(_hashable, given))}
    wrong = [one for one, number in found.items() if number is None]
    if wrong or not found:
        raise ArgumentError(
            "`save_on_signal` must be True, False, a signal or several; SIGKILL and SIGSTOP "
            f"cannot be caught. Invalid: {', '.join(map(repr, wrong)) or 'an empty list'}.",
            received=f"save_on_signal={save_on_signal!r}",
            remedy="Pass True for SIGTERM and SIGINT (Ctrl-C), or name the signals: "
            "`[signal.SIGTERM, signal.SIGUSR1]`.",
        )
    return tuple(number for number in found.values() if number is not None)


def _is_several(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes))


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _signal_of(value: Any) -> signal.Signals | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    try:
        found = signal.Signals(value)
    except ValueError:
        return None
    return None if found.name in _CANNOT_BE_CAUGHT else found


class SignalWatch:
    """Notes signals from `begin` to `end`.

    All watches of the process share one handler for each signal, set by the first and removed by
    the last. A signal is passed on after every watch that noted it has handled it.

    Args:
        save_on_signal: The signals; see `signals_of`.
        at_once: A method that the handler calls immediately, between two instructions.

    Raises:
        ArgumentError: a signal cannot be caught.
    """

    _watches: ClassVar[list[SignalWatch]] = []
    _earlier: ClassVar[dict[int, Any]] = {}
    # The previous handler, if another one was set later that may call it.
    _passed: ClassVar[dict[int, Any]] = {}
    _owed: ClassVar[int | None] = None

    def __init__(
        self, save_on_signal: Any = True, at_once: Callable[[], None] | None = None
    ) -> None:
        self._signals = signals_of(save_on_signal)
        # The owner has this watch, so the reference to the owner must be weak.
        self._at_once = None if at_once is None else weakref.WeakMethod(at_once)
        self._received = False
        self._training: Place | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The training on the stack is that of this process only.
        at_once = self._at_once and self._at_once()
        return {**vars(self), "_received": False, "_training": None, "_at_once": at_once}

    def __setstate__(self, state: dict[str, Any]) -> None:
        at_once = state["_at_once"]
        vars(self).update(state, _at_once=at_once and weakref.WeakMethod(at_once))

    @property
    def received(self) -> bool:
        """Whether there is a signal to save for."""
        return self._received

    def begin(self) -> None:
        """Start to watch. Only the main thread receives signals; elsewhere nothing is set."""
        if not self._signals:
            return
        if threading.current_thread() is not threading.main_thread():
            warn(
                "`save_on_signal` works in the main thread only; training runs in another.",
                UserWarning,
                stacklevel=3,
            )
            return
        self._training = _training_now()
        self._received = False
        # An exception may have ended the previous `fit()` without removing its watch.
        self._watches[:] = [one for one in self._watches if not _is_gone(one._training)]
        self._watch()

    def _watch(self) -> None:
        if self not in self._watches:
            self._watches.append(self)
        for number in self._signals:
            # If another handler was set in the meantime, it is the next one to call.
            if signal.getsignal(number) is not SignalWatch._note:
                if number in self._earlier:
                    self._passed[number] = self._earlier[number]
                self._earlier[number] = signal.signal(number, SignalWatch._note)

    def hand_on(self) -> None:
        """Pass the noted signal on to its previous handler, after all watches have saved.

        If training continues after that, because the program has a handler of its own, the next
        signal is handled as well.
        """
        self._received = False
        if not any(watch.received for watch in self._watches):
            watches = list(self._watches)
            number = SignalWatch._let_go()
            if number is not None:
                signal.raise_signal(number)
            for watch in watches:
                watch._watch()

    def end(self) -> None:
        """Stop to watch. A signal that came too late for a save is still passed on."""
        if self in self._watches:
            self._watches.remove(self)
            self._received = False
        if not self._watches or (self._owed and not any(w.received for w in self._watches)):
            number = SignalWatch._let_go()
            if number is not None:
                _send_soon(number)

    @classmethod
    def _let_go(cls) -> int | None:
        """Restore the previous handlers; return the signal that must still be passed on."""
        number, cls._owed = cls._owed, None
        cls._watches.clear()
        while cls._earlier:
            earlier_number, handler = cls._earlier.popitem()
            if signal.getsignal(earlier_number) is cls._note:
                signal.signal(earlier_number, handler)
            else:
                cls._passed[earlier_number] = handler
        return number

    @staticmethod
    def _note(number: int, frame: FrameType | None) -> None:
        hurry = SignalWatch._owed is not None
        SignalWatch._owed = number
        training = [
            watch
            for watch in SignalWatch._watches
            if number in watch._signals and _is_under_way(watch._training, frame)
        ]
        if hurry or not training:
            above = signal.getsignal(number) is not SignalWatch._note
            SignalWatch._let_go()
            before = SignalWatch._passed.get(number) if above else None
            if callable(before):
                before(number, frame)
                return
            if before is not None:
                signal.signal(number, before)
            signal.raise_signal(number)
        for watch in training:
            watch._received = True
            at_once = watch._at_once and watch._at_once()
            if at_once:
                at_once()


def _send_soon(number: int) -> None:
    """Send the main thread a signal, with a short delay.

    Sent at once, a generator that is being closed would swallow the KeyboardInterrupt.
    """
    if sys.is_finalizing():  # No thread can be started any more.
        return
    main = threading.main_thread().ident
    sender = threading.Timer(_A_MOMENT_S, signal.pthread_kill, args=(main, number))
    sender.daemon = True
    sender.start()


def _training_now() -> Place:
    """Return the place of the running loop: `fit()`, or the code that calls the hooks."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_NOT_TRAINING):
        frame = frame.f_back
    # The frame itself would keep all variables of the training alive. A later frame may have the
    # same ID, but `fit()` creates its own list of callbacks.
    callbacks = frame.f_locals.get("callbacks")
    alive = weakref.ref(callbacks) if isinstance(callbacks, keras.callbacks.CallbackList) else None
    return id(frame), frame.f_code, alive


def _is_under_way(place: Place | None, frame: FrameType | None) -> bool:
    if place is None:
        return False
    number, code, alive = place
    while frame is not None:
        if (id(frame), frame.f_code) == (number, code):
            if alive is None:
                return True
            callbacks = alive()
            return callbacks is not None and callbacks is frame.f_locals.get("callbacks")
        frame = frame.f_back
    return False


def _is_gone(place: Place | None) -> bool:
    """Return whether a `fit()` has certainly ended; for other loops this is unknown."""
    alive = None if place is None else place[2]
    return alive is not None and (alive() is None or not _is_under_way(place, sys._getframe()))


class ExceptionWatch:
    """Calls a function when `fit()` raises an exception, before the exception propagates.

    An exception comes from a step (the model, the loss, the data), from validation, or from any
    callback. `fit()` calls these, so each is wrapped while it runs. All watches of one `fit()`
    share the wrappers.

    Args:
        save: The function. If it raises, a note is added to the first exception.
    """

    def __init__(self, save: Callable[[], Any]):
        self._save = save
        self._rescue: _Rescue | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_save": self._save, "_rescue": None}

    def begin(self, model: Any, called: Any = None) -> None:
        """Start to watch.

        Args:
            model: The model whose `fit()` is watched.
            called: The list through which callbacks are called, if there is one.
        """
        self.end()
        rescue = next(
            (
                call.rescue
                for call in (vars(model).get("train_function"), vars(model).get("evaluate"))
                if isinstance(call, _Watched)
            ),
            None,
        )
        self._rescue = rescue = rescue or _Rescue()
        if getattr(model, "train_function", None) is not None:
            rescue.watch(model, "train_function")
        if hasattr(model, "evaluate"):
            rescue.watch(model, "evaluate")
        if called is not None:
            for hook in _HOOKS:
                rescue.watch(called, hook)
        rescue.savers[self] = (_training_now(), self._save)

    def end(self) -> None:
        """Stop watching."""
        if self._rescue is not None:
            self._rescue.savers.pop(self, None)
            if not self._rescue.savers:
                self._rescue.give_back()
        self._rescue = None


class _Rescue:
    """The functions to call when a `fit()` fails, and the wrapped objects."""

    def __init__(self) -> None:
        self.savers: dict[ExceptionWatch, tuple[Place, Callable[[], Any]]] = {}
        self._wrapped: list[tuple[weakref.ref[Any], str]] = []

    def watch(self, owner: Any, name: str) -> None:
        """Wrap an attribute of an object, without Keras' attribute tracking."""
        call = getattr(owner, name)
        if not isinstance(call, _Watched):
            own = vars(owner).get(name)
            vars(owner)[name] = _Watched(call, self, own)
            self._wrapped.append((weakref.ref(owner), name))

    def give_back(self) -> None:
        """Remove all wrappers."""
        for reference, name in self._wrapped:
            owner = reference()
            call = vars(owner).get(name) if owner is not None else None
            if isinstance(call, _Watched) and call.rescue is self:
                if call.own is None:
                    del vars(owner)[name]
                else:
                    vars(owner)[name] = call.own
        self._wrapped.clear()

    def save(self, error: BaseException) -> None:
        """Call the functions of the current training, once for each exception."""
        if getattr(error, _SAVED_FOR, False):
            return
        setattr(error, _SAVED_FOR, True)
        for training, save in list(self.savers.values()):
            if not _is_under_way(training, sys._getframe(1)):
                continue
            try:
                save()
            except Exception as second:  # noqa: BLE001 (the first exception is what matters)
                error.add_note(f"keras_ckpt_tools could not save the model first: {second}")


_SAVED_FOR = "_keras_ckpt_tools_saved_for"


class _Watched:
    """A wrapper of something that `fit()` calls.

    Attributes:
        rescue: Called when it raises.
        own: The object's own attribute of that name; `None` if it is one of its class.
    """

    def __init__(self, call: Callable[..., Any], rescue: _Rescue, own: Any):
        self._call = call
        self.rescue = rescue
        self.own = own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._call(*args, **kwargs)
        except BaseException as error:
            if not isinstance(error, StopIteration) and not _is_end_of_data(error):
                self.rescue.save(error)
            raise

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Copying and pickling read these.
            raise AttributeError(name)
        return getattr(self._call, name)


def _is_end_of_data(error: BaseException) -> bool:
    # TensorFlow raises this at the end of a dataset; `fit()` expects it.
    return type(error).__name__ == "OutOfRangeError"

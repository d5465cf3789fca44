"""Where a run is: event -> *run* -> snapshot.

One `Run` follows one run of training, whichever door its events come through, and is the only
place that counts epochs, batches and logs. Events set absolute values ("epoch 3 has ended"), so two
callbacks on one model report the same event twice without counting it twice, and a run that begins
again at an earlier epoch forgets what it is about to repeat. Steps are not counted at all where an
optimizer already does.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.errors import ArgumentError, PathInUseError
from keras_ckpt_tools.live.attached_progress import attached_progress
from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.metadata import Best, TrainingProgress, epoch_number

_runs: weakref.WeakKeyDictionary[Any, Run] = weakref.WeakKeyDictionary()


def run_of(model: Any) -> Run:
    """Return the run that a model is in; one that has not begun if there is none."""
    if model not in _runs:
        _runs[model] = Run(TrainingProgress())
    run = _runs[model]
    run.take_up(attached_progress(model))
    return run


def run_of_callback(callback: Any) -> Run:
    """Return the run that a callback's model is in.

    Raises:
        ArgumentError: the callback does not know its model yet.
    """
    if callback.model is None:
        raise ArgumentError(
            "The callback does not know its model yet.",
            received=f"{type(callback).__name__}.model=None",
            remedy="Call `callback.set_model(model)` first; `fit()` and "
            "`keras.callbacks.CallbackList(callbacks, model=model)` do.",
        )
    return run_of(callback.model)


def known_run(model: Any) -> Run | None:
    """Return the run that a model is in, or `None`."""
    return run_of(model) if model in _runs else None


def join_run(model: Any, run: Run) -> None:
    """Make a model part of a run."""
    _runs[model] = run


def optimizer_step(optimizer: Any) -> int | None:
    """Return how many updates an optimizer has made, or `None` where it does not count."""
    iterations = getattr(optimizer, "iterations", None)
    return None if iterations is None else int(to_numpy(iterations))


def last_of_execution(callback: Any, batch: int, begun: int | None) -> int:
    """Return the zero-based index of the last batch that was trained on, at the end of a batch.

    With `steps_per_execution`, Keras before 3.12 reports the first batch of those that were
    executed together, and later ones the last, also where the data ended before it.

    Args:
        callback: Which is being called.
        batch: What it was called with.
        begun: What its `on_train_batch_begin` was called with; `None` where it was not.
    """
    together = getattr(callback.model, "steps_per_execution", 1) or 1
    first = batch // together * together if begun is None else begun
    steps = (callback.params or {}).get("steps")
    last = first + together - 1
    return min(last, steps - 1) if steps and first < steps else last


def was_left(callback: Any, done: int) -> bool:
    """Return whether training was stopped before the last batch of an epoch, as far as is known.

    Args:
        callback: Which is being called at the end of the epoch.
        done: How many of its batches are done.
    """
    steps = (callback.params or {}).get("steps")
    stopped = bool(getattr(callback.model, "stop_training", False))
    return stopped and steps is not None and 0 < done < steps


def plain_logs(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """Return logs as plain numbers; entries that are not one number each are left out.

    >>> plain_logs({"loss": np.float32(0.5), "confusion": np.eye(2)})
    {'loss': 0.5}
    """
    numbers = {}
    for name, value in (logs or {}).items():
        array = _as_array(value)
        if array is not None and array.size == 1 and array.dtype.kind in "biuf":
            numbers[str(name)] = float(array.reshape(()))
    return numbers


def _as_array(value: Any) -> np.ndarray[Any, Any] | None:
    if isinstance(value, (str, bytes)) or value is None:
        return None
    if hasattr(value, "detach"):
        # PyTorch's: NumPy has no gradients, no bfloat16, and no memory of an accelerator.
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value
    try:
        array = to_numpy(value) if hasattr(value, "dtype") else np.asarray(value)
    except (TypeError, ValueError):
        return None
    # ml_dtypes' numbers (a bfloat16 loss) are of a kind of their own to NumPy.
    return array.astype(np.float64) if array.dtype.kind == "V" else array


class Run:
    """Counts one run of training.

    Args:
        progress: Where it is when it begins; the zero record for a new run.

    Attributes:
        best_before: The best value when the run began or went on; not what another callback has
            found since.
    """

    def __init__(self, progress: TrainingProgress):
        self._fit: Any = None
        self._loaded: TrainingProgress | None = None
        self._writers: dict[str, weakref.ref[Any]] = {}
        self.resume(progress)

    def resume(self, progress: TrainingProgress) -> None:
        """Go on from a record."""
        # Where the saves were is for whoever saves to say: each writer has its own.
        self._progress = dataclasses.replace(progress, saves=())
        self.best_before = progress.best
        self._restarted_at = time.time() if progress.run_id else None
        self._epochs = _epochs_of(progress)
        self.notes = dict(progress.logs) if progress.batches_completed else {}
        self._since = time.monotonic()
        self.moved = False

    def take_up(self, loaded: TrainingProgress | None) -> None:
        """Go on from what a file said that was loaded into the model meanwhile, if one was."""
        if loaded is not None and loaded is not self._loaded:
            self._loaded = loaded
            self.resume(loaded)

    def ensure_begun(self) -> None:
        """Give the run its name, if it has none yet."""
        if not self._progress.run_id:
            self._start(self._progress.epochs_completed)

    def begin(self, fit: Any) -> None:
        """Note that training begins.

        Args:
            fit: What is the same for all callbacks of one `fit()` (the dictionary of parameters
                that Keras hands to each), or `None` in a loop without one.
        """
        if fit is not None and fit is self._fit:
            return
        self._fit = fit
        self._writers.clear()
        self._since = time.monotonic()

    def claim(self, path: str, writer: Any) -> None:
        """Note that a callback writes to a path.

        Raises:
            PathInUseError: another callback of the same `fit()` does.
        """
        other = self._writers.get(path, lambda: None)()
        if other is not None and other is not writer and self._fit is not None:
            raise PathInUseError(
                f"Two callbacks write to the same path: {type(other).__name__} and "
                f"{type(writer).__name__}. Each would overwrite what the other saved.",
                received=f"path={path!r}",
                remedy="Give each callback a path of its own.",
                path=path,
            )
        self._writers[path] = weakref.ref(writer)

    def epoch_begins(self, epoch: int) -> None:
        """Note that an epoch begins. Going back to an earlier one begins another run."""
        if not self._progress.run_id or epoch < self._progress.epochs_completed:
            self._start(epoch)
        elif epoch > self._progress.epochs_completed:
            self._set(epochs_completed=epoch, batches_completed=0)
        self._forget_from(epoch)
        if not self._progress.batches_completed:
            # What the last epoch logged says nothing about a save in the middle of this one.
            self.notes = {}
            self._set(logs={})

    def _start(self, epoch: int) -> None:
        self._progress = TrainingProgress(
            epochs_completed=epoch, run_id=uuid.uuid4().hex, started_at=time.time()
        )
        self._since = time.monotonic()
        self._restarted_at = None
        self.moved = True

    def _forget_from(self, epoch: int) -> None:
        self._epochs = {known: logs for known, logs in self._epochs.items() if known < epoch}

    def batch_ends(self, batch: int) -> None:
        """Note that a batch has ended; `batch` is its zero-based index in the epoch."""
        self.ensure_begun()
        self._set(batches_completed=batch + 1)

    def epoch_ends(
        self, epoch: int, logs: Mapping[str, float] | None = None, *, left: bool = False
    ) -> None:
        """Note that an epoch has ended.

        Args:
            epoch: Zero-based.
            logs: Its logs.
            left: Whether training was stopped before its last batch: then it goes on there.
        """
        if not self._progress.run_id:
            self._start(epoch)
        numbers = dict(logs or {})
        if left:
            self._set(logs=numbers)
            return
        self._forget_from(epoch)
        self._epochs[epoch] = numbers
        self._set(epochs_completed=epoch_number(epoch), batches_completed=0, logs=numbers)

    def ended(self, epoch: int) -> TrainingProgress:
        """Let an epoch that was resumed after its last batch be one that has ended.

        This is no training: a restart that does no more is none.
        """
        restarted_at, self._restarted_at = self._restarted_at, None
        self.epoch_ends(epoch, self.notes)
        self._restarted_at, self.moved = restarted_at, False
        return self.progress()

    def note(self, logs: Mapping[str, float]) -> None:
        """Add to the logs of the epoch under way; what is noted last stands."""
        self.notes |= logs
        self._set(logs=dict(self.notes))

    def count_step(self) -> None:
        """Count one update, for a loop whose optimizer does not."""
        self._set(step=self._progress.step + 1)

    def set_best(self, best: Best) -> None:
        """Note the best value so far."""
        self._set(best=best)

    def _set(self, **changes: Any) -> None:
        now = time.monotonic()
        elapsed = self._progress.elapsed_s + now - self._since
        self._since = now
        if self._restarted_at is not None:
            # A restart counts once training moves: loading a model to look at it is none.
            here = self._progress
            place = (here.epochs_completed, here.batches_completed, here.step)
            changes["restarts"] = (*here.restarts, (*place, self._restarted_at))
            self._restarted_at = None
        self._progress = dataclasses.replace(self._progress, **changes, elapsed_s=elapsed)
        self.moved = True

    def progress(self, optimizer: Any = None, best: Best | None = None) -> TrainingProgress:
        """Return where the run is.

        Args:
            optimizer: Counts the steps, where there is one.
            best: The best value by the writer's own monitor, where it has one.
        """
        step = optimizer_step(optimizer) if self.moved else None
        epochs = sorted(self._epochs.items())
        names = dict.fromkeys(name for _, logs in epochs for name in logs)
        return dataclasses.replace(
            self._progress,
            step=self._progress.step if step is None else step,
            history={n: tuple(logs[n] for _, logs in epochs if n in logs) for n in names},
            history_epochs={n: tuple(e for e, logs in epochs if n in logs) for n in names},
            best=best or self._progress.best,
        )


def _epochs_of(progress: TrainingProgress) -> dict[int, dict[str, float]]:
    epochs: dict[int, dict[str, float]] = {}
    for name, values in progress.history.items():
        for epoch, value in zip(progress.history_epochs[name], values, strict=True):
            epochs.setdefault(epoch, {})[name] = value
    return epochs


def check_resume(resume: str) -> str:
    """Return the argument `resume` if it is one.

    Raises:
        ArgumentError: it is none.
    """
    if resume not in ("auto", "never", "must"):
        raise ArgumentError(
            "`resume` is 'auto', 'never' or 'must'.",
            received=f"resume={resume!r}",
            remedy="Pass 'auto' to go on where there is something to go on from.",
        )
    return resume

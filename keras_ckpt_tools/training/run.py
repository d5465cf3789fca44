"""Count the epochs, batches and logs of a training run.

One `Run` counts a training run for all callbacks and managers. Events set absolute values ("epoch 3
has ended"), so two callbacks on one model can report the same event without counting it twice. A
run that starts again at an earlier epoch removes the later values. Steps are counted only if no
optimizer counts them.
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
    """Return the run of a model; a new one that has not started if there is none."""
    if model not in _runs:
        _runs[model] = Run(TrainingProgress())
    run = _runs[model]
    run.take_up(attached_progress(model))
    return run


def run_of_callback(callback: Any) -> Run:
    """Return the run of a callback's model.

    Raises:
        ArgumentError: the callback has no model yet.
    """
    if callback.model is None:
        raise ArgumentError(
            "The callback has no model yet.",
            received=f"{type(callback).__name__}.model=None",
            remedy="Call `callback.set_model(model)` first; `fit()` and "
            "`keras.callbacks.CallbackList(callbacks, model=model)` do.",
        )
    return run_of(callback.model)


def known_run(model: Any) -> Run | None:
    """Return the run of a model, or `None`."""
    return run_of(model) if model in _runs else None


def join_run(model: Any, run: Run) -> None:
    """Make a model part of a run."""
    _runs[model] = run


def optimizer_step(optimizer: Any) -> int | None:
    """Return the number of updates of an optimizer, or `None` if it does not count them."""
    iterations = getattr(optimizer, "iterations", None)
    return None if iterations is None else int(to_numpy(iterations))


def last_of_execution(callback: Any, batch: int, begun: int | None) -> int:
    """Return the zero-based index of the last trained batch, at the end of a batch.

    With `steps_per_execution`, Keras before 3.12 reports the first of the batches that were
    executed together, and later versions the last, even if the data ended before it.

    Args:
        callback: The callback being called.
        batch: The index that it was called with.
        begun: The index of its last `on_train_batch_begin`; `None` if that was not called.
    """
    together = getattr(callback.model, "steps_per_execution", 1) or 1
    first = batch // together * together if begun is None else begun
    steps = (callback.params or {}).get("steps")
    last = first + together - 1
    return min(last, steps - 1) if steps and first < steps else last


def was_left(callback: Any, done: int) -> bool:
    """Return whether training was stopped before the last batch of an epoch, as far as known.

    Args:
        callback: The callback being called at the end of the epoch.
        done: Number of completed batches.
    """
    steps = (callback.params or {}).get("steps")
    stopped = bool(getattr(callback.model, "stop_training", False))
    return stopped and steps is not None and 0 < done < steps


def plain_logs(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """Return logs as plain numbers; entries that are not single numbers are omitted.

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
        # PyTorch tensors: NumPy has no gradients, no bfloat16 and no GPU memory.
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value
    try:
        array = to_numpy(value) if hasattr(value, "dtype") else np.asarray(value)
    except (TypeError, ValueError):
        return None
    # Numbers of ml_dtypes (a bfloat16 loss) have a kind of their own in NumPy.
    return array.astype(np.float64) if array.dtype.kind == "V" else array


class Run:
    """Counts one run of training.

    Args:
        progress: The position at the start; all zeros for a new run.

    Attributes:
        best_before: The best value when the run started or resumed, without later values of other
            callbacks.
    """

    def __init__(self, progress: TrainingProgress):
        self._fit: Any = None
        self._loaded: TrainingProgress | None = None
        self._writers: dict[str, weakref.ref[Any]] = {}
        self.resume(progress)

    def resume(self, progress: TrainingProgress) -> None:
        """Resume from a progress record."""
        # Each writer keeps its own list of saves.
        self._progress = dataclasses.replace(progress, saves=())
        self.best_before = progress.best
        self._restarted_at = time.time() if progress.run_id else None
        self._epochs = _epochs_of(progress)
        self.notes = dict(progress.logs) if progress.batches_completed else {}
        self._since = time.monotonic()
        self.moved = False

    def take_up(self, loaded: TrainingProgress | None) -> None:
        """Resume from the progress of a file that was loaded into the model, if any."""
        if loaded is not None and loaded is not self._loaded:
            self._loaded = loaded
            self.resume(loaded)

    def ensure_begun(self) -> None:
        """Set the ID of the run if it has none yet."""
        if not self._progress.run_id:
            self._start(self._progress.epochs_completed)

    def begin(self, fit: Any) -> None:
        """Note that training starts.

        Args:
            fit: An object that all callbacks of one `fit()` share (the dictionary of parameters
                that Keras passes to each), or `None` in a loop without `fit()`.
        """
        if fit is not None and fit is self._fit:
            return
        self._fit = fit
        self._writers.clear()
        self._since = time.monotonic()

    def claim(self, path: str, writer: Any) -> None:
        """Note that a callback writes to a path.

        Raises:
            PathInUseError: another callback of the same `fit()` writes to it.
        """
        other = self._writers.get(path, lambda: None)()
        if other is not None and other is not writer and self._fit is not None:
            raise PathInUseError(
                f"Two callbacks write to the same path: {type(other).__name__} and "
                f"{type(writer).__name__}. Each would overwrite the files of the other.",
                received=f"path={path!r}",
                remedy="Pass another path to each callback.",
                path=path,
            )
        self._writers[path] = weakref.ref(writer)

    def epoch_begins(self, epoch: int) -> None:
        """Note that an epoch starts. An earlier epoch than before starts a new run."""
        if not self._progress.run_id or epoch < self._progress.epochs_completed:
            self._start(epoch)
        elif epoch > self._progress.epochs_completed:
            self._set(epochs_completed=epoch, batches_completed=0)
        self._forget_from(epoch)
        if not self._progress.batches_completed:
            # The logs of the last epoch do not apply to a save in the middle of this one.
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
            left: Whether training was stopped before its last batch; then it resumes there.
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
        """Count an epoch as completed that was resumed after its last batch.

        This is not training: a restart that only does this is not counted.
        """
        restarted_at, self._restarted_at = self._restarted_at, None
        self.epoch_ends(epoch, self.notes)
        self._restarted_at, self.moved = restarted_at, False
        return self.progress()

    def note(self, logs: Mapping[str, float]) -> None:
        """Add to the logs of the current epoch; the last value of a name counts."""
        self.notes |= logs
        self._set(logs=dict(self.notes))

    def count_step(self) -> None:
        """Count one update, if no optimizer does."""
        self._set(step=self._progress.step + 1)

    def set_best(self, best: Best) -> None:
        """Note the best value so far."""
        self._set(best=best)

    def _set(self, **changes: Any) -> None:
        now = time.monotonic()
        elapsed = self._progress.elapsed_s + now - self._since
        self._since = now
        if self._restarted_at is not None:
            # A restart counts only if training continues, not if a model is only loaded.
            here = self._progress
            place = (here.epochs_completed, here.batches_completed, here.step)
            changes["restarts"] = (*here.restarts, (*place, self._restarted_at))
            self._restarted_at = None
        self._progress = dataclasses.replace(self._progress, **changes, elapsed_s=elapsed)
        self.moved = True

    def progress(self, optimizer: Any = None, best: Best | None = None) -> TrainingProgress:
        """Return the position of the run.

        Args:
            optimizer: Optimizer that counts the steps, if any.
            best: The best value by the writer's own monitor, if any.
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
    """Return the argument `resume` if it is valid.

    Raises:
        ArgumentError: it is invalid.
    """
    if resume not in ("auto", "never", "must"):
        raise ArgumentError(
            "`resume` must be 'auto', 'never' or 'must'.",
            received=f"resume={resume!r}",
            remedy="Pass 'auto' to resume if there is a checkpoint.",
        )
    return resume

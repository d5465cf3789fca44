"""`ModelCheckpoint`: a Keras callback that saves the best model, or every model.

It is derived from Keras' own class, so `isinstance` checks, arguments, file name patterns and the
rules about metrics stay the same. Three things differ: a model is staged, verified and committed; a
value counts as the best after the commit, and is stored in the file; and a missing metric is
reported.
"""

from __future__ import annotations

import collections
import inspect
import logging
import math
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.live.legacy_completion import require_representable
from keras_ckpt_tools.metadata import Best, Record, TrainingProgress, epoch_number
from keras_ckpt_tools.runs.retention import Policy, policy_from
from keras_ckpt_tools.runs.save_history import Place, place_of
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.storage.background import BackgroundWriter, Foreground
from keras_ckpt_tools.storage.commit import also_under
from keras_ckpt_tools.training.best_metric import (
    Verdict,
    direction_of,
    judge_any,
    judge_best,
    judge_missing,
    shown,
    undecided,
)
from keras_ckpt_tools.training.filepattern import (
    check_pattern,
    fill_pattern,
    interrupted_path,
    last_path,
)
from keras_ckpt_tools.training.interruption import ExceptionWatch, SaveOnSignal, SignalWatch
from keras_ckpt_tools.training.kept import PATTERN, KeptFiles, is_of
from keras_ckpt_tools.training.keras_hooks import overrides
from keras_ckpt_tools.training.messages import Announcer
from keras_ckpt_tools.training.rebuilding import warn_of_unbuildable
from keras_ckpt_tools.training.run import (
    Run,
    last_of_execution,
    plain_logs,
    run_of_callback,
    was_left,
)
from keras_ckpt_tools.training.save_schedule import Cadence, SaveFreq
from keras_ckpt_tools.training.state.fit_data import call_in_turn, callback_list_of
from keras_ckpt_tools.training.untracked import (
    OnUntracked,
    UntrackedWatch,
    check_on_untracked,
)
from keras_ckpt_tools.training.writing import Memory, check_directory, format_of, prepare_model

_log = logging.getLogger(__name__)

# The run in which each model of this process was saved.
_trained: dict[str, weakref.ref[Any]] = {}


class ModelCheckpoint(keras.callbacks.ModelCheckpoint):
    """Save a model, or its weights, during training.

    Use it in place of `keras.callbacks.ModelCheckpoint`: in `fit(callbacks=[...])`, in a
    `keras.callbacks.CallbackList`, or by calling its hooks in a loop over `train_on_batch`, in any
    order. The arguments are those of Keras, in the same order; those after `*` are new.

    Args:
        filepath: Path of the file, a string or path-like. It may contain `{epoch}` (one-based),
            `{batch}` (one-based) and names in the logs, with formats: `"{epoch:02d}.keras"`. It
            must end in `.keras` or `.h5` for a model, in `.weights.h5` for weights only.
        monitor: Name of the metric in the logs. Defaults to `"val_loss"`.
        verbose: 1 to print messages, as Keras does. With 0, they are logged with `logging` instead,
            under the name `keras_ckpt_tools.training.model_checkpoint`.
        save_best_only: Whether only a model better than all before is saved. The best value is
            stored in the file, so a restarted run never overwrites a better model.
        save_weights_only: Whether only weights (and the optimizer state) are saved.
        mode: `"min"`, `"max"`, or `"auto"` to infer it from the metric.
        save_freq: `"epoch"`, a number of batches from 1, or a `datetime.timedelta`.
        initial_value_threshold: An initial best value that a model must improve on.
        max_to_keep: How many files of a pattern are retained, the newest (and the best) first;
            `None` keeps all. Only files that this run of the callback wrote are deleted.
        keep: A retention policy instead: `kct.KeepLast(3) | kct.KeepBest(1, "val_loss")`.
        background: Whether files are written in a thread while training continues. The saved model
            is that at the time of the save. Errors are raised at the next save, or when training
            ends.
        on_missing_metric: What to do if `save_best_only` is on and the metric is not in the logs:
            `"warn"` once and save nothing, raise an `"error"`, or `"save"` as Keras does.
        save_on_exception: Whether the model is saved when `fit()` raises an exception in a step
            (the model, the loss or the data), in validation or in another callback. The file is
            `model-interrupted.keras` in the directory of `model.keras`; then the exception
            propagates.
        save_on_signal: Whether SIGTERM and SIGINT (Ctrl-C) save the model under that name at the
            end of the current batch, also during validation, and then take their usual effect. Or
            which signals do: one, or several (`[signal.SIGTERM, signal.SIGUSR1]`, for SLURM's
            `--signal=USR1@120`).
        on_untracked: What to do at a save about state that Keras does not save (a `tf.Variable` in
            a layer, a layer in a plain Python object): `"warn"` once, raise an `"error"` before
            anything is written, or `"ignore"` it.
        tensorboard: Log directory of TensorBoard for a history of the saves, below `saves/` in it:
            time, path, size, duration, and how long training was blocked.
        every_n_epochs: Interval of the saves in epochs, from 1, if `save_freq` is `"epoch"`.
        last: A second, fixed name for the newest file: `last="last.keras"`. It is in the directory
            of `filepath` unless it contains a directory, and is a hard link (or a copy if links are
            not supported), so it takes no space. It does not count for `max_to_keep` and `keep`,
            and is replaced at each save.

    Raises:
        ArgumentError: an argument is invalid.
        UntrackedStateError: at a save, some state would not be saved, and `on_untracked="error"`.
            When training starts: the file is a `.h5`, which cannot contain a model of this kind.
        FilepathKeyError: at a save, the pattern contains a key that is not in the logs.
        CommitError: at a save, the operating system refused. The existing file is unchanged.

    The first save of a model tries whether each custom object in it can be created from its config,
    and warns about those that cannot.

    A file is visible under its name only when it is complete: it is written under a temporary name
    in the same directory, synced and renamed.

    Example:

    >>> import os, tempfile
    >>> import keras, numpy as np
    >>> import keras_ckpt_tools as kct
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> path = os.path.join(tempfile.mkdtemp(), "best.keras")
    >>> best = kct.ModelCheckpoint(path, monitor="loss", save_best_only=True)
    >>> x, y = np.ones((8, 4)), np.ones((8, 1))
    >>> _ = model.fit(x, y, epochs=2, callbacks=[best], verbose=0)
    >>> kct.training_progress(path).epochs_completed
    2

    Source: the arguments and their meaning are those of
    [`keras.callbacks.ModelCheckpoint`](https://keras.io/api/callbacks/model_checkpoint/).
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: Literal["auto", "min", "max"] = "auto",
        save_freq: SaveFreq = "epoch",
        initial_value_threshold: float | None = None,
        *,
        max_to_keep: int | None = None,
        keep: Policy | None = None,
        background: bool = False,
        on_missing_metric: Literal["warn", "error", "save"] = "warn",
        save_on_exception: bool = False,
        save_on_signal: SaveOnSignal = False,
        on_untracked: OnUntracked = "warn",
        tensorboard: str | os.PathLike[str] | None = None,
        every_n_epochs: int = 1,
        last: str | os.PathLike[str] | None = None,
    ):
        path = check_pattern(filepath)
        self._format = format_of(path, weights_only=save_weights_only)
        self._cadence = Cadence(save_freq, every_n_epochs=every_n_epochs)
        policy = policy_from(max_to_keep, keep)
        if on_missing_metric not in ("warn", "error", "save"):
            raise ArgumentError(
                "`on_missing_metric` must be 'warn', 'error' or 'save'.",
                received=f"on_missing_metric={on_missing_metric!r}",
                remedy="Pass 'warn' to continue without saving.",
            )
        check_directory(os.path.dirname(path) or ".", "filepath")
        super().__init__(
            path,
            monitor,
            verbose,
            save_best_only,
            save_weights_only,
            mode,
            "epoch",  # Keras checks this argument; more kinds are allowed here and checked above.
            initial_value_threshold,
        )
        # Keras versions differ in the stored attributes, and some start with an infinite best. A
        # comparison is set only by subclasses, after this.
        self.monitor_op: Callable[[Any, Any], Any] | None = None
        self.min_delta: float = 0.0
        self.mode = mode if mode in ("min", "max") else "auto"
        self.best: float | None = initial_value_threshold
        self._threshold = initial_value_threshold
        self.save_freq = save_freq
        self.on_missing_metric = on_missing_metric
        self._current_epoch = 0
        self._first_epoch: int | None = None
        self._best_epoch: int | None = None
        self.every_n_epochs = every_n_epochs
        self.last = None if last is None else last_path(path, last, self._format)
        self._files = KeptFiles(path, policy, self.last)
        self.on_untracked = check_on_untracked(on_untracked)
        self._untracked = UntrackedWatch(self.on_untracked)
        self._memory = Memory()
        self._outcomes: collections.deque[tuple[Best | None, bool]] = collections.deque()
        self._recalled = False
        self._missed = False
        self._begun: int | None = None
        self._last: tuple[int | None, dict[str, Any]] = (None, {})
        self._candidate: Best | None = None
        self._interrupted_at: Place | None = None
        self._writer = BackgroundWriter() if background else Foreground()
        self._warned: set[str] = set()
        self._tried = save_weights_only
        self.save_on_exception = save_on_exception
        self.save_on_signal = save_on_signal
        self._signals = SignalWatch(save_on_signal)
        self._announcer = Announcer(_log, path, verbose, tensorboard, in_fit=True)
        self._exceptions = ExceptionWatch(self._save_interrupted)

    def set_model(self, model: Any) -> None:
        """Set the model, and release the previous one, whose best value does not apply."""
        if self.model is not None and self.model is not model:
            self.best, self._best_epoch = self._threshold, None
            self._candidate, self._recalled = None, False
            self._tried = self.save_weights_only
        super().set_model(model)
        self._memory.turn_to(model)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Join the run; find the best value from before a restart."""
        run = self._run()
        run.begin(self.params or None)
        run.claim(os.path.abspath(self.filepath), self)
        self._first_epoch = None
        if self._format == ".h5":
            require_representable(self.model)  # Before an epoch is trained that cannot be saved.
        call_in_turn(self)
        if self.save_on_signal:
            self._signals.begin()
        if self.save_on_exception:
            self._exceptions.begin(self.model, callback_list_of(self))

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note the epoch."""
        self._note_epoch(epoch)
        self._run().epoch_begins(epoch)

    def _note_epoch(self, epoch: int) -> None:
        self._current_epoch = epoch
        if self._first_epoch is None:
            self._first_epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note the batch."""
        self._begun = batch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save if a save is due by batches or by time."""
        begun, self._begun = self._begun, None
        batch = last_of_execution(self, batch, begun)
        self._run().batch_ends(batch)
        if self._should_save_on_batch(batch):
            self._run().note(plain_logs(logs))
            self._save_model(self._current_epoch, batch, logs)
        self._last = (batch, dict(logs or {}))
        self._leave_on_signal()

    def on_test_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save if a signal was received during validation."""
        self._leave_on_signal()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save if a save is due by epochs."""
        self._note_epoch(epoch)
        run = self._run()
        left = was_left(self, run.progress().batches_completed)
        run.epoch_ends(epoch, plain_logs(logs), left=left)
        if self._cadence.epoch_ends(epoch_number(epoch)):
            self._save_model(epoch, None, logs)
        self._leave_on_signal()

    def _leave_on_signal(self) -> None:
        if self._signals.received:
            self._save_interrupted()
            self._signals.hand_on()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Finish writing; warn if nothing was saved because the metric was never available."""
        self._exceptions.end()
        self._leave_on_signal()
        self._signals.end()
        self._writer.wait()
        self._settle()
        if self._missed and not self._files.any:
            self._warn_once(
                f"Nothing was saved to {self.filepath!r}: {self.monitor!r} was never in the logs."
            )
        if self._cadence.never_due:
            self._warn_once(
                f"Nothing was saved to {self.filepath!r}: training ended after "
                f"{self._cadence.seen} batches, and `save_freq={self.save_freq!r}` saves every "
                f"{self.save_freq}. Pass a smaller number, or 'epoch'."
                if self.every_n_epochs == 1
                else f"Nothing was saved to {self.filepath!r}: training ended after "
                f"{self._cadence.epochs} epochs, and `every_n_epochs={self.every_n_epochs}`. Pass "
                "a smaller number."
            )

    def _this_model(self) -> Any:
        return self.model

    def _run(self) -> Run:
        return run_of_callback(self)

    def _save_model(self, epoch: int, batch: int | None, logs: Mapping[str, Any] | None) -> None:
        logs = dict(logs or {})
        path = self._get_file_path(epoch, batch, logs)
        if os.path.isdir(path):
            # The message of Keras, which users search for.
            raise ArgumentError(
                "Please specify a non-directory filepath for ModelCheckpoint. Filepath used is an "
                "existing directory.",
                received=f"filepath={path!r}",
                remedy="Add a file name to it.",
            )
        self._settle()
        self._verdict: Verdict | None = None
        wanted = self._should_save_model(epoch, batch, logs, path)
        verdict = self._verdict or judge_any(logs, epoch, self._known(), path)
        if wanted:
            self._commit(path, verdict.best, self._direction() or "min")

    # Hooks of Keras, which subclasses may override.

    def _should_save_on_batch(self, batch: int) -> bool:
        return self._cadence.batch_ends(batch)

    def _should_save_model(
        self, epoch: int, batch: int | None, logs: Mapping[str, Any] | None, filepath: str
    ) -> bool:
        verdict = self._verdict = self._judge(epoch, dict(logs or {}), filepath)
        if verdict.message:
            self._say(epoch, verdict.message, logging.DEBUG)
        if verdict.warning:
            self._warn_once(verdict.warning)
        return verdict.save

    def _is_improvement(self, monitor_value: Any, reference_value: Any) -> bool:
        """Return whether a value is better than another one, or than none."""
        value = float(monitor_value)
        if reference_value is not None:
            least = abs(self.min_delta)
            value += least if self._direction() == "min" else -least
        if self._operator is None or reference_value is None or not math.isfinite(value):
            return self._best_of(reference_value).improved_by(value)
        return bool(self._operator(value, reference_value))

    @property
    def _operator(self) -> Callable[[Any, Any], Any] | None:
        """The comparison that a subclass has set, if any."""
        if self.monitor_op is None and overrides(self, ModelCheckpoint, "_set_monitor_op"):
            self._set_monitor_op()
        operator: Callable[[Any, Any], Any] | None = self.monitor_op
        if operator is None and overrides(self, ModelCheckpoint, "monitor_op"):
            found: Any = inspect.getattr_static(type(self), "monitor_op")
            operator = found.__get__(self) if hasattr(found, "__get__") else found
        return operator

    def _direction(self) -> str | None:
        """Return `"min"`, `"max"`, or `None` if the direction is unknown."""
        if self._operator is not None:
            return "min" if self._operator(0.0, 1.0) else "max"
        return direction_of(self.model, self.monitor, self.mode)

    def _known(self) -> Best | None:
        mode = self._direction()
        return self._known_best(mode) if mode else None

    def _best_of(self, value: float | None) -> Best:
        return Best(self.monitor, self._direction() or "min", value, self._best_epoch)

    def _save_interrupted(self) -> None:
        place = place_of(self._run().progress(getattr(self.model, "optimizer", None)))
        if place == self._interrupted_at:
            return  # The model was saved for a signal, which has become an exception.
        self._interrupted_at = place
        batch, logs = self._last
        path = interrupted_path(self.filepath, self._current_epoch, batch, logs, self._format)
        self._writer.wait()
        self._say(self._current_epoch, f"interrupted, saving model to {path}")
        progress = self._run().progress(getattr(self.model, "optimizer", None))
        progress = self._files.about_to_add(progress)
        self._prepare(path, progress, {})()

    def _judge(self, epoch: int, logs: dict[str, Any], path: str) -> Verdict:
        mode = self._direction()
        if not self.save_best_only:
            return judge_any(logs, epoch, self._known_best(mode) if mode else None, path)
        if self.monitor not in logs:
            self._missed = True
            return judge_missing(self.monitor, logs, self.on_missing_metric)
        if mode is None:
            raise undecided(self.monitor)
        if not self._recalled:
            self._recalled = True
            self._recall_best(mode)
        return judge_best(logs, epoch, self._known_best(mode), path, self._is_improvement)

    def _known_best(self, mode: str) -> Best:
        # A save in progress counts already; if it fails, the error is raised.
        if self._candidate is not None:
            return self._candidate
        known = self._run().best_before
        if self.best is None and known and (known.monitor, known.mode) == (self.monitor, mode):
            return known
        return Best(self.monitor, mode, self.best, self._best_epoch)

    def _commit(self, path: str, best: Best | None, mode: str) -> None:
        progress = self._run().progress(getattr(self.model, "optimizer", None), best)
        progress = self._files.about_to_add(progress)
        note = {PATTERN: os.path.basename(self.filepath)}
        save = self._announcer.begins(progress)
        write = self._prepare(path, progress, note)
        self._candidate = best
        _trained[progress.run_id] = weakref.ref(self.model)

        def commit() -> None:
            # Runs in the writer's thread; `_settle` uses its results.
            try:
                record = write()
            except BaseException:
                self._files.look_again()
                self._outcomes.append((best, False))
                raise
            # The save counts even if an old file cannot be deleted.
            self._outcomes.append((best, True))
            self._announcer.committed(save)
            if self.last is not None:
                also_under(path, self.last)
            self._files.add(path, record, self.monitor, mode)

        with save.to(path):
            self._writer.run(commit)
        self._settle()

    def _prepare(
        self, path: str, progress: TrainingProgress, note: dict[str, Any]
    ) -> Callable[[], Record]:
        watch, memory = self._untracked, self._memory
        write = prepare_model(path, self.model, progress, self._format, note, watch, memory)
        if not self._tried:
            self._tried = True
            warn_of_unbuildable(self.model, path)
        return write

    def _settle(self) -> None:
        """Use the results of committed saves: only then a value counts as the best."""
        while self._outcomes:
            best, committed = self._outcomes.popleft()
            if committed and best is not None:
                self.best, self._best_epoch = best.value, best.epoch
                self._run().set_best(best)
            if self._candidate is best:
                self._candidate = None
        self._announcer.verbose = self.verbose  # Keras' attribute, which may be changed.
        self._announcer.settle(lambda save: f"{save.epoch}: finished saving model to {save.path}")

    def _get_file_path(self, epoch: int, batch: int | None, logs: Mapping[str, Any]) -> str:
        return fill_pattern(self.filepath, epoch, batch, logs)

    def _recall_best(self, mode: str) -> None:
        """Read the best value from the file that an earlier process saved under this name."""
        run_id = self._run().progress().run_id
        for path, record in self._files.written():
            other = record.progress.run_id
            # A run that starts at a later epoch continues an earlier one.
            starts_over = other != run_id and not self._first_epoch
            if starts_over and _trained.get(other, self._this_model)() is not self.model:
                self._warn_once(
                    f"{path!r} contains another model that this process has trained: the best "
                    f"{self.monitor} starts over, and this run replaces the file. To keep one file "
                    "for each model, use different paths."
                )
                continue
            best = record.progress.best
            if best is None or best.value is None:
                continue
            same = (best.monitor, best.mode) == (self.monitor, mode)
            if not same or not is_of(record, self.model):
                continue
            if Best(self.monitor, mode, self.best).improved_by(best.value):
                self.best, self._best_epoch = best.value, best.epoch
                when = "before the restart" if other == run_id else "of an earlier run"
                self._say_plainly(f"best {self.monitor} {when}: {shown(best.value)}")
                if other != run_id:
                    self._warn_once(
                        f"{path!r} contains a model with {self.monitor}={shown(best.value)} from "
                        "another run; only a better one replaces it. Delete it to start over."
                    )

    def _say(self, epoch: int, message: str, level: int = logging.INFO) -> None:
        self._say_plainly(f"Epoch {epoch_number(epoch)}: {message}", level)

    def _say_plainly(self, message: str, level: int = logging.INFO) -> None:
        self._announcer.verbose = self.verbose
        self._announcer.say(message, level)

    def _warn_once(self, message: str) -> None:
        kind = message.split(":", maxsplit=1)[0]
        if kind not in self._warned:
            self._warned.add(kind)
            warn(message, UserWarning, stacklevel=2)

"""`CheckpointManager`: saves and resumes a custom training loop.

It has the methods of `tf.train.CheckpointManager`, and iterators that count, save and resume in the
`for` statements of the loop. It uses the same engine as `BackupAndRestore`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, Literal, Self, TypeVar

import keras

from keras_ckpt_tools.errors import ArgumentError, CkptError, ResumeError
from keras_ckpt_tools.live.state import to_numpy
from keras_ckpt_tools.metadata import Best, TrainingProgress, epoch_number
from keras_ckpt_tools.runs.choose import is_over
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.runs.phases import check_phase
from keras_ckpt_tools.runs.retention import Policy, policy_from
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.storage.local_paths import local_path
from keras_ckpt_tools.training.best_metric import direction
from keras_ckpt_tools.training.changes import Changes, check_changed
from keras_ckpt_tools.training.checkpoints import (
    STOCK,
    Checkpoints,
    Commit,
    Format,
    Restored,
    check_format,
)
from keras_ckpt_tools.training.interruption import SaveOnSignal, SignalWatch
from keras_ckpt_tools.training.manager_view import ManagerView
from keras_ckpt_tools.training.messages import Announcer
from keras_ckpt_tools.training.run import Run, check_resume, join_run, optimizer_step, plain_logs
from keras_ckpt_tools.training.save_schedule import Cadence, SaveFreq
from keras_ckpt_tools.training.state.adapters import adapt
from keras_ckpt_tools.training.state.loop import LoopState
from keras_ckpt_tools.training.state.marks import Marked, Marks
from keras_ckpt_tools.training.state.run_state import CADENCE, FIT, LOOP
from keras_ckpt_tools.training.untracked import OnUntracked, check_on_untracked
from keras_ckpt_tools.training.writing import check_directory

_log = logging.getLogger(__name__)
Batch = TypeVar("Batch")


class _Ahead(Generic[Batch]):
    """Yields the items of data, and shows whether there is another one."""

    def __init__(self, data: Iterable[Batch], left: int | None, *, tracked: bool = False):
        self._data = iter(data)
        self._next: list[Batch] = []
        self._left = left
        self.tracked = tracked
        self.ended = False

    def __iter__(self) -> Iterator[Batch]:
        while self.look():
            if self._left is not None:
                self._left -= 1
            yield self._next.pop()

    def look(self) -> bool:
        """Return whether there is another batch, by reading it."""
        if not self._next and not self.ended:
            try:
                self._next.append(next(self._data))
            except StopIteration:
                self.ended, self._data = True, iter(())  # Each epoch may create its own data.
        return bool(self._next)

    @property
    def is_over(self) -> bool:
        """Whether there is no other batch; one is read only if their number is unknown."""
        known = not self.ended and self._left is not None and self._left > 0
        return not known and not self.look()


class _UnderWay:
    """A batch or step whose body is running."""

    def __init__(self, index: int, marks: Marks):
        self.index = index
        self.marks = marks
        self.handling = sys.exception()
        self.left = False


class _Epoch:
    """An epoch whose body is running.

    Attributes:
        marks: Marks at its start.
        source: Its batches, if the loop has requested them.
        over: Path of the file that was saved after the last batch and before the end of the body.
        stopped: Saves the state at which a callback has stopped it, before its last batch.
        at_end: Saves the state after its last batch, for a signal.
    """

    def __init__(self, marks: Marks):
        self.marks = marks
        self.source: _Ahead[Any] | None = None
        self.over: str | None = None
        self.stopped: Commit | None = None
        self.at_end: Commit | None = None


class CheckpointManager:
    """Save, keep and restore the state of a custom training loop.

    Use it in place of `tf.train.CheckpointManager`. The methods of that class work as there, and
    the iterators `epochs`, `batches` and `steps` make a loop resume automatically.

    Args:
        directory: Directory of the checkpoints of one run; created if missing.
        max_to_keep: How many checkpoints are retained, the newest first; `None` keeps all. The best
            one (with `monitor`) is always retained.
        keep: A retention policy instead: `kct.KeepLast(3) | kct.KeepBest(1, "val_loss")`.
        save_freq: When the iterators save: `"epoch"`, a number of steps from 1, or a
            `datetime.timedelta`.
        monitor: Name of the logged metric that decides which checkpoint is the best, or `None`.
        mode: `"min"`, `"max"`, or `"auto"` to infer it from the name of the metric.
        resume: `"auto"` resumes if there is a checkpoint, `"never"` starts over, `"must"` raises an
            error if there is no checkpoint.
        phase: Name of this part of a program with several loops and managers in one directory: only
            checkpoints of that phase are resumed from. See `docs/loops.md`.
        changed: Intended changes of the program since the checkpoint was written: any of `"data"`,
            `"learning_rate"`, `"optimizer"`, `"metrics"`, `"callbacks"` and `"seed"`. If the
            program differs there, its own setting is used instead of the saved one.
            `docs/resuming.md` lists which changes need it, and what each costs.
        background: Whether files are written in a thread while training continues. The saved state
            is that at the time of the save. Errors are raised at the next save, at `wait`, or when
            the loop ends.
        format: File format: `"h5"`, or `"tf"` for TensorFlow checkpoints, which stock
            `tf.train.Checkpoint(**objects).restore(tf.train.latest_checkpoint(directory))` reads.
            A directory may contain both; a run resumes from the newest of either format.
        save_on_signal: Whether SIGTERM and SIGINT (Ctrl-C) save the state at the end of the current
            batch and then take their usual effect. Or which signals do: one, or several
            (`[signal.SIGTERM, signal.SIGUSR1]`, for SLURM's `--signal=USR1@120`).
        callbacks: Keras callbacks, which the iterators call: `EarlyStopping` stops the loop,
            `ReduceLROnPlateau` receives the logs. They belong to the model that is tracked as
            `model`, or to the first one, and their state is saved and restored.
        on_untracked: What to do at a save about state that Keras does not save (a `tf.Variable` in
            a layer, a layer in a plain Python object): `"warn"` once, raise an `"error"` before
            anything is written, or `"ignore"` it. Objects that are tracked here by name are saved.
        tensorboard: Log directory of TensorBoard for a history of the saves, below `saves/` in it:
            time, path, size, duration, and how long training was blocked.
        verbose: 1 to print a line at each save and at a resume, with a progress bar on a terminal
            if a save or restore takes long. With 0, the lines are logged with `logging` instead,
            under the name `keras_ckpt_tools.training.manager`.
        **objects: The objects to track, by names of your choice: Keras models, optimizers, metrics
            and layers; `tf.Variable`s, alone or in lists and dicts; `tf.Module`s; iterators of
            tf.data; `tf.random.Generator`s, NumPy's generators and Python's `random.Random`;
            objects with `state_dict`/`load_state_dict` or `get_state`/`set_state`. The generators
            of the process itself are saved without being tracked.

    Raises:
        ArgumentError: an argument is invalid, or an object cannot be tracked.
        CommitError: the directory is a file. When a loop starts: it is not writable, and training
            is not complete. Restoring only reads.

    The files are `directory/ckpt-00000001.weights.h5` and so on, each complete when it is visible,
    with a group for each tracked object. Stock `model.load_weights` loads them if a model is
    tracked under the name `model`. With `format="tf"` they are `directory/ckpt-00000001.index`,
    `.data-00000-of-00001` and `.record`, and the file `checkpoint`, which names a complete one.

    Example:

    >>> import tempfile
    >>> import tensorflow as tf
    >>> import keras_ckpt_tools as kct
    >>> directory = tempfile.mkdtemp()
    >>> weight = tf.Variable(1.0)
    >>> manager = kct.CheckpointManager(directory, max_to_keep=3, weight=weight)
    >>> for epoch in manager.epochs(2):
    ...     for x in manager.batches([1.0, 2.0, 3.0]):
    ...         _ = weight.assign_add(x)
    ...     manager.log(weight=weight)
    >>> manager.progress.step, len(manager.checkpoints)
    (6, 2)
    >>> again = tf.Variable(0.0)
    >>> manager = kct.CheckpointManager(directory, weight=again)
    >>> _ = manager.restore_or_initialize()
    >>> float(again), list(manager.epochs(3))
    (13.0, [2])
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_to_keep: int | None = None,
        keep: Policy | None = None,
        save_freq: SaveFreq = "epoch",
        monitor: str | None = None,
        mode: Literal["auto", "min", "max"] = "auto",
        resume: Literal["auto", "never", "must"] = "auto",
        phase: str | None = None,
        changed: str | Iterable[str] = (),
        background: bool = False,
        format: Format = "h5",
        save_on_signal: SaveOnSignal = False,
        callbacks: Iterable[keras.callbacks.Callback] | None = None,
        on_untracked: OnUntracked = "warn",
        tensorboard: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        **objects: Any,
    ):
        objects = _without_stock_arguments(objects)
        policy = policy_from(max_to_keep, keep)
        self._cadence = Cadence(save_freq)
        self._resume = check_resume(resume)
        self._phase = check_phase(phase)
        self._changes = Changes(check_changed(changed))
        self._mode = direction(monitor, mode)
        directory = check_directory(directory, "directory", to_write=False)
        self._announcer = Announcer(_log, directory, verbose, tensorboard)
        self._checkpoints = checkpoints = Checkpoints(
            directory,
            objects,
            policy,
            monitor,
            self._mode,
            background,
            check_on_untracked(on_untracked),
            self._announcer,
            check_format(format),
            self._changes,
            LOOP,
        )
        if resume == "never":
            self._checkpoints.kept.expect_another_run()
        self._run = Run(TrainingProgress())
        model = _one_model(self._checkpoints.objects)
        # Not through the manager: when it is no longer used, it releases its directory at once.
        self._state = LoopState(callbacks, model, self._changes, lambda: checkpoints.objects)
        self._save_on_signal = bool(save_on_signal)
        self._signals = SignalWatch(save_on_signal, self._save_at_signal)
        self._restored = False
        self._batches_to_skip = 0
        self._steps_done: int | None = None
        self._marked: tuple[Any, Marked] | None = None
        self._under_way: _UnderWay | None = None
        self._epoch: _Epoch | None = None
        self._after: Marks | None = None  # Marks of a save in the body that counted its batch.
        self._due = False
        self._ended_at_restart = False  # Whether the restart only had to end the last epoch.
        self._saving = False
        self._told: set[str] = set()
        self._join_models()

    def _join_models(self) -> None:
        for tracked in self._checkpoints.objects.values():
            if isinstance(tracked, keras.Model):
                join_run(tracked, self._run)

    # Position of the run.

    @property
    def directory(self) -> str:
        """Directory of the checkpoints."""
        return self._checkpoints.directory

    @property
    def progress(self) -> TrainingProgress:
        """The position of the run; see `TrainingProgress`."""
        if self._under_way is not None and self._under_way.left:
            self._settle()
        return self._run.progress(
            self._counting_optimizer(), self._best(self._checkpoints.kept.best)
        )

    @property
    def checkpoints(self) -> list[str]:
        """Paths of the existing checkpoints, oldest first."""
        return [item.path for item in self._checkpoints.kept.saved]

    @property
    def latest_checkpoint(self) -> str | None:
        """Path of the newest checkpoint, or `None`.

        Before the first save, it is that of `tf.train.CheckpointManager` or of Keras' own backup,
        if there is one.
        """
        return self._checkpoints.newest

    @property
    def best_checkpoint(self) -> str | None:
        """Path of the checkpoint with the best monitored metric, or `None`."""
        best = self._checkpoints.kept.best
        return best.path if best else None

    def _counting_optimizer(self) -> Any:
        self._checkpoints.follow_compile()
        for tracked in self._checkpoints.objects.values():
            if isinstance(tracked, keras.optimizers.Optimizer):
                return tracked
        for tracked in self._checkpoints.objects.values():
            optimizer = getattr(tracked, "optimizer", None)
            if optimizer_step(optimizer) is not None:  # PyTorch optimizers do not count.
                return optimizer
        return None

    def _best(self, saved: CheckpointEntry | None) -> Best | None:
        monitor = self._checkpoints.kept.monitor
        if monitor is None or saved is None:
            return None
        here = saved.progress
        return Best(monitor, self._mode, here.logs[monitor], here.epoch_index)

    # The iterators.

    def epochs(self, total: int) -> Iterator[int]:
        """Iterate over the remaining epochs.

        Restores the newest good checkpoint first, unless that was done already. An epoch ends when
        the body of the loop does, and is then saved if `save_freq="epoch"`. After `break` or an
        exception, the epoch is unfinished.

        Args:
            total: Number of epochs of the run, including completed ones.

        Yields:
            The zero-based index of the epoch.
        """
        _check_total("epochs", total)
        self._begin(total)
        done = self._run.progress().epochs_completed
        self._say_if_done("epochs", total, done)
        if done < total:
            self._checkpoints.require_writable()
        try:
            for epoch in range(self._run.progress().epochs_completed, total):
                if self._state.stopped:
                    break
                self._run.epoch_begins(epoch)
                self._state.epoch_begins(epoch, self._checkpoints.adapters)
                self._epoch = _Epoch(self._marks())
                yield epoch
                self._epoch_ended(epoch)
                self._leave_on_signal()
        finally:
            self._epoch = None
            self._signals.end()
        self._state.train_ends(self._run.progress().logs)
        self._save_rest()

    def batches(self, dataset: Iterable[Batch]) -> Iterator[Batch]:
        """Iterate over the batches of one epoch, and count the steps.

        After a restart in the middle of an epoch, completed batches are skipped. The result is
        exact if the dataset gives the same batches in the same order again.
        `kct.data.ArrayDataset` and `kct.data.resumable` do, and do not read skipped batches;
        `docs/data.md` lists other data.

        A save that is due after a batch is written when the next batch has been read, with the
        state from before. After the last batch it belongs to the end of the epoch.

        Args:
            dataset: Any iterable: a `tf.data.Dataset`, a list, a generator.

        Yields:
            Its batches.
        """
        self._settle()
        done, self._batches_to_skip = self._batches_to_skip, 0
        tracked = any(dataset is item for item in self._checkpoints.objects.values())
        data: Iterable[Batch] = dataset  # A tracked iterator is at its position already.
        if not tracked:
            data, done = self._state.place(dataset, self._run.progress().epochs_completed, done)
        length = None if tracked else _length(dataset)
        source = _Ahead(data, None if length is None else length - done, tracked=tracked)
        if self._epoch is not None:
            self._epoch.source = source
        if done:
            self._state.batches_begin()
        for index, batch in enumerate(source, done):
            body = self._body_begins(index)
            try:
                yield batch
            except GeneratorExit:
                body.left = True
                raise
            self._body_ended(body)
            if self._due or self._signals.received:
                self._save_unless_last(source)
            if self._state.stopped:
                if self._epoch is not None and not source.is_over:
                    self._epoch.stopped = self._take()
                return
        if self._epoch is not None and self._save_on_signal and not self._signals.received:
            self._epoch.at_end = self._take(over=True)

    def steps(self, total: int) -> Iterator[int]:
        """Iterate over the remaining steps, in a loop without epochs.

        Restores the newest good checkpoint first, unless that was done already.

        Args:
            total: Number of steps of the run, including completed ones.

        Yields:
            The zero-based index of the step.
        """
        _check_total("steps", total)
        self._begin(None)
        self._settle()
        done = self._run.progress().batches_completed
        if self._steps_done is not None and not done:
            done = self._steps_done
        self._say_if_done("steps", total, done)
        if done < total:
            self._checkpoints.require_writable()
        try:
            for index in range(done, total):
                if self._state.stopped:
                    break
                body = self._body_begins(index)
                try:
                    yield index
                except GeneratorExit:
                    body.left = True
                    raise
                self._body_ended(body)
                if self._due or self._signals.received:
                    self._save_now()
                self._leave_on_signal()
        finally:
            self._signals.end()
        self._state.train_ends(self._run.progress().logs)
        self._save_rest()

    def _say_if_done(self, name: str, total: int, done: int) -> None:
        ended = self._phase is not None and done == total
        said = ended or self._state.stopped or self._ended_at_restart
        if done >= total > 0 and not said:
            warn(
                f"Nothing is left to train: the run of {self._checkpoints.directory!r} has {done} "
                f"{name}, and `{name}({total})` includes those. Pass a larger one to train more. "
                "For a new run, pass `resume='never'` or use another directory; for a second loop "
                "of the same program, create another manager with `phase=`.",
                UserWarning,
                stacklevel=4,
            )

    # The body of a batch or step.

    def _marks(self) -> Marks:
        adapters = self._checkpoints.adapters
        if self._marked is None or self._marked[0] is not adapters or not self._marked[1].settled:
            self._marked = adapters, Marked(adapters)
        return self._marked[1].now()

    @property
    def _counts(self) -> bool:
        return self._marked is not None and self._marked[1].counts

    def _body_begins(self, index: int) -> _UnderWay:
        self._settle()
        self._after = None
        body = self._under_way = _UnderWay(index, self._marks())
        self._state.batch_begins(index)
        return body

    def _body_ended(self, body: _UnderWay) -> None:
        if self._under_way is body:
            self._due = self._count(body) or self._due
        elif self._after is not None and self._after.moved:
            self._tell(
                "`manager.save()` was called in the middle of a batch: an optimizer has updated "
                "before it and after it. A restart from that checkpoint counts the batch as done, "
                "but lacks the later update. Call it at the end of the loop's body."
            )

    def _count(self, body: _UnderWay) -> bool:
        """Count a batch as done; return whether a save is due."""
        self._under_way = None
        self._run.batch_ends(body.index)
        if self._counting_optimizer() is None:
            self._run.count_step()
        self._state.batch_ends(body.index, self._run.notes)
        return self._cadence.batch_ends(body.index)

    def _settle(self) -> bool:
        """Count the current or interrupted batch if it was trained on; return whether it was.

        If a save was due, it remains due.
        """
        body = self._under_way
        if body is None:
            return False
        # An exception raised since then is the reason why the body is left.
        done = body.marks.moved if self._counts else sys.exception() is body.handling
        if done:
            self._due = self._count(body) or self._due
        elif body.left:
            self._under_way = None
        return done

    # Saves.

    def save(self, checkpoint_number: Any = None, options: None = None) -> str:
        """Save all tracked objects now.

        In the body of a loop, call it at the end. The current batch, step or epoch counts as done
        if an optimizer has made an update in it, or a tracked sum of floats has changed; if no
        optimizer counts its updates, it always does. A checkpoint saved after the last batch of an
        epoch is replaced by one of the end of that epoch when the body of the epoch has ended.

        Args:
            checkpoint_number: The number in the name of the file: an integer, or a variable with
                one. Numbers are the order of the saves, so a number that is not higher than those
                in the directory is replaced by the next one that is.
            options: `None`. Accepted because programs pass it to `tf.train.CheckpointManager`.

        Returns:
            Path of the new checkpoint. It is visible and complete when this returns; with
            `background=True`, after `wait`.

        Raises:
            ArgumentError: `checkpoint_number` is not a non-negative integer, or `options` is set.
            CommitError: the operating system refused; the existing checkpoints are unchanged. With
                `background=True`, this may be the error of an earlier save.
            NotBuiltError: a tracked object has no variables yet.
            UntrackedStateError: some state would not be saved, and `on_untracked="error"`.
        """
        number = _checked_number(checkpoint_number, options)
        counted = self._settle()
        self._warn_of_a_batch_that_is_lost()
        over = self._is_over()
        instead = self._epoch.over if self._epoch else None
        path = self._save_now(over=over, instead=instead, number=number)
        if counted and self._counts:
            self._after = self._marks()
        if over and self._epoch is not None:
            self._epoch.over = path
        return path

    def _save_now(
        self, *, over: bool = False, instead: str | None = None, number: int | None = None
    ) -> str:
        path = self._take(over=over)(instead, number)
        self._due = False
        return path

    def _is_over(self) -> bool:
        """Return whether the current epoch is trained and its body is still running."""
        epoch = self._epoch
        if epoch is None or self._under_way is not None:
            return False
        if epoch.source is not None:
            return epoch.source.is_over
        return epoch.marks.moved if self._counts else True

    def _save_unless_last(self, source: _Ahead[Any]) -> None:
        """Save the state after a batch, unless that belongs to the end of the epoch."""
        commit, epoch = self._take(), self._epoch
        more = True
        try:
            more = epoch is None or source.look()
        finally:
            if more:
                commit()
                self._due = False
        if more:
            self._leave_on_signal()
        elif self._signals.received and epoch is not None:
            # The end of the epoch may be too late.
            epoch.over = self._save_now(over=True)

    def _save_at_signal(self) -> None:
        """Save the state after the last batch at once: the rest of the epoch may take too long."""
        epoch = self._epoch
        if epoch is None or epoch.at_end is None or self._saving:
            return
        commit, epoch.at_end = epoch.at_end, None
        try:
            epoch.over = commit(epoch.over)
        except CkptError as error:
            warn(
                f"A signal came after the last batch of an epoch, and the save failed: "
                f"{error.what} It is tried again at the end of the epoch.",
                UserWarning,
                stacklevel=2,
            )

    def _epoch_ended(self, epoch: int) -> None:
        state, self._epoch = self._epoch, None
        assert state is not None
        state.at_end = state.source = None
        self._settle()
        self._under_way = None
        self._state.epoch_ends(epoch, self._run.notes)
        if state.stopped is not None:
            if self._unsaved():
                state.stopped()
            return
        self._run.epoch_ends(epoch, self._run.notes)
        if self._cadence.epoch_ends() or self._due or state.over or self._signals.received:
            self._save_now(instead=state.over)

    def _warn_of_a_batch_that_is_lost(self) -> None:
        if self._under_way is None or self._epoch is None or self._epoch.source is None:
            return
        if self._epoch.source.tracked:
            self._tell(
                "`manager.save()` was called before the batch was trained on, but the tracked "
                "iterator has already returned that batch: a restart from this checkpoint resumes "
                "with the batch after it. Call it at the end of the loop's body."
            )

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            warn(message, UserWarning, stacklevel=4)

    def _leave_on_signal(self) -> None:
        if self._signals.received:
            self.wait()
            self._signals.hand_on()

    def _begin(self, epochs: int | None) -> None:
        self._checkpoints.occupy()
        self._restore_once()
        self._checkpoints.kept.keep_now()
        self._state.train_begins(epochs)
        if self._save_on_signal:
            self._signals.begin()

    def _save_rest(self) -> None:
        self.wait()
        if self._unsaved():
            self._save_now()
        self._checkpoints.tidy()

    def _unsaved(self) -> bool:
        now = self._run.progress(self._counting_optimizer())
        if not now.trained:
            return False
        saved = self._checkpoints.kept.saved
        mine = [item.progress for item in saved if item.progress.run_id == now.run_id]
        return not mine or now.place != mine[-1].place

    def log(self, **metrics: Any) -> None:
        """Record metrics; the last values in an epoch are those of the epoch.

        Args:
            **metrics: Numbers: floats, NumPy scalars, tensors of one element, Keras metrics'
                results.

        Raises:
            ArgumentError: a value is not a single number. All such values are listed.
        """
        numbers = plain_logs(metrics)
        wrong = [f"{name}={metrics[name]!r}" for name in metrics if name not in numbers]
        if wrong:
            raise ArgumentError(
                "Metrics must be single numbers.",
                received="; ".join(wrong),
                remedy="Reduce them first, with `tf.reduce_mean` for example.",
            )
        self._run.note(numbers)

    # Save and restore.

    def _take(self, *, over: bool = False) -> Commit:
        self._run.ensure_begun()
        self._note_program()
        now = self._run.progress(self._counting_optimizer())
        best = self._best(self._checkpoints.kept.best_with(now))
        progress = dataclasses.replace(now, best=best or now.best)
        beside = self._state.take(over=over) | {CADENCE: self._cadence.get_state()}
        if self._phase is not None:
            beside[LOOP]["phase"] = {"name": self._phase}
        with self._announcer.bar("Saving"):
            commit = self._checkpoints.take(progress, beside, self._cadence.seen)

        def save(instead: str | None = None, number: int | None = None) -> str:
            self._saving = True
            try:
                with self._announcer.bar("Saving"):
                    path = commit(instead, number)
            finally:
                self._saving = False
            self._restored = True
            self._cadence.saved()
            return path

        return save

    def wait(self) -> None:
        """Wait until all background writes are complete.

        Raises:
            CommitError: a save failed.
        """
        self._checkpoints.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait()

    def restore(self, path: str | os.PathLike[str]) -> TrainingProgress:
        """Restore all tracked objects from one checkpoint, or none of them.

        Args:
            path: A checkpoint of a `CheckpointManager` or `BackupAndRestore`.

        Returns:
            The position of training.

        Raises:
            ArtefactNotFoundError: the path does not exist.
            ArtefactKindError: the file is not a checkpoint.
            RestoreError: it does not match the tracked objects. Nothing was changed.
            NotBuiltError: a tracked object has no variables, and there is not enough information
                to build it.
        """
        self._note_program()
        with self._announcer.bar("Restoring"):
            restored = self._checkpoints.restore(local_path(path))
        return self._go_on(restored).progress

    def restore_or_initialize(self) -> str | None:
        """Restore the newest good checkpoint, if there is one.

        Checkpoints of stock programs in the directory are restored as well, completely or not at
        all, and are not changed: the newest checkpoint of a `tf.train.CheckpointManager`, by the
        names of the tracked objects, and a backup of Keras' own `BackupAndRestore`, if one model
        and its optimizer are tracked.

        Returns:
            Its path, or `None` if there is no checkpoint.

        Raises:
            RestoreError: it does not match the tracked objects. Nothing was changed.
            NotBuiltError: a tracked object has no variables, and there is not enough information
                to build it.
            DamagedArtefactError: there are checkpoints, but none of them is complete.
        """
        self._note_program()
        with self._announcer.bar("Restoring"):
            found = self._checkpoints.restore_newest(self._state.differences, among=self._mine)
        self._restored = True
        if found is None:
            return None
        self._go_on(found)
        return found.path

    def _note_program(self) -> None:
        trained = self._run.progress().trained
        self._changes.begin_once(self._counting_optimizer(), same=trained)

    def _mine(self, saved: list[CheckpointEntry]) -> list[CheckpointEntry]:
        """Return the checkpoints of the phase."""
        if self._phase is None or not any(item.phase.get("name") for item in saved):
            return saved
        self._checkpoints.kept.expect_another_run()
        return [item for item in saved if item.phase.get("name") == self._phase]

    def _go_on(self, restored: Restored) -> Restored:
        self._under_way = self._epoch = None
        self._due = False
        self._run.resume(restored.progress)
        fit, loop = (restored.beside.get(name, {}) for name in (FIT, LOOP))
        self._ended_at_restart = over = is_over(restored.progress, fit, loop)
        if over:
            restored = self._end_of_epoch(restored)
        self._announcer.goes_on(restored.path, restored.progress)
        self._state.resume(restored)
        if over:
            epoch = restored.progress.epoch_index
            self._state.ended_before(epoch, restored.progress.logs)
        self._restored = True
        done, step = restored.progress.batches_completed, restored.progress.step
        self._batches_to_skip = done
        # Third-party checkpoints count steps, but no batches.
        self._steps_done = step if restored.beside is STOCK else None
        self._cadence.goes_on(restored.beside.get(CADENCE), done, step)
        return restored

    def _end_of_epoch(self, restored: Restored) -> Restored:
        """Count an epoch as completed if all its batches were done at the save."""
        epoch = restored.progress.epochs_completed
        warn(
            f"{restored.path!r} was saved in epoch {epoch_number(epoch)}, after its last batch and "
            "before its end. Training resumes with the next epoch. What the loop does after the "
            "batches of this epoch (validation, for example) was not saved and is not done "
            "again.",
            UserWarning,
            stacklevel=5,
        )
        progress = self._run.ended(epoch)
        return restored._replace(progress=progress)

    def _restore_once(self) -> None:
        self._note_program()
        if self._restored or self._resume == "never":
            return
        if self.restore_or_initialize() is None and self._resume == "must":
            raise ResumeError(
                "There is no checkpoint to resume from.",
                received=f"directory={self.directory!r}, resume='must'",
                remedy="Pass `resume='auto'` to start if there is none, or check the path.",
                path=self.directory,
            )

    def __repr__(self) -> str:
        names = ", ".join(self._checkpoints.objects)
        return f"<CheckpointManager {self.directory!r}: {names}; {len(self.checkpoints)} saved>"

    def __str__(self) -> str:
        return self._view().as_text()

    def _repr_html_(self) -> str:
        return self._view().as_html()

    def _view(self) -> ManagerView:
        checkpoints = self._checkpoints
        return ManagerView(
            checkpoints.directory,
            self.progress,
            checkpoints.objects,
            tuple(checkpoints.kept.saved),
            self.best_checkpoint,
            checkpoints.kept.policy,
            self._cadence.next_save,
        )


def _check_total(name: str, total: object) -> None:
    if isinstance(total, bool) or not isinstance(total, int) or total < 0:
        raise ArgumentError(
            f"The number of {name} must be a non-negative integer.",
            received=f"{name}={total!r}",
            remedy=f"Pass the number of {name} of the run.",
        )


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def _checked_number(checkpoint_number: Any, options: Any) -> int | None:
    if options is not None:
        raise ArgumentError(
            "`save` has no options.",
            received=f"options={options!r}",
            remedy="Omit `options`. Instead of `enable_async`, pass `background=True` to the "
            "manager.",
        )
    if checkpoint_number is None:
        return None
    array = to_numpy(checkpoint_number) if hasattr(checkpoint_number, "dtype") else None
    number = checkpoint_number if array is None else array.item() if array.size == 1 else None
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ArgumentError(
            "`checkpoint_number` must be a non-negative integer.",
            received=f"checkpoint_number={checkpoint_number!r}",
            remedy="Pass an integer or an integer variable, or omit it.",
        )
    return number


def _one_model(objects: Mapping[str, Any]) -> Any:
    """Return the model that callbacks belong to."""
    models = {name: item for name, item in objects.items() if isinstance(item, keras.Model)}
    return models.get("model", next(iter(models.values()), None))


# Arguments of `tf.train.CheckpointManager` that would be mistaken for names of tracked objects.
_STOCK_ARGUMENTS = {
    "checkpoint": "pass the objects to track by name, `model=model, optimizer=optimizer`",
    "keep_checkpoint_every_n_hours": "pass a policy, `keep=kct.KeepLast(5) | "
    "kct.KeepEvery(hours=2)`",
    "checkpoint_name": "omit it: file names are `ckpt-00000001` and so on; use one directory for "
    "each run",
    "checkpoint_interval": "pass `save_freq=`, a number of steps",
    "step_counter": "omit it: the manager counts steps, for `save_freq=` too; to track a variable "
    "of your own, pass it under another name",
    "init_fn": "call it if `manager.restore_or_initialize()` returns `None`",
}


def _without_stock_arguments(objects: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tracked objects; reject arguments of TensorFlow's manager.

    Raises:
        ArgumentError: there are such arguments.
    """
    given = {n: v for n, v in objects.items() if n in _STOCK_ARGUMENTS}
    found = [name for name, value in given.items() if value is not None]
    if "checkpoint_interval" not in found:
        # A variable may have such a name.
        found = [name for name in found if adapt(name, given[name]) is None]
    if found:
        raise ArgumentError(
            "These are arguments of `tf.train.CheckpointManager`, but not of this class: "
            + ", ".join(found)
            + ".",
            received=", ".join(f"{name}={given[name]!r}" for name in found),
            remedy=" ".join(f"`{name}`: {_STOCK_ARGUMENTS[name]}." for name in found),
        )
    return {
        name: value for name, value in objects.items() if name not in given or value is not None
    }

"""`CheckpointManager`: saves and resumes a hand-written training loop.

It has the verbs of `tf.train.CheckpointManager`, and iterators that turn the loop's own `for`
statements into events. Behind it is the same engine that serves `fit()`.
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
from keras_ckpt_tools.training.marks import Marked, Marks
from keras_ckpt_tools.training.messages import Announcer
from keras_ckpt_tools.training.run import Run, check_resume, join_run, optimizer_step, plain_logs
from keras_ckpt_tools.training.save_schedule import Cadence, SaveFreq
from keras_ckpt_tools.training.state.adapters import adapt
from keras_ckpt_tools.training.state.loop import LoopState
from keras_ckpt_tools.training.state.run_state import CADENCE, FIT, LOOP
from keras_ckpt_tools.training.untracked import OnUntracked, check_on_untracked
from keras_ckpt_tools.training.writing import check_directory

_log = logging.getLogger(__name__)
Batch = TypeVar("Batch")


class _Ahead(Generic[Batch]):
    """Gives what data give, and tells beforehand whether there is more."""

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
        """Return whether there is another batch; it is read for that."""
        if not self._next and not self.ended:
            try:
                self._next.append(next(self._data))
            except StopIteration:
                self.ended, self._data = True, iter(())  # Data may be made anew in each epoch.
        return bool(self._next)

    @property
    def is_over(self) -> bool:
        """Whether there is no other batch; it is read only where their number is not known."""
        known = not self.ended and self._left is not None and self._left > 0
        return not known and not self.look()


class _UnderWay:
    """A batch or step whose body runs."""

    def __init__(self, index: int, marks: Marks):
        self.index = index
        self.marks = marks
        self.handling = sys.exception()
        self.left = False


class _Epoch:
    """An epoch whose body runs.

    Attributes:
        marks: At its beginning.
        source: Its batches, if the loop has asked for them.
        over: Path of what was saved when its batches were over and its body was not.
        stopped: Saves the state in which a callback has stopped it, before its last batch.
        at_end: Saves the state after its last batch, for a signal.
    """

    def __init__(self, marks: Marks):
        self.marks = marks
        self.source: _Ahead[Any] | None = None
        self.over: str | None = None
        self.stopped: Commit | None = None
        self.at_end: Commit | None = None


class CheckpointManager:
    """Save, keep and restore the state of a hand-written training loop.

    Reach for it where you would use `tf.train.CheckpointManager`: its familiar verbs do what they
    do there, and the iterators `epochs`, `batches` and `steps` make a loop resume by themselves.

    Args:
        directory: Directory of the checkpoints of one run; made if it is missing.
        max_to_keep: How many checkpoints stay, the newest first; `None` keeps all. The best one
            (with `monitor`) always stays.
        keep: A retention policy instead: `kct.KeepLast(3) | kct.KeepBest(1, "val_loss")`.
        save_freq: When the iterators save: `"epoch"`, a number of steps from 1, or a
            `datetime.timedelta`.
        monitor: Name of a logged metric by which the best checkpoint is known, or `None`.
        mode: `"min"`, `"max"`, or `"auto"` to infer it from the name of the metric.
        resume: `"auto"` goes on where there is something to go on from, `"never"` starts over,
            `"must"` raises where there is nothing.
        phase: Name of this part of a program that has several loops, each with a manager of its
            own, in one directory: only checkpoints of that name are resumed from. See
            `docs/loops.md`.
        changed: What of the program differs from when the checkpoint was written, and is meant to:
            any of `"data"`, `"learning_rate"`, `"optimizer"`, `"metrics"`, `"callbacks"` and
            `"seed"`. Where it really differs, the program's own counts in place of what was saved.
            `docs/resuming.md` lists what may differ without it, and what each costs.
        background: Whether files are written in a thread, while training goes on. What is saved is
            the state at the moment of the save. An error is raised at the next save, at `wait`, or
            when the loop ends.
        format: What is written: `"h5"`, or `"tf"` for TensorFlow checkpoints, which stock
            `tf.train.Checkpoint(**objects).restore(tf.train.latest_checkpoint(directory))` reads.
            A directory may have both; a run goes on from the newest, whichever it is.
        save_on_signal: Whether SIGTERM and SIGINT (Ctrl-C) save the state at the end of the batch
            under way, and do after that what they would have done. Or which signals do that: one,
            or several (`[signal.SIGTERM, signal.SIGUSR1]`, for SLURM's `--signal=USR1@120`).
        callbacks: Keras callbacks, which the iterators drive: `EarlyStopping` stops the loop,
            `ReduceLROnPlateau` sees what is logged. They belong to the model that is tracked as
            `model`, or to the first one, and their state is carried over a restart.
        on_untracked: What to do at a save about state that Keras leaves out (a `tf.Variable` in a
            layer, a layer in a plain Python object): `"warn"` once, raise an `"error"` before
            anything is written, or `"ignore"` it. What is tracked here by name is no such state.
        tensorboard: Log directory of TensorBoard, for a trail of the saves below `saves/` in it:
            when, where to, how large, how long each took and how long training stood still.
        verbose: 1 to print a line at each save and where a run goes on, with a bar on a terminal
            while a save or restore takes long. With 0 it goes to `logging` instead, under the name
            `keras_ckpt_tools.training.manager`.
        **objects: What is tracked, by names of your choice and any number of them: Keras models,
            optimizers, metrics and layers; `tf.Variable`s, alone or in lists and dicts;
            `tf.Module`s; iterators of tf.data; `tf.random.Generator`s, NumPy's generators and
            Python's `random.Random`; objects with `state_dict`/`load_state_dict` or
            `get_state`/`set_state`. The generators of the process itself are saved without being
            tracked.

    Raises:
        ArgumentError: an argument cannot work, or an object cannot be tracked.
        CommitError: the directory is a file. When a loop begins: it may not be written to, and
            something is left to train. Restoring only reads.

    What appears on disk is `directory/ckpt-00000001.weights.h5` and so on, each whole when it is
    visible, with a group for each tracked object. Stock `model.load_weights` opens it where a model
    is tracked under the name `model`. With `format="tf"` it is `directory/ckpt-00000001.index`,
    `.data-00000-of-00001` and `.record`, and the file `checkpoint`, which names one that is whole.

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
        # Not by way of the manager: a manager that is no longer used releases its directory at once.
        self._state = LoopState(callbacks, model, self._changes, lambda: checkpoints.objects)
        self._save_on_signal = bool(save_on_signal)
        self._signals = SignalWatch(save_on_signal, self._save_at_signal)
        self._restored = False
        self._batches_to_skip = 0
        self._steps_done: int | None = None
        self._marked: tuple[Any, Marked] | None = None
        self._under_way: _UnderWay | None = None
        self._epoch: _Epoch | None = None
        self._after: Marks | None = None  # Those of a save in the body that counted its batch.
        self._due = False
        self._ended_at_restart = False  # Whether a restart was all that the last epoch needed.
        self._saving = False
        self._told: set[str] = set()
        self._join_models()

    def _join_models(self) -> None:
        for tracked in self._checkpoints.objects.values():
            if isinstance(tracked, keras.Model):
                join_run(tracked, self._run)

    # Where the run is.

    @property
    def directory(self) -> str:
        """Directory of the checkpoints."""
        return self._checkpoints.directory

    @property
    def progress(self) -> TrainingProgress:
        """Where the run is; see `TrainingProgress`."""
        if self._under_way is not None and self._under_way.left:
            self._settle()
        return self._run.progress(
            self._counting_optimizer(), self._best(self._checkpoints.kept.best)
        )

    @property
    def checkpoints(self) -> list[str]:
        """Paths of the checkpoints that are there, oldest first."""
        return [item.path for item in self._checkpoints.kept.saved]

    @property
    def latest_checkpoint(self) -> str | None:
        """Path of the newest checkpoint, or `None`.

        Where this package has not saved yet, it is that of `tf.train.CheckpointManager` or of
        Keras' own backup, if there is one.
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
            if optimizer_step(optimizer) is not None:  # One of PyTorch counts nothing.
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
        """Iterate over the epochs that are still to do.

        Restores the newest good checkpoint first, unless that was done already. An epoch ends, and
        is saved where `save_freq="epoch"`, when the body of the loop does; `break` and exceptions
        leave it unfinished.

        Args:
            total: How many epochs the whole run has, those already done included.

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

        After a restart in the middle of an epoch, the batches that were already done are passed
        over; that is exact where the dataset gives the same batches in the same order again.
        `kct.data.ArrayDataset` and `kct.data.resumable` do, and read nothing that is passed over;
        `docs/data.md` says what else does.

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
        data: Iterable[Batch] = dataset  # Where it is tracked, it is at its place already.
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
        """Iterate over the steps that are still to do, in a loop without epochs.

        Restores the newest good checkpoint first, unless that was done already.

        Args:
            total: How many steps the whole run has, those already done included.

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
                f"{name}, and `{name}({total})` counts those. Pass a larger number to train on. "
                "For another run, pass `resume='never'` or a directory of its own; for a second "
                "loop of the same program, a manager of its own with `phase=`.",
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
                "and lacks what came after. Call it at the end of the loop's body."
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
        """Count the batch whose body runs, or was left, if its work is done; return whether it was.

        A save that was due then stays so.
        """
        body = self._under_way
        if body is None:
            return False
        # An exception that was raised since is why the body was left, or is being left.
        done = body.marks.moved if self._counts else sys.exception() is body.handling
        if done:
            self._due = self._count(body) or self._due
        elif body.left:
            self._under_way = None
        return done

    # Saves.

    def save(self, checkpoint_number: Any = None, options: None = None) -> str:
        """Save all tracked objects now.

        In the body of a loop, call it at the end. The batch, step or epoch under way counts as done
        if an optimizer has made an update in it, or a tracked sum of floats has changed; where no
        optimizer counts its updates, it always does. A checkpoint that is saved after the last
        batch of an epoch is replaced by one of the end of that epoch when the body of the epoch has
        ended.

        Args:
            checkpoint_number: The number in the name of the file: an integer, or a variable with
                one. Numbers are the order of the saves, so one that is not higher than those in
                the directory is passed over for the next that is.
            options: `None`. It is here for programs that pass it to `tf.train.CheckpointManager`.

        Returns:
            Path of the new checkpoint. It is visible, whole, when this returns; with
            `background=True`, after `wait`.

        Raises:
            ArgumentError: `checkpoint_number` is not a whole number, or there are `options`.
            CommitError: the operating system refused; the checkpoints that were there stay. With
                `background=True`, that may have been at an earlier save.
            NotBuiltError: a tracked object has no variables yet.
            UntrackedStateError: something would be left out, and `on_untracked="error"`.
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
        """Return whether the work of the epoch under way is done, and its body runs."""
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
        """Save the state after the last batch, at once: what follows it may take too long."""
        epoch = self._epoch
        if epoch is None or epoch.at_end is None or self._saving:
            return
        commit, epoch.at_end = epoch.at_end, None
        try:
            epoch.over = commit(epoch.over)
        except CkptError as error:
            warn(
                f"A signal came after the last batch of an epoch, and could not be saved for: "
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
                "`manager.save()` was called before the work of a batch, and the tracked iterator "
                "has given that batch out: a restart from this checkpoint goes on with the batch "
                "after it. Call it at the end of the loop's body."
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
        """Note metrics; what is logged last in an epoch is the epoch's.

        Args:
            **metrics: Numbers: floats, NumPy scalars, tensors of one element, Keras metrics'
                results.

        Raises:
            ArgumentError: a value is not one number. All such values are listed.
        """
        numbers = plain_logs(metrics)
        wrong = [f"{name}={metrics[name]!r}" for name in metrics if name not in numbers]
        if wrong:
            raise ArgumentError(
                "Metrics are single numbers.",
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
        """Wait until everything is written, where that happens in the background.

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
            path: A file that a `CheckpointManager` or `BackupAndRestore` wrote.

        Returns:
            Where training was.

        Raises:
            ArtefactNotFoundError: there is nothing at the path.
            ArtefactKindError: it is something else.
            RestoreError: it does not fit what is tracked. Nothing was changed.
            NotBuiltError: a tracked object has no variables, and cannot be built from what is
                known.
        """
        self._note_program()
        with self._announcer.bar("Restoring"):
            restored = self._checkpoints.restore(local_path(path))
        return self._go_on(restored).progress

    def restore_or_initialize(self) -> str | None:
        """Restore the newest good checkpoint, if there is one.

        What stock programs left in the directory is restored, too, all of it or nothing, and its
        files are left alone: the newest checkpoint of a `tf.train.CheckpointManager`, by the names
        of what is tracked, and a backup of Keras' own `BackupAndRestore`, where one model and its
        optimizer are tracked.

        Returns:
            Its path, or `None` where there is nothing to restore.

        Raises:
            RestoreError: it does not fit what is tracked. Nothing was changed.
            NotBuiltError: a tracked object has no variables, and cannot be built from what is
                known.
            DamagedArtefactError: there are checkpoints, and none of them is whole.
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
        # What is not ours counts steps, and no batches.
        self._steps_done = step if restored.beside is STOCK else None
        self._cadence.goes_on(restored.beside.get(CADENCE), done, step)
        return restored

    def _end_of_epoch(self, restored: Restored) -> Restored:
        """Let the epoch whose batches were all done be one that has ended."""
        epoch = restored.progress.epochs_completed
        warn(
            f"{restored.path!r} was saved in epoch {epoch_number(epoch)}, after its last batch and "
            "before its end. Training resumes with the next epoch; what the loop does after its "
            "batches (a validation, for example) was not saved for this epoch, and is not done "
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
                "There is no checkpoint to go on from.",
                received=f"directory={self.directory!r}, resume='must'",
                remedy="Pass `resume='auto'` to begin where there is none, or check the path.",
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
            f"The number of {name} is a whole number from 0.",
            received=f"{name}={total!r}",
            remedy=f"Pass how many {name} the whole run has.",
        )


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def _checked_number(checkpoint_number: Any, options: Any) -> int | None:
    if options is not None:
        raise ArgumentError(
            "A checkpoint is written in one way, for which there are no options.",
            received=f"options={options!r}",
            remedy="Leave `options` out. In place of `enable_async`, pass `background=True` to the "
            "manager.",
        )
    if checkpoint_number is None:
        return None
    array = to_numpy(checkpoint_number) if hasattr(checkpoint_number, "dtype") else None
    number = checkpoint_number if array is None else array.item() if array.size == 1 else None
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ArgumentError(
            "`checkpoint_number` is a whole number from 0.",
            received=f"checkpoint_number={checkpoint_number!r}",
            remedy="Pass an integer or an integer variable, or leave it out.",
        )
    return number


def _one_model(objects: Mapping[str, Any]) -> Any:
    """Return the model that callbacks belong to."""
    models = {name: item for name, item in objects.items() if isinstance(item, keras.Model)}
    return models.get("model", next(iter(models.values()), None))


# Arguments of `tf.train.CheckpointManager` that would be taken for names of tracked objects.
_STOCK_ARGUMENTS = {
    "checkpoint": "pass what it tracks by name, `model=model, optimizer=optimizer`",
    "keep_checkpoint_every_n_hours": "pass a policy, `keep=kct.KeepLast(5) | "
    "kct.KeepEvery(hours=2)`",
    "checkpoint_name": "leave it out: files are called `ckpt-00000001` and so on; give each run "
    "a directory of its own",
    "checkpoint_interval": "pass `save_freq=`, a number of steps",
    "step_counter": "the manager counts steps itself: `save_freq=` is a number of them; to track "
    "a variable of your own, pass it by another name",
    "init_fn": "call it where `manager.restore_or_initialize()` returns `None`",
}


def _without_stock_arguments(objects: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is tracked; arguments of TensorFlow's manager among it have what to do instead.

    Raises:
        ArgumentError: there are some.
    """
    given = {n: v for n, v in objects.items() if n in _STOCK_ARGUMENTS}
    found = [name for name, value in given.items() if value is not None]
    if "checkpoint_interval" not in found:
        # Variables may be called so.
        found = [name for name in found if adapt(name, given[name]) is None]
    if found:
        raise ArgumentError(
            "These are arguments of `tf.train.CheckpointManager`, and not of this one: "
            + ", ".join(found)
            + ".",
            received=", ".join(f"{name}={given[name]!r}" for name in found),
            remedy=" ".join(f"`{name}`: {_STOCK_ARGUMENTS[name]}." for name in found),
        )
    return {
        name: value for name, value in objects.items() if name not in given or value is not None
    }

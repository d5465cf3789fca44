"""The iterators of a hand-written loop: `for` statements -> events.

They are the loop's own `for` statements, so there is no hook that could be forgotten: an epoch has
ended when the loop asks for the next one, and a batch likewise. `CheckpointManager` brings what is
saved, and when; here is only how a loop is followed.

Two things cannot be seen from a `for` statement. Whether a save in the body, or a `break`, comes
after the work of its batch: `marks` decides. And whether a batch was the last one of its epoch: a
save that is due is taken, and written when the next batch is there; if there is none, it belongs to
the end of the epoch. So a resumed loop never gets an epoch without batches.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from keras_ckpt_tools.errors import ArgumentError, CkptError
from keras_ckpt_tools.formats.state import to_numpy
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.cadence import Cadence
from keras_ckpt_tools.training.checkpoints import Checkpoints, Commit
from keras_ckpt_tools.training.interruption import SignalWatch
from keras_ckpt_tools.training.loop_state import LoopState
from keras_ckpt_tools.training.marks import Marked, Marks
from keras_ckpt_tools.training.run import Run, plain_logs

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


class TrainingLoop(abc.ABC):
    """Follows a loop; the base of `CheckpointManager`."""

    _cadence: Cadence
    _checkpoints: Checkpoints
    _run: Run
    _state: LoopState
    _batches_to_skip: int
    _steps_done: int | None
    _phase: str | None
    _save_on_signal: bool
    _signals: SignalWatch

    def __init__(self) -> None:
        self._marked: tuple[Any, Marked] | None = None
        self._under_way: _UnderWay | None = None
        self._epoch: _Epoch | None = None
        self._after: Marks | None = None  # Those of a save in the body that counted its batch.
        self._due = False
        self._ended_at_restart = False  # Whether a restart was all that the last epoch needed.
        self._saving = False
        self._told: set[str] = set()

    @property
    @abc.abstractmethod
    def progress(self) -> TrainingProgress:
        """Where the run is; see `TrainingProgress`."""

    @abc.abstractmethod
    def wait(self) -> None:
        """Wait until everything is written."""

    @abc.abstractmethod
    def _take(self, *, over: bool = False) -> Commit:
        """Take the state of now; return what saves it."""

    @abc.abstractmethod
    def _restore_once(self) -> None:
        """Restore what there is, unless that was done already."""

    @abc.abstractmethod
    def _counting_optimizer(self) -> Any:
        """Return the optimizer that counts the steps, or `None`."""

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

"""The iterators of a hand-written loop: `for` statements -> events.

They are the loop's own `for` statements, so there is no hook that could be forgotten: an epoch has
ended when the loop asks for the next one, and a batch likewise. `CheckpointManager` brings what is
saved, and when; here is only how a loop is followed.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.training.cadence import Cadence
from keras_ckpt_tools.training.checkpoints import Checkpoints
from keras_ckpt_tools.training.interruption import SignalWatch
from keras_ckpt_tools.training.loop_state import LoopState
from keras_ckpt_tools.training.run import Run, plain_logs

Batch = TypeVar("Batch")


class TrainingLoop(abc.ABC):
    """Follows a loop; the base of `CheckpointManager`."""

    _cadence: Cadence
    _checkpoints: Checkpoints
    _run: Run
    _state: LoopState
    _batches_to_skip: int
    _phase: str | None
    _save_on_signal: bool
    _signals: SignalWatch

    @property
    @abc.abstractmethod
    def progress(self) -> TrainingProgress:
        """Where the run is; see `TrainingProgress`."""

    @abc.abstractmethod
    def save(self) -> str:
        """Save now."""

    @abc.abstractmethod
    def wait(self) -> None:
        """Wait until everything is written."""

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
        self._say_if_done("epochs", total, self._run.progress().epochs_completed)
        try:
            for epoch in range(self._run.progress().epochs_completed, total):
                if self._state.stopped:
                    break
                self._run.epoch_begins(epoch)
                self._state.epoch_begins(epoch, self._checkpoints.adapters)
                yield epoch
                self._state.epoch_ends(epoch, self._run.notes)
                self._run.epoch_ends(epoch, self._run.notes)
                if self._cadence.epoch_ends() or self._signals.received:
                    self.save()
                self._leave_on_signal()
        finally:
            self._signals.end()
        self._state.train_ends(self._run.progress().logs)
        self._save_rest()

    def batches(self, dataset: Iterable[Batch]) -> Iterator[Batch]:
        """Iterate over the batches of one epoch, and count the steps.

        After a restart in the middle of an epoch, the batches that were already done are passed
        over; that is exact where the dataset gives the same batches in the same order again.
        `kct.data.ArrayDataset` and `kct.data.resumable` do, and read nothing that is passed over;
        `docs/data.md` says what else does.

        Args:
            dataset: Any iterable: a `tf.data.Dataset`, a list, a generator.

        Yields:
            Its batches.
        """
        done, self._batches_to_skip = self._batches_to_skip, 0
        tracked = any(dataset is item for item in self._checkpoints.objects.values())
        data: Iterable[Batch] = dataset  # Where it is tracked, it is at its place already.
        if not tracked:
            data, done = self._state.place(dataset, self._run.progress().epochs_completed, done)
        for index, batch in enumerate(data, done):
            self._state.batch_begins(index)
            yield batch
            self._batch_ended(index)
            if self._state.stopped:
                break

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
        done = self._run.progress().batches_completed
        self._say_if_done("steps", total, done)
        try:
            for index in range(done, total):
                if self._state.stopped:
                    break
                self._state.batch_begins(index)
                yield index
                self._batch_ended(index)
        finally:
            self._signals.end()
        self._state.train_ends(self._run.progress().logs)
        self._save_rest()

    def _say_if_done(self, name: str, total: int, done: int) -> None:
        ended = self._phase is not None and done == total
        if done >= total > 0 and not ended and not self._state.stopped:
            warnings.warn(
                f"Nothing is left to train: the run of {self._checkpoints.directory!r} has {done} "
                f"{name}, and `{name}({total})` counts those. Pass a larger number to train on. "
                "For another run, pass `resume='never'` or a directory of its own; for a second "
                "loop of the same program, a manager of its own with `phase=`.",
                UserWarning,
                stacklevel=4,
            )

    def _batch_ended(self, index: int) -> None:
        self._state.batch_ends(index, self._run.notes)
        self._run.batch_ends(index)
        if self._counting_optimizer() is None:
            self._run.count_step()
        if self._cadence.batch_ends(index) or self._signals.received:
            self.save()
        self._leave_on_signal()

    def _leave_on_signal(self) -> None:
        if self._signals.received:
            self.wait()
            self._signals.hand_on()

    def _begin(self, epochs: int | None) -> None:
        self._checkpoints.occupy()
        self._restore_once()
        self._state.train_begins(epochs)
        if self._save_on_signal:
            self._signals.begin()

    def _save_rest(self) -> None:
        self.wait()
        if self._unsaved():
            self.save()
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

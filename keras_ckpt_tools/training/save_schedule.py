"""Decide when to save, from the end of batches and epochs.

A schedule only counts events; it does not depend on models or files. Batches are counted as in
Keras: with `steps_per_execution=8` only every eighth index is reported, and the seven in between
count as well.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any, Literal

from keras_ckpt_tools.errors import ArgumentError

SaveFreq = Literal["epoch"] | int | datetime.timedelta


class Cadence:
    """The save schedule: at the end of epochs, after a number of batches, or by time.

    Args:
        save_freq: `"epoch"`, a number of batches from 1, or a `datetime.timedelta`.
        complaint: The start of the message for an invalid value.
        every_n_epochs: Interval in epochs, from 1, if `save_freq` is `"epoch"`.

    Raises:
        ArgumentError: `save_freq` or `every_n_epochs` is invalid.

    Example:

    >>> cadence = Cadence(2)
    >>> [cadence.batch_ends(batch) for batch in range(4)], cadence.epoch_ends()
    ([False, True, False, True], False)
    """

    def __init__(
        self,
        save_freq: SaveFreq,
        complaint: str = "Unrecognized save_freq",
        every_n_epochs: int = 1,
    ):
        if not _is_save_freq(save_freq):
            raise ArgumentError(
                f"{complaint}: `save_freq` must be 'epoch', a number of batches from 1, or a "
                "`datetime.timedelta`.",
                received=f"save_freq={save_freq!r}",
                remedy="Pass 'epoch' to save at the end of each epoch, 100 for every 100 batches, "
                "or `datetime.timedelta(minutes=10)`.",
            )
        wrong = isinstance(every_n_epochs, bool) or not isinstance(every_n_epochs, int)
        if wrong or every_n_epochs < 1 or (every_n_epochs > 1 and save_freq != "epoch"):
            raise ArgumentError(
                "`every_n_epochs` must be an integer from 1, together with `save_freq='epoch'`.",
                received=f"every_n_epochs={every_n_epochs!r}, save_freq={save_freq!r}",
                remedy="Pass `every_n_epochs=5` alone to save at the end of each fifth epoch.",
            )
        self.save_freq = save_freq
        self.every_n_epochs = every_n_epochs
        self.epochs = 0
        self.last_batch: int | None = None
        self.seen = 0
        self._batches = 0
        self._was_due = False
        self._saved_at = time.monotonic()

    def batch_ends(self, batch: int) -> bool:
        """Return whether to save after the batch with this zero-based index."""
        new_epoch = self.last_batch is None or batch <= self.last_batch
        passed = batch + 1 if new_epoch else batch - (self.last_batch or 0)
        self.seen += passed
        self._batches += passed
        self.last_batch = batch
        if isinstance(self.save_freq, datetime.timedelta):
            due = time.monotonic() - self._saved_at >= self.save_freq.total_seconds()
        else:
            due = self.save_freq != "epoch" and self._batches >= self.save_freq
        if due:
            self._was_due = True
            self._batches = 0
            self.saved()
        return due

    @property
    def never_due(self) -> bool:
        """Whether batches or epochs were counted, but too few for a save."""
        if self.every_n_epochs > 1:
            return self.epochs > 0 and not self._was_due
        return isinstance(self.save_freq, int) and self.seen > 0 and not self._was_due

    def epoch_ends(self, epochs_completed: int = 0) -> bool:
        """Return whether to save after an epoch.

        Args:
            epochs_completed: Number of completed epochs; used if not every epoch is saved.
        """
        due = self.save_freq == "epoch" and epochs_completed % self.every_n_epochs == 0
        self.epochs += 1
        self._was_due |= due
        return due

    @property
    def next_save(self) -> str:
        """When the next save is due, in words.

        >>> Cadence(100).next_save
        'every 100 batches; 100 to go'
        """
        if self.save_freq == "epoch":
            every = self.every_n_epochs
            return f"at the end of {'each epoch' if every == 1 else f'every {every} epochs'}"
        if isinstance(self.save_freq, datetime.timedelta):
            gone = datetime.timedelta(seconds=time.monotonic() - self._saved_at)
            left = max(self.save_freq - gone, datetime.timedelta(0)).total_seconds()
            left_s = datetime.timedelta(seconds=round(left))
            return f"at the end of a batch, every {self.save_freq}; {left_s} to go"
        left = self.save_freq - self._batches
        return f"every {self.save_freq} batches; {left} to go"

    def goes_on(self, state: Mapping[str, Any] | None, batch: int, step: int) -> None:
        """Continue counting after a restart, so that saves come at the same positions.

        Args:
            state: The result of `get_state` at the save; `None` if it was not saved. The count is
                then computed from the position.
            batch: Completed batches of the epoch.
            step: Completed steps of the run.
        """
        if state is None or not {"last_batch", "batches"} <= set(state):
            self.starts_at(batch, step)
        else:
            self.set_state(state)
        self.saved()

    def starts_at(self, batch: int, step: int) -> None:
        """Start counting in the middle of a run, so that saves come at the same positions.

        Args:
            batch: Completed batches of the epoch.
            step: Completed steps of the run.
        """
        self.last_batch = batch - 1 if batch else None
        self._batches = step % self.save_freq if isinstance(self.save_freq, int) else 0
        self.saved()

    def saved(self) -> None:
        """Note a save for any reason: the time interval starts again."""
        self._saved_at = time.monotonic()

    def get_state(self) -> dict[str, int | None]:
        """Return the counts; the time is not saved."""
        return {"last_batch": self.last_batch, "batches": self._batches}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue counting from the result of `get_state`."""
        self.last_batch, self._batches = state["last_batch"], state["batches"]


def _is_save_freq(value: object) -> bool:
    if isinstance(value, datetime.timedelta):
        return value > datetime.timedelta(0)
    if isinstance(value, bool):
        return False
    return value == "epoch" or (isinstance(value, int) and value >= 1)

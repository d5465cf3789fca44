"""The position in the data: epoch and batch, and the protocol of datasets that can start there.

To resume, a run needs "the order of epoch 3, from batch 120 on". If the order depends only on the
epoch, that is one call, `start(3, 120)`, and no state has to be saved.

A pass begins when its first batch is requested, not when its iterator is created. Keras creates one
more iterator than it uses at the end of each epoch, and would otherwise skip every second epoch.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from keras_ckpt_tools.errors import ArgumentError


@runtime_checkable
class Positioned(Protocol):
    """Data that can begin a pass at any batch of any epoch.

    What is asked for after `start(epoch, batch)` is the same in every process and however often,
    so a run that was killed can be given the batches that it would have had.
    """

    def start(self, epoch: int, batch: int = 0) -> None:
        """Let the next pass be that of `epoch`, from `batch` on; later passes follow on.

        A pass that is under way is not changed.

        Args:
            epoch: Zero-based; whose order it is.
            batch: Zero-based; the first batch of that epoch that is given out.
        """


def is_positioned(data: Any) -> TypeGuard[Positioned]:
    """Return whether data can begin at any batch of any epoch.

    >>> is_positioned(range(3))  # which has a number of that name
    False
    """
    return isinstance(data, Positioned) and callable(data.start)


@dataclass
class NextPass:
    """The position at which the next pass begins; shared by all that stand for one dataset."""

    epoch: int = 0
    batch: int = 0

    def set(self, epoch: int, batch: int, batches: int | None) -> None:
        """Set it, once it is known to be one.

        Args:
            epoch: Zero-based.
            batch: Zero-based.
            batches: How many batches an epoch has; `None` where that is not known.

        Raises:
            ArgumentError: It is no place in the data.
        """
        problems = [
            f"{name}={value!r} is no zero-based index."
            for name, value in (("epoch", epoch), ("batch", batch))
            if not is_whole_number(value) or value < 0
        ]
        if not problems and batches is not None and batch > batches:
            problems = [f"batch={batch} is beyond the {batches} batches of an epoch."]
        if problems:
            raise ArgumentError(
                "There is no such position in the data: " + " ".join(problems),
                received=f"epoch={epoch!r}, batch={batch!r}",
                remedy="Pass the zero-based epoch and the number of its batches that are done. If "
                "they come from a checkpoint, the data or the batch size has changed since.",
            )
        self.epoch, self.batch = operator.index(epoch), operator.index(batch)

    def take(self) -> tuple[int, int]:
        """Return the position for a pass that begins now; the pass after it is the next epoch."""
        taken = self.epoch, self.batch
        self.epoch, self.batch = self.epoch + 1, 0
        return taken


def pass_and_batch(
    epoch: int,
    batch: int,
    *,
    batches: int | None,
    steps_per_epoch: int | None = None,
    steps_per_execution: int = 1,
) -> tuple[int, int]:
    """Return which pass over the data `fit()` is in, and how far, at a place in its epochs.

    Without `steps_per_epoch` each epoch is one pass. With it, Keras keeps one iterator for several
    epochs and makes a new one when the data has ended; so `epoch` is not what `start` needs.

    Args:
        epoch: Zero-based, of `fit()`.
        batch: Zero-based, within that epoch.
        batches: How many batches a pass over the data has; `None` where that is not known, or
            where it has no end.
        steps_per_epoch: As it was given to `fit()`.
        steps_per_execution: As it was given to `compile()`.

    Returns:
        The zero-based pass and the zero-based batch within it.

    Example:

    >>> pass_and_batch(5, 1, batches=10, steps_per_epoch=4)
    (1, 9)
    >>> pass_and_batch(5, 1, batches=None, steps_per_epoch=4)
    (0, 21)
    """
    if steps_per_epoch is None:
        return epoch, batch
    # An execution is not cut short at the end of an epoch, so an epoch is a number of them.
    taken = -(-steps_per_epoch // steps_per_execution) * steps_per_execution
    if batches is None:
        return 0, epoch * taken + batch
    # Keras never lets an epoch reach over the end of the data into the next pass.
    epochs = -(-batches // taken)
    return epoch // epochs, epoch % epochs * taken + batch


def is_whole_number(value: Any) -> bool:
    """Return whether `value` is an integer of Python or NumPy, and not a truth value."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


def shuffled(samples: int, seed: int, epoch: int) -> NDArray[np.intp]:
    """Return the indices of all samples in the order of one epoch.

    Args:
        samples: How many there are.
        seed: Non-negative.
        epoch: Zero-based.

    Example:

    >>> shuffled(8, seed=7, epoch=0)
    array([0, 5, 2, 3, 4, 7, 6, 1])
    """
    # As a list, `[seed, epoch]` would be one number for some pairs of seeds and epochs.
    stream = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    return np.argsort(stream.random_raw(samples), kind="stable")

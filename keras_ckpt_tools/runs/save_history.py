"""Record the positions of all saves of a run, including deleted ones.

A directory shows only the retained checkpoints. So each file records the positions of all saves by
its writer up to its own. Saves have regular intervals, so positions are stored as progressions: a
run with ten thousand saved epochs has one entry, and each restart or irregular save adds one.
"""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from keras_ckpt_tools.metadata import TrainingProgress

Progressions = tuple[tuple[int, ...], ...]


class Place(NamedTuple):
    """A position in a run.

    Attributes:
        epochs: Completed epochs.
        batches: Completed batches of the next epoch.
        step: Optimizer updates since the start of the run.
    """

    epochs: int
    batches: int
    step: int


def place_of(progress: TrainingProgress) -> Place:
    """Return the position of a run."""
    return Place(progress.epochs_completed, progress.batches_completed, progress.step)


def places(trail: Progressions, most: int | None = None) -> Iterator[Place]:
    """Yield the positions of a save history in order.

    Args:
        trail: Progressions as in a record: `(epochs, batches, step)` for one position, or
            `(epochs, batches, step, more, ...)` with the number of further ones and their distance.
        most: Maximum number of positions; a file may contain any number.

    >>> [place.step for place in places([(1, 0, 40, 2, 1, 0, 40), (3, 7, 127)])]
    [40, 80, 120, 127]
    """
    return itertools.islice(_unfolded(trail), most)


def _unfolded(trail: Progressions) -> Iterator[Place]:
    for one in trail:
        first, (more, *stride) = one[:3], (*one[3:], *(0,) * (7 - len(one)))
        for n in range(more + 1):
            yield Place(*(a + n * b for a, b in zip(first, stride, strict=True)))


def follow(trail: Progressions, place: Place) -> Progressions:
    """Return the history with another position; later positions are removed, as they are repeated.

    >>> follow(follow(follow((), Place(1, 0, 40)), Place(2, 0, 80)), Place(3, 0, 120))
    ((1, 0, 40, 2, 1, 0, 40),)
    """
    kept = list(trail)
    while kept and _last(kept[-1]) >= place:
        shorter = _before(kept.pop(), place)
        kept += [shorter] if shorter else []
    if not kept:
        return (tuple(place),)
    stride = tuple(a - b for a, b in zip(place, _last(kept[-1]), strict=True))
    more = kept[-1][3] if len(kept[-1]) > 3 else 0
    if more and kept[-1][4:] != stride:
        return (*kept, tuple(place))
    return (*kept[:-1], (*kept[-1][:3], more + 1, *stride))


def _last(one: tuple[int, ...]) -> tuple[int, ...]:
    return _nth(one, one[3]) if len(one) > 3 else one


def _nth(one: tuple[int, ...], number: int) -> tuple[int, ...]:
    return tuple(a + number * b for a, b in zip(one[:3], one[4:] or (0, 0, 0), strict=True))


def _before(one: tuple[int, ...], place: Place) -> tuple[int, ...]:
    """Return the part of a progression before a position; empty if there is none."""
    # Computed, not searched: a file may contain any number.
    count = bisect_left(
        range((one[3] if len(one) > 3 else 0) + 1), tuple(place), key=partial(_nth, one)
    )
    if not count:
        return ()
    return one[:3] if count == 1 else (*one[:3], count - 1, *one[4:])


class Trail:
    """Records the saves of one writer, across restarts."""

    def __init__(self) -> None:
        self._run_id: str | None = None
        self._saves: Progressions = ()

    def extend(
        self, progress: TrainingProgress, before: Callable[[], Iterable[TrainingProgress]]
    ) -> TrainingProgress:
        """Return the progress with the positions of all saves, including the one under way.

        Args:
            progress: The position of training.
            before: Returns the records in the existing files of the same writer; called once a run.
        """
        if self._run_id != progress.run_id:
            mine = [one for one in before() if one.run_id == progress.run_id]
            self._saves = max(mine, key=lambda one: one.saved_at).saves if mine else ()
            self._run_id = progress.run_id
        self._saves = follow(self._saves, place_of(progress))
        return dataclasses.replace(progress, saves=self._saves)

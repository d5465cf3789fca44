"""Where the saves of a run were, those that are deleted by now included: commit -> *trail*.

A directory shows what was kept. What else was saved on the way is known to nobody once it is
deleted, so each file says where all saves of its writer up to its own were. Saves come at regular
distances, so places are kept as progressions: a run that saved ten thousand epochs has one entry,
and each restart or irregular save adds one.
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
    """A place in a run.

    Attributes:
        epochs: Epochs completed.
        batches: Batches done of the next one.
        step: Optimizer updates since the run began.
    """

    epochs: int
    batches: int
    step: int


def place_of(progress: TrainingProgress) -> Place:
    """Return where a run is."""
    return Place(progress.epochs_completed, progress.batches_completed, progress.step)


def places(trail: Progressions, most: int | None = None) -> Iterator[Place]:
    """Yield the places of a trail in order.

    Args:
        trail: Progressions as a record has them: `(epochs, batches, step)` for one place, and
            with it `(more, epochs, batches, step)`: how many more, and how far apart.
        most: Where to stop; a file may claim any number.

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
    """Return a trail that goes on at a place; what lies behind it is about to be repeated.

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
    """Return the part of a progression in front of a place; empty where there is none."""
    # Not one by one: a file may claim any number.
    count = bisect_left(
        range((one[3] if len(one) > 3 else 0) + 1), tuple(place), key=partial(_nth, one)
    )
    if not count:
        return ()
    return one[:3] if count == 1 else (*one[:3], count - 1, *one[4:])


class Trail:
    """Notes the saves of one writer, across restarts."""

    def __init__(self) -> None:
        self._run_id: str | None = None
        self._saves: Progressions = ()

    def extend(
        self, progress: TrainingProgress, before: Callable[[], Iterable[TrainingProgress]]
    ) -> TrainingProgress:
        """Return the progress with all saves of its run, the one that is about to be made included.

        Args:
            progress: Where training is.
            before: What the files say that the same writer left; asked once for each run.
        """
        if self._run_id != progress.run_id:
            mine = [one for one in before() if one.run_id == progress.run_id]
            self._saves = max(mine, key=lambda one: one.saved_at).saves if mine else ()
            self._run_id = progress.run_id
        self._saves = follow(self._saves, place_of(progress))
        return dataclasses.replace(progress, saves=self._saves)

"""Measure contenders side by side: each once in every round, and the median over the rounds.

What a shared machine does to one of them it does to all, so the ratios within a run are worth more
than its times. A contender that fails is reported with its reason; the others go on.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Contender:
    """One way to do a thing.

    Attributes:
        name: What it is called in the results.
        run: Does it; only this is timed.
        before: Prepares it.
        after: Finishes what it left to others (a save in the background), and cleans up.
        measure: How to measure `run`, in seconds, where that is not simply its duration.
    """

    name: str
    run: Callable[[], Any]
    before: Callable[[], Any] = _nothing
    after: Callable[[], Any] = _nothing
    measure: Callable[[], float] | None = None


@dataclass
class Timings:
    """What came out, by the name of the contender: seconds, or why there are none."""

    seconds: dict[str, list[float]]
    failed: dict[str, str]

    def medians(self) -> dict[str, float]:
        """Return the median of each."""
        return {name: statistics.median(each) for name, each in self.seconds.items() if each}


def interleaved(contenders: Iterable[Contender], rounds: int, *, warm_up: bool = True) -> Timings:
    """Run all contenders in every round, each round beginning with another one.

    Args:
        contenders: What to measure.
        rounds: How often.
        warm_up: Whether each runs once before, unmeasured.
    """
    left = list(contenders)
    timings = Timings({one.name: [] for one in left}, {})
    for number in range(-1 if warm_up else 0, rounds):
        turn = max(number, 0) % max(len(left), 1)
        for one in left[turn:] + left[:turn]:
            try:
                seconds = _measure(one)
            except Exception as error:  # noqa: BLE001 (a peer's failure is a result)
                timings.failed[one.name] = f"{type(error).__name__}: {error}"
                left.remove(one)
                continue
            if number >= 0:
                timings.seconds[one.name].append(seconds)
    return timings


def _measure(one: Contender) -> float:
    one.before()
    gc.collect()
    gc.disable()
    try:
        if one.measure is not None:
            return one.measure()
        start = time.perf_counter()
        one.run()
        return time.perf_counter() - start
    finally:
        gc.enable()
        one.after()

"""Decide which checkpoints are retained.

Retention is separate from saving: a policy sees the metadata of the existing checkpoints and
returns those to keep. It changes no file, so it can be tested with tables and tried on a directory.
`newest_first` and `best_first` also decide which checkpoint is the newest and which the best, for
all code that lists, loads, resumes or deletes.
Policies combine with `|`: what any of them keeps is retained. The newest checkpoint, the best one
and the one being resumed from are never deleted; see `to_delete`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.showing.tables import as_html


class Policy:
    """Decide which checkpoints are retained: base class of `KeepLast`, `KeepBest`, `KeepEvery`.

    To write a custom policy, override `keeps`. It is called after each save with the existing
    checkpoints, and policies combine with `|`. The newest checkpoint, the best one and the one
    being resumed from are always retained.

    Example:

    >>> class KeepRound(Policy):
    ...     def keeps(self, saved):
    ...         return {item.path for item in saved if item.progress.step % 1000 == 0}
    >>> saved = [CheckpointEntry(f"{n}.weights.h5", n, TrainingProgress(n, step=n * 500))
    ...          for n in (1, 2, 3)]
    >>> sorted((KeepRound() | KeepLast(1)).keeps(saved))
    ['2.weights.h5', '3.weights.h5']
    """

    def keeps(self, saved: Sequence[CheckpointEntry]) -> set[str]:
        """Return the paths of the checkpoints to keep.

        Args:
            saved: The existing checkpoints, oldest first.
        """
        return {item.path for item in saved}

    def __or__(self, other: Policy) -> Policy:
        return _Union((self, other))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __str__(self) -> str:
        return "; ".join(self.rules())

    def _repr_html_(self) -> str:
        return as_html("What stays", ("rule",), [(rule,) for rule in self.rules()])

    def rules(self) -> tuple[str, ...]:
        """Return what is kept, in words, one string for each combined policy."""
        return ("every checkpoint" if type(self) is Policy else repr(self),)


@dataclass(frozen=True, repr=False)
class _Union(Policy):
    parts: tuple[Policy, ...]

    def keeps(self, saved: Sequence[CheckpointEntry]) -> set[str]:
        return set().union(*(part.keeps(saved) for part in self.parts))

    def rules(self) -> tuple[str, ...]:
        return tuple(rule for part in self.parts for rule in part.rules())

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.parts))


@dataclass(frozen=True)
class KeepLast(Policy):
    """Keep the newest checkpoints.

    A state that was saved twice, as at a restart, counts once and does not displace older ones.

    Args:
        n: Number of checkpoints to keep, from 1.

    Raises:
        ArgumentError: `n` is not an integer from 1.

    Example:

    >>> saved = [CheckpointEntry(f"{n}.weights.h5", n, TrainingProgress(n)) for n in (1, 2, 3)]
    >>> sorted(KeepLast(2).keeps(saved))
    ['2.weights.h5', '3.weights.h5']
    """

    n: int

    def __post_init__(self) -> None:
        _check_count("KeepLast", self.n)

    def keeps(self, saved: Sequence[CheckpointEntry]) -> set[str]:
        return {item.path for item in _distinct(saved)[-self.n :]}

    def rules(self) -> tuple[str, ...]:
        return ("the newest" if self.n == 1 else f"the newest {self.n}",)


@dataclass(frozen=True)
class KeepBest(Policy):
    """Keep the checkpoints with the best value of a metric.

    Checkpoints saved without the metric are kept until there are `n` with a value.

    Args:
        n: Number of checkpoints to keep, from 1.
        monitor: Name of the metric in the logs.
        mode: `"min"` or `"max"`.

    Raises:
        ArgumentError: an argument is invalid.

    Example:

    >>> saved = [CheckpointEntry(f"{v}.weights.h5", i, TrainingProgress(i, logs={"val_loss": v}))
    ...          for i, v in enumerate((0.3, 0.1, 0.2))]
    >>> KeepBest(1, "val_loss", "min").keeps(saved)
    {'0.1.weights.h5'}
    """

    n: int
    monitor: str = "val_loss"
    mode: str = "min"

    def __post_init__(self) -> None:
        _check_count("KeepBest", self.n)
        if self.mode not in ("min", "max"):
            raise ArgumentError(
                "The `mode` of `KeepBest` must be 'min' or 'max'.",
                received=f"mode={self.mode!r}",
                remedy="Pass 'min' for a loss, 'max' for an accuracy.",
            )

    def keeps(self, saved: Sequence[CheckpointEntry]) -> set[str]:
        ranked = best_first(_distinct(saved), self.monitor, self.mode)
        stays = {item.path for item in ranked[: self.n]}
        if len(ranked) < self.n:
            # There is nothing better than those without a value, or the name is misspelled.
            stays |= {
                item.path for item in saved if not ranked or self.monitor not in item.progress.logs
            }
        return stays

    def rules(self) -> tuple[str, ...]:
        which = "lowest" if self.mode == "min" else "highest"
        count = "one" if self.n == 1 else self.n
        return (f"the {count} with the {which} {self.monitor}",)


@dataclass(frozen=True, repr=False)
class KeepEvery(Policy):
    """Keep checkpoints at regular intervals: in epochs, in steps or in time.

    Args:
        n: Interval in epochs, from 1: the checkpoints at the end of each n-th epoch. In a run
            without epochs (`manager.steps`), interval in steps.
        steps: Interval in steps instead, from 1: the first checkpoint at or after each multiple.
        hours: Interval in hours instead, above 0: the first checkpoint, and each that was saved at
            least this long after the last one kept.

    Raises:
        ArgumentError: not exactly one of them is passed, or the value is invalid.

    Example:

    >>> saved = [CheckpointEntry(f"{n}.weights.h5", n, TrainingProgress(n, step=n * 40))
    ...          for n in range(1, 7)]
    >>> sorted(KeepEvery(3).keeps(saved))
    ['3.weights.h5', '6.weights.h5']
    >>> sorted(KeepEvery(steps=100).keeps(saved))
    ['3.weights.h5', '5.weights.h5']
    """

    n: int | None = None
    steps: int | None = field(default=None, kw_only=True)
    hours: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        given = [one for one in (self.n, self.steps, self.hours) if one is not None]
        if len(given) != 1:
            raise ArgumentError(
                "`KeepEvery` takes one interval: an integer from 1 of epochs or of `steps`, or a "
                "number of `hours`.",
                received=f"n={self.n!r}, steps={self.steps!r}, hours={self.hours!r}",
                remedy="Pass `KeepEvery(10)`, `KeepEvery(steps=1000)` or `KeepEvery(hours=2)`; "
                "`KeepEvery(10) | KeepEvery(hours=2)` keeps what either does.",
            )
        if self.hours is None:
            _check_count("KeepEvery", given[0])
        elif (
            isinstance(self.hours, bool)
            or not isinstance(self.hours, (int, float))
            or not 0 < self.hours < math.inf
        ):
            raise _no_hours(self.hours)

    def keeps(self, saved: Sequence[CheckpointEntry]) -> set[str]:
        if self.hours is not None:
            return self._by_time(saved, self.hours * 3600)
        if self.steps is not None:
            return self._by_steps(saved, self.steps)
        assert self.n is not None
        if not any(item.progress.epochs_completed for item in saved):
            return self._by_steps(saved, self.n)
        return {
            item.path
            for item in saved
            if item.progress.epochs_completed
            and item.progress.epochs_completed % self.n == 0
            and not item.progress.batches_completed
        }

    def _by_steps(self, saved: Sequence[CheckpointEntry], distance: int) -> set[str]:
        stays: dict[int, str] = {}
        for item in saved:
            multiple = (item.progress.step or item.progress.batches_completed) // distance
            if multiple:
                stays.setdefault(multiple, item.path)
        return set(stays.values())

    def _by_time(self, saved: Sequence[CheckpointEntry], distance_s: float) -> set[str]:
        stays: set[str] = set()
        last = -math.inf
        for item in saved:
            if item.progress.saved_at - last >= distance_s:
                stays.add(item.path)
                last = item.progress.saved_at
        return stays

    def __repr__(self) -> str:
        given = {"n": self.n, "steps": self.steps, "hours": self.hours}
        return "KeepEvery({}={!r})".format(*next(i for i in given.items() if i[1] is not None))

    def rules(self) -> tuple[str, ...]:
        if self.hours is not None:
            return (f"one every {self.hours:g} hours",)
        if self.steps is not None:
            return (f"one every {self.steps} steps",)
        return (f"each with a multiple of {self.n} epochs completed",)


def _no_hours(hours: object) -> ArgumentError:
    return ArgumentError(
        "`hours` must be a number above 0.",
        received=f"hours={hours!r}",
        remedy="Pass `KeepEvery(hours=2)` to keep one checkpoint every two hours.",
    )


def policy_from(max_to_keep: int | None, keep: Policy | None) -> Policy:
    """Return the policy from two arguments of a callback or manager.

    Args:
        max_to_keep: Short for `KeepLast(max_to_keep)`; `None` keeps all.
        keep: A policy.

    Raises:
        ArgumentError: both are passed, or one is invalid.
    """
    if keep is not None and max_to_keep is not None:
        raise ArgumentError(
            "`max_to_keep` and `keep` cannot be combined.",
            received=f"max_to_keep={max_to_keep!r}, keep={keep!r}",
            remedy=f"Pass only `keep`: `keep=kct.KeepLast({max_to_keep}) | ...`.",
        )
    if keep is not None and not isinstance(keep, Policy):
        raise ArgumentError(
            "`keep` must be a retention policy.",
            received=f"keep={keep!r}",
            remedy='Pass `kct.KeepLast(3)`, or `kct.KeepLast(3) | kct.KeepBest(1, "val_loss")`.',
        )
    if keep is not None:
        return keep
    if max_to_keep is None:
        return Policy()
    _check_count("max_to_keep", max_to_keep)
    return KeepLast(max_to_keep)


def to_delete(
    saved: Sequence[CheckpointEntry],
    policy: Policy,
    *,
    best: str | None = None,
    pinned: Collection[str] = (),
) -> list[CheckpointEntry]:
    """Return the paths to delete: those that the policy does not keep, except the newest and best.

    If the newest contains NaN, the newest without NaN is also retained: a restart resumes from it.

    Args:
        saved: The existing checkpoints, oldest first.
        policy: The retention policy.
        best: Path of the best checkpoint, if known.
        pinned: Further paths to retain, such as the one a run was resumed from.
    """
    if not saved:
        return []
    finite = next((item.path for item in reversed(saved) if item.finite), None)
    stays = policy.keeps(saved) | {saved[-1].path, finite, best, *pinned}
    return [item for item in saved if item.path not in stays]


def newest_first(entries: Iterable[CheckpointEntry]) -> list[CheckpointEntry]:
    """Return checkpoints in the order of their saves, the newest first.

    Between runs, the recorded time of the save decides: file names are chosen by the user, a copied
    file has another modification time, and another run counts its epochs from 0 again. Within a
    run, a clock that was set back has no effect: numbered checkpoints are sorted by number, others
    by epoch, batch and step.

    >>> runs = [CheckpointEntry(f"{n}.weights.h5", n, TrainingProgress(e, saved_at=60.0 * n))
    ...         for n, e in ((1, 5), (2, 1))]
    >>> [item.path for item in newest_first(runs)]
    ['2.weights.h5', '1.weights.h5']
    """
    entries = list(entries)
    times: dict[str, float] = {}
    numbered = sorted((e for e in entries if e.number is not None), key=lambda e: e.number or 0)
    others: dict[str, list[CheckpointEntry]] = {}
    for one in entries:
        if one.number is None and one.progress.run_id:
            others.setdefault(one.progress.run_id, []).append(one)
    groups = [sorted(e, key=lambda e: (e.progress.place, e.saved_at)) for e in others.values()]
    for group in (numbered, *groups):
        latest = -math.inf
        for one in group:
            times[one.path] = latest = max(latest, one.saved_at)

    def order(one: CheckpointEntry) -> tuple[object, ...]:
        time = times.get(one.path, one.saved_at)
        return time, one.number or 0, one.progress.place, one.path

    return sorted(entries, key=order, reverse=True)


def best_first(
    entries: Iterable[CheckpointEntry], monitor: str | None = None, mode: str | None = None
) -> list[CheckpointEntry]:
    """Return the checkpoints with a finite value of a metric, the best first.

    Those of the newest run count, and those of an earlier run whose best value it has continued:
    values of other runs are not comparable. If none of these has a value, all others count. Of
    equal values, the earliest comes first, as with `save_best_only`.

    Args:
        entries: The checkpoints, in any order.
        monitor: Name of the metric. Default: the monitored metric of the newest checkpoint.
        mode: `"min"` or `"max"`.
    """
    newest = newest_first(entries)
    if monitor is None:
        monitored = next((one.progress.best for one in newest if one.progress.best), None)
        if monitored is None:
            return []
        monitor, mode = monitored.monitor, monitored.mode
    sign = -1.0 if mode == "max" else 1.0
    values = [(_value_of(one.progress, monitor), one) for one in reversed(newest)]
    finite = [(sign * value, one) for value, one in values if math.isfinite(value)]
    run_id = newest[0].progress.run_id if newest else ""
    carried = {
        one.progress.best.value
        for one in newest
        if one.progress.run_id == run_id
        and one.progress.best is not None
        and one.progress.best.monitor == monitor
    }
    mine = [
        (value, one)
        for value, one in finite
        if one.progress.run_id == run_id or sign * value in carried
    ]
    ranked = sorted(mine or finite, key=lambda pair: (pair[0], pair[1].progress.run_id != run_id))
    return [one for _, one in ranked]


def best_of(
    entries: Iterable[CheckpointEntry], monitor: str | None = None, mode: str | None = None
) -> CheckpointEntry | None:
    """Return the first checkpoint of `best_first`, or `None` if none has a value."""
    return next(iter(best_first(entries, monitor, mode)), None)


def _value_of(progress: TrainingProgress, monitor: str) -> float:
    value, best = progress.logs.get(monitor), progress.best
    if value is None and best is not None and best.monitor == monitor:
        # The best epoch is the one that has just ended.
        ended = progress.ended_epoch
        at_its_end = not progress.batches_completed and ended is not None and best.epoch == ended
        value = best.value if at_its_end else None
    return math.nan if value is None else value


def _distinct(saved: Sequence[CheckpointEntry]) -> list[CheckpointEntry]:
    """Return the checkpoints; of several with the same position and state, only the newest."""
    groups: dict[object, list[CheckpointEntry]] = {}
    for item in saved:
        here = item.progress
        place = here.epochs_completed, here.batches_completed, here.step
        groups.setdefault((here.run_id, place), []).append(item)
    gone: set[str] = set()
    for group in groups.values():
        states = [item.digest() for item in group] if len(group) > 1 else []
        gone |= {
            item.path
            for n, item in enumerate(group[:-1])
            if states[n] and states[n] in states[n + 1 :]
        }
    return [item for item in saved if item.path not in gone]


def _check_count(name: str, n: object) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError(
            f"`{name}` must be an integer from 1.",
            received=f"{name}={n!r}",
            remedy="Pass the number of checkpoints to keep, or omit it to keep all.",
        )

"""Decide which checkpoints stay: commit -> *keep*.

Saving and keeping are apart: a policy sees the metadata of what is there and names what stays. It
touches no file, so it can be tested by tables and tried on a directory without deleting anything.
Policies combine with `|`: what any of them keeps, stays. Whatever they say, the newest checkpoint,
the best one and the one being resumed from are never deleted; see `to_delete`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.showing.tables import as_html

__all__ = ["KeepBest", "KeepEvery", "KeepLast", "Policy", "Saved", "best_of", "to_delete"]


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is there.

    Attributes:
        path: Its file.
        number: Its place in the order of saves, from 1.
        progress: Where training was.
        holds: Names of what it holds beside tracked objects, which tell who wrote it.
        phase: Which `fit()` of a program it is of; see `training.phases`.
    """

    path: str
    number: int
    progress: TrainingProgress
    holds: frozenset[str] = frozenset()
    phase: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


class Policy:
    """Base of the policies; write your own by giving `keeps`."""

    def keeps(self, saved: Sequence[Saved]) -> set[str]:
        """Return the paths that stay.

        Args:
            saved: What is there, oldest first.
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
        """Return what is kept, in words, one for each policy that this one is made of."""
        return ("every checkpoint" if type(self) is Policy else repr(self),)


@dataclass(frozen=True, repr=False)
class _Union(Policy):
    parts: tuple[Policy, ...]

    def keeps(self, saved: Sequence[Saved]) -> set[str]:
        return set().union(*(part.keeps(saved) for part in self.parts))

    def rules(self) -> tuple[str, ...]:
        return tuple(rule for part in self.parts for rule in part.rules())

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.parts))


@dataclass(frozen=True)
class KeepLast(Policy):
    """Keep the newest checkpoints.

    Args:
        n: How many, from 1.

    Raises:
        ArgumentError: `n` is not a whole number from 1.

    Example:

    >>> saved = [Saved(f"{n}.weights.h5", n, TrainingProgress(n)) for n in (1, 2, 3)]
    >>> sorted(KeepLast(2).keeps(saved))
    ['2.weights.h5', '3.weights.h5']
    """

    n: int

    def __post_init__(self) -> None:
        _check_count("KeepLast", self.n)

    def keeps(self, saved: Sequence[Saved]) -> set[str]:
        return {item.path for item in saved[-self.n :]}

    def rules(self) -> tuple[str, ...]:
        return ("the newest" if self.n == 1 else f"the newest {self.n}",)


@dataclass(frozen=True)
class KeepBest(Policy):
    """Keep the checkpoints with the best value of a metric.

    Args:
        n: How many, from 1.
        monitor: Name of the metric in the logs.
        mode: `"min"` or `"max"`.

    Raises:
        ArgumentError: an argument is none of these.

    Example:

    >>> saved = [Saved(f"{v}.weights.h5", i, TrainingProgress(i, logs={"val_loss": v}))
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
                "The mode of `KeepBest` is 'min' or 'max'.",
                received=f"mode={self.mode!r}",
                remedy="Pass 'min' for a loss, 'max' for an accuracy.",
            )

    def keeps(self, saved: Sequence[Saved]) -> set[str]:
        ranked = _ranked(saved, self.monitor, self.mode)
        # A metric that was never logged may be a misspelled one: nothing is deleted for its sake.
        return {item.path for item in ranked[: self.n] or saved}

    def rules(self) -> tuple[str, ...]:
        which = "lowest" if self.mode == "min" else "highest"
        count = "one" if self.n == 1 else self.n
        return (f"the {count} with the {which} {self.monitor}",)


@dataclass(frozen=True)
class KeepEvery(Policy):
    """Keep the checkpoint of every n-th epoch.

    Args:
        n: Distance in epochs, from 1.

    Raises:
        ArgumentError: `n` is not a whole number from 1.

    Example:

    >>> saved = [Saved(f"{n}.weights.h5", n, TrainingProgress(n)) for n in range(1, 7)]
    >>> sorted(KeepEvery(3).keeps(saved))
    ['3.weights.h5', '6.weights.h5']
    """

    n: int

    def __post_init__(self) -> None:
        _check_count("KeepEvery", self.n)

    def keeps(self, saved: Sequence[Saved]) -> set[str]:
        return {
            item.path
            for item in saved
            if item.progress.epochs_completed
            and item.progress.epochs_completed % self.n == 0
            and not item.progress.batches_completed
        }

    def rules(self) -> tuple[str, ...]:
        return (f"each with a multiple of {self.n} epochs completed",)


def policy_from(max_to_keep: int | None, keep: Policy | None) -> Policy:
    """Return the policy that two arguments of a callback or manager mean together.

    Args:
        max_to_keep: Short for `KeepLast(max_to_keep)`; `None` keeps all.
        keep: A policy.

    Raises:
        ArgumentError: both are given, or one is not what it should be.
    """
    if keep is not None and max_to_keep is not None:
        raise ArgumentError(
            "`max_to_keep` and `keep` both say what stays.",
            received=f"max_to_keep={max_to_keep!r}, keep={keep!r}",
            remedy=f"Pass one: `keep=kct.KeepLast({max_to_keep}) | ...` says both.",
        )
    if keep is not None and not isinstance(keep, Policy):
        raise ArgumentError(
            "`keep` takes a retention policy.",
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
    saved: Sequence[Saved],
    policy: Policy,
    *,
    best: str | None = None,
    pinned: Collection[str] = (),
) -> list[Saved]:
    """Return what may go: what the policy does not keep, but never the newest or the best.

    Args:
        saved: What is there, oldest first.
        policy: What stays.
        best: Path of the best checkpoint, where one is known.
        pinned: Further paths that stay, such as the one a run was resumed from.
    """
    if not saved:
        return []
    stays = policy.keeps(saved) | {saved[-1].path, best, *pinned}
    return [item for item in saved if item.path not in stays]


def best_of(saved: Sequence[Saved], monitor: str, mode: str) -> Saved | None:
    """Return the checkpoint with the best value of a metric; the earliest of equals."""
    ranked = _ranked(saved, monitor, mode)
    return ranked[0] if ranked else None


def _ranked(saved: Sequence[Saved], monitor: str, mode: str) -> list[Saved]:
    sign = -1.0 if mode == "max" else 1.0
    finite = [s for s in saved if math.isfinite(s.progress.logs.get(monitor, math.nan))]
    return sorted(finite, key=lambda s: (sign * s.progress.logs[monitor], s.number))


def _check_count(name: str, n: object) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError(
            f"`{name}` takes a whole number from 1.",
            received=f"{name}={n!r}",
            remedy="Pass how many checkpoints to keep, or leave it out to keep all.",
        )

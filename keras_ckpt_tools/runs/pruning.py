"""Plan which checkpoints of a directory a retention policy deletes.

This is what a run does after each save, started by the user. So the rules are the same: policies
apply to the files of one run and one writer (a manager, a `BackupAndRestore`, or one pattern of a
`ModelCheckpoint`), and the newest and the best are always retained. Two rules are added. Older
files are deleted only if the newest is completely intact, because otherwise a restart needs them.
And a file with a record of the run but another name is a copy by a user, which is retained.
"""

from __future__ import annotations

import dataclasses
import os
import re
import string
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from keras_ckpt_tools.metadata import epoch_number
from keras_ckpt_tools.runs.checkpoints import DOORS
from keras_ckpt_tools.runs.listing import CheckpointEntry, Run, State
from keras_ckpt_tools.runs.retention import Policy, best_of, newest_first, to_delete

# The pattern comes from a file, so limit the time and the size of the result.
_ANYTHING = ".+"
_MOST_UNKNOWN = 3
_TOO_WIDE = re.compile(r"\d{3}")


@dataclass(frozen=True)
class Verdict:
    """The decision about one file.

    Attributes:
        checkpoint: The file.
        goes: Whether to delete it.
        why: Why it is retained; an empty string if it is deleted.
    """

    checkpoint: CheckpointEntry
    goes: bool
    why: str


@dataclass(frozen=True)
class Plan:
    """The decisions about the files of a directory, in their order.

    Attributes:
        path: The directory.
        verdicts: One for each file.
        damaged: The damage of files that are retained because of it, as `(path, damage)`.
    """

    path: str
    verdicts: tuple[Verdict, ...]
    damaged: tuple[tuple[str, str], ...] = ()

    @property
    def goes(self) -> tuple[CheckpointEntry, ...]:
        """The files to delete."""
        return tuple(one.checkpoint for one in self.verdicts if one.goes)

    @property
    def nbytes(self) -> int:
        """Bytes that deleting them frees."""
        return sum(one.size for one in self.goes)


def plan_pruning(
    run: Run,
    policies: Sequence[tuple[str, Policy]],
    *,
    run_id: str | None = None,
    pinned: Collection[str] = (),
    check: Callable[[str], Sequence[str]],
) -> Plan:
    """Return which files are retained and why, and which to delete. No file is changed.

    Args:
        run: The directory.
        policies: Retention policies with their names. A file that any of them keeps is retained.
        run_id: ID of one of several runs in the directory; default: the newest.
        pinned: Paths that are always retained.
        check: Returns the problems of a file, as `lambda path: verify(path).problems` does.
    """
    wanted = run.run_id if run_id is None else run_id
    held = {os.path.realpath(path) for path in pinned}
    linked = {os.path.realpath(one.path) for one in run.checkpoints if os.path.islink(one.path)}
    reasons: dict[str, list[str]] = {}
    groups: dict[object, list[CheckpointEntry]] = {}
    damaged = [(one.path, one.note) for one in run.checkpoints if one.state is State.DAMAGED]
    for one in run.checkpoints:
        why = _apart(one, wanted)
        if why:
            reasons[one.path] = [why]
        else:
            groups.setdefault(_door(one), []).append(one)
            kept = [("pinned", held), ("a link points to it", linked)]
            reasons[one.path] = [why for why, paths in kept if os.path.realpath(one.path) in paths]
    goes: set[str] = set()
    for group in groups.values():
        broken = _judge(group, policies, reasons, goes, check)
        damaged += broken.items()
    verdicts = tuple(
        Verdict(one, one.path in goes, ", ".join(reasons[one.path])) for one in run.checkpoints
    )
    return Plan(run.path, verdicts, tuple(damaged))


def _apart(one: CheckpointEntry, run_id: str) -> str:
    """Return why policies do not apply to a file, or an empty string."""
    if os.path.islink(one.path):
        return "a link"
    if one.state is not State.WHOLE:
        return str(one.state)
    if one.run_id != run_id:
        return f"of another run, {one.run_id[:8] or 'without an ID'}"
    if one.number is None and not (one.pattern and _named_by(one)):
        return "its name is not that of a checkpoint of the run"
    return ""


def _door(one: CheckpointEntry) -> object:
    return (one.holds & DOORS) if one.number is not None else one.pattern


def _named_by(one: CheckpointEntry) -> bool:
    """Return whether the name of a file matches its pattern and its contents."""
    parts = []
    try:
        for text, name, spec, _ in string.Formatter().parse(one.pattern or ""):
            parts.append(re.escape(text))
            if name is not None:
                parts.append(_values_of(one, name, spec or ""))
    except ValueError:
        return False
    if parts.count(_ANYTHING) > _MOST_UNKNOWN:
        return False
    return re.fullmatch("".join(parts), one.name, re.DOTALL) is not None


def _values_of(one: CheckpointEntry, name: str, spec: str) -> str:
    if _TOO_WIDE.search(spec):
        raise ValueError(spec)
    if name == "epoch":
        # One-based; inside an epoch it is the epoch under way.
        values: Iterable[float] = (one.epoch, epoch_number(one.epoch))
    elif name in one.logs:
        values = (one.logs[name],)
    else:
        return _ANYTHING
    return f"(?:{'|'.join(re.escape(format(value, spec)) for value in values)})"


def _judge(
    group: Sequence[CheckpointEntry],
    policies: Sequence[tuple[str, Policy]],
    reasons: dict[str, list[str]],
    goes: set[str],
    check: Callable[[str], Sequence[str]],
) -> dict[str, str]:
    """Decide about the files of one writer; return those found damaged."""
    ordered = newest_first(group)[::-1]
    saved = [dataclasses.replace(one, number=n) for n, one in enumerate(ordered, 1)]
    broken: dict[str, str] = {}
    while saved:
        gone = _may_go(saved, policies, [path for path, why in reasons.items() if why])
        problems = check(saved[-1].path) if gone else ()
        if not problems:
            break
        # A restart would skip it and resume from an older one.
        broken[saved[-1].path] = "; ".join(problems)
        reasons[saved[-1].path].append(str(State.DAMAGED))
        saved.pop()
    if not saved:
        return broken
    goes |= {item.path for item in gone}
    reasons[saved[-1].path].append("newest")
    finite = next((item for item in reversed(saved) if item.finite), saved[-1])
    if finite is not saved[-1]:
        reasons[finite.path].append("newest without NaN")
    best = best_of(saved)
    if best is not None:
        reasons[best.path].append("best")
    for name, policy in policies:
        for path in policy.keeps(saved):
            reasons[path].append(name)
    return broken


def _may_go(
    saved: Sequence[CheckpointEntry],
    policies: Sequence[tuple[str, Policy]],
    pinned: Collection[str],
) -> list[CheckpointEntry]:
    union: Policy = _Nothing()
    for _, policy in policies:
        union |= policy
    best = best_of(saved)
    return to_delete(saved, union, best=best.path if best else None, pinned=pinned)


@dataclasses.dataclass(frozen=True)
class _Nothing(Policy):
    """A policy that keeps nothing."""

    def keeps(self, saved: Sequence[CheckpointEntry]) -> set[str]:
        return set()

"""Which checkpoints of a directory a policy lets go: run, policy -> *plan* -> delete.

What a run does after each save, done later and by hand. So the rules are the run's own: policies
work on the files of one run that one door wrote (a manager, a `BackupAndRestore`, or one pattern of
a `ModelCheckpoint`), and the newest and the best stay whatever they say. Two rules come with doing
it by hand. The newest has to be whole to the last byte before older ones may go, because a run that
is started again would need them. And a file that is ours by its record, but not by its name, is a
copy that somebody made, and stays.
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

# A pattern may be a stranger's: one name is not looked at for hours, nor filled up to a gigabyte.
_ANYTHING = ".+"
_MOST_UNKNOWN = 3
_TOO_WIDE = re.compile(r"\d{3}")


@dataclass(frozen=True)
class Verdict:
    """What becomes of one file.

    Attributes:
        checkpoint: The file.
        goes: Whether it is to be deleted.
        why: Why it stays; for one that goes, an empty string.
    """

    checkpoint: CheckpointEntry
    goes: bool
    why: str


@dataclass(frozen=True)
class Plan:
    """What becomes of the files of a directory, in their order.

    Attributes:
        path: The directory.
        verdicts: One for each file.
        damaged: What is wrong with files that stay because of that, as `(path, what)`.
    """

    path: str
    verdicts: tuple[Verdict, ...]
    damaged: tuple[tuple[str, str], ...] = ()

    @property
    def goes(self) -> tuple[CheckpointEntry, ...]:
        """The files that are to be deleted."""
        return tuple(one.checkpoint for one in self.verdicts if one.goes)

    @property
    def nbytes(self) -> int:
        """How many bytes that gives back."""
        return sum(one.size for one in self.goes)


def plan_pruning(
    run: Run,
    policies: Sequence[tuple[str, Policy]],
    *,
    run_id: str | None = None,
    pinned: Collection[str] = (),
    check: Callable[[str], Sequence[str]],
) -> Plan:
    """Return what stays, why, and what goes. Nothing is touched.

    Args:
        run: The directory.
        policies: What stays, each with its name for the reasons; what any of them keeps, stays.
        run_id: Which of several runs in the directory; default: the newest.
        pinned: Paths that stay whatever the policies say.
        check: Returns what is wrong with a file, as `lambda path: verify(path).problems` does.
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
    """Return why a file is none that a policy decides about, or nothing."""
    if os.path.islink(one.path):
        return "a link"
    if one.state is not State.WHOLE:
        return str(one.state)
    if one.run_id != run_id:
        return f"of another run, {one.run_id[:8] or 'without a name'}"
    if one.number is None and not (one.pattern and _named_by(one)):
        return "not called as a run calls its files"
    return ""


def _door(one: CheckpointEntry) -> object:
    return (one.holds & DOORS) if one.number is not None else one.pattern


def _named_by(one: CheckpointEntry) -> bool:
    """Return whether a file is called as its pattern says of what is in it."""
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
        # One-based; inside an epoch it is the one under way.
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
    """Decide about the files of one door; return those found damaged on the way."""
    ordered = newest_first(group)[::-1]
    saved = [dataclasses.replace(one, number=n) for n, one in enumerate(ordered, 1)]
    broken: dict[str, str] = {}
    while saved:
        gone = _may_go(saved, policies, [path for path, why in reasons.items() if why])
        problems = check(saved[-1].path) if gone else ()
        if not problems:
            break
        # A restart would pass it over, and go on from the one before.
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
    """Keeps nothing of its own accord."""

    def keeps(self, saved: Sequence[CheckpointEntry]) -> set[str]:
        return set()

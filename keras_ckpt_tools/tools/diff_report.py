"""Report how two files differ, as a table, HTML or JSON.

Only contents count: tensors, config, custom objects. Versions and training progress are shown, but
are not differences: two saves of one state are equal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.metadata import TensorInfo, TrainingProgress
from keras_ckpt_tools.showing.tables import as_html, as_text
from keras_ckpt_tools.tools.config_changes import ConfigChange
from keras_ckpt_tools.tools.distance import Distance

Verdict = Literal["equal", "changed", "dtype", "shape", "gone", "new", "not compared"]
Sort = Literal["moved", "path"]
Row = tuple[str, str, str, str, str]

_HEADER = ("what", "where", "first", "second, or how far it has moved", "")
_ORDER: tuple[Verdict, ...] = ("gone", "new", "shape", "dtype", "changed", "not compared", "equal")


@dataclass(frozen=True)
class Side:
    """One of the two artefacts.

    Attributes:
        path: Its path; for a folder, the chosen file.
        kind: What it is.
        size: Bytes.
        versions: Versions that wrote it, as far as it says.
        progress: Where training was.
        objects: The custom objects that it needs: what is known of each, by registered name.
        has_config: Whether it contains the config of the model.
    """

    path: str
    kind: Kind
    size: int
    versions: Mapping[str, str] = field(default_factory=dict)
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    objects: Mapping[str, str] = field(default_factory=dict)
    has_config: bool = False


@dataclass(frozen=True)
class TensorChange:
    """One tensor of either side.

    Attributes:
        name: The name under which both sides are held against each other.
        verdict: `"equal"`, `"changed"`, `"dtype"`, `"shape"`, `"gone"` (only the first has it),
            `"new"` (only the second), or `"not compared"` where values were not asked for.
        first: It in the first artefact, under its full path there, or `None`.
        second: Likewise in the second.
        distance: How far its values have moved, where they were compared.
        nearest: Of a tensor that only one side has, the other side's that it may have been
            renamed from or to; else empty.
        variable: What Keras calls the variable (`dense/kernel`), where that is known; else empty.
    """

    name: str
    verdict: Verdict
    first: TensorInfo | None = None
    second: TensorInfo | None = None
    distance: Distance | None = None
    nearest: str = ""
    variable: str = ""

    @property
    def moved(self) -> float:
        """The relative norm of the difference, for sorting; -1 where there is none."""
        relative = self.distance.relative if self.distance else None
        if self.distance is not None and (relative is None or self.distance.not_finite):
            return math.inf if self.distance.changed else 0.0
        return -1.0 if relative is None else relative

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it; what is infinite is a string."""
        told: dict[str, Any] = {"name": self.name, "verdict": self.verdict}
        for side, info in (("first", self.first), ("second", self.second)):
            told[side] = info and {
                "path": info.path, "shape": list(info.shape), "dtype": info.dtype
            }  # fmt: skip
        if self.distance is not None:
            relative = self.distance.relative
            told |= {
                "l2": self.distance.l2,
                "norm": self.distance.norm,
                "relative": "Infinity" if relative == math.inf else relative,
                "largest": self.distance.largest,
                "changed": self.distance.changed,
                "elements": self.distance.elements,
                "not_finite": self.distance.not_finite,
            }
        told |= {"variable": self.variable} if self.variable else {}
        return {**told, "nearest": self.nearest} if self.nearest else told


@dataclass(frozen=True)
class Difference:
    """How two artefacts differ; true if nothing does.

    Attributes:
        first: The one.
        second: The other.
        tensors: Every tensor of either side.
        config: The places in which the configs differ, where both have one.
        more_config: Whether there are more of these than are listed.
        objects: The custom objects that differ: `(name, in the first, in the second)`.
        tolerance: The largest difference of one number that counts as none.
    """

    first: Side
    second: Side
    tensors: tuple[TensorChange, ...] = ()
    config: tuple[ConfigChange, ...] = ()
    more_config: bool = False
    objects: tuple[tuple[str, str, str], ...] = ()
    tolerance: float = 0.0

    def __bool__(self) -> bool:
        return not self.config and not self.objects and not any(map(_differs, self.tensors))

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors have each verdict."""
        found = Counter(change.verdict for change in self.tensors)
        return {verdict: found[verdict] for verdict in reversed(_ORDER) if found[verdict]}

    def sorted(self, by: Sort = "moved") -> list[TensorChange]:
        """Return what differs, and what was not compared: by path, or the furthest moved first."""
        shown = [change for change in self.tensors if change.verdict != "equal"]
        if by == "path":
            return sorted(shown, key=lambda change: change.name)
        return sorted(shown, key=lambda c: (_ORDER.index(c.verdict), -c.moved))

    def rows(self, by: Sort = "moved", most: int | None = None) -> list[Row]:
        """Return `(what, where, in the first, in the second, how far)`.

        Of a tensor that is of one shape and dtype on both sides, how far it has moved stands in the
        place of the second.

        Args:
            by: The order of the tensors.
            most: How many tensors are shown. Default: all.
        """
        changes = self.sorted(by)
        rows = [_row(change) for change in changes[:most]]
        if most is not None and len(changes) > most:
            rows.append(("...", f"{len(changes) - most} more tensors", "", "", "--all shows them"))
        rows += [("config", c.where, c.first, c.second, "") for c in self.config]
        if self.more_config:
            rows.append(("config", "...", "", "", "and more"))
        if self.first.has_config != self.second.has_config:
            one, other = (
                "has one" if side.has_config else "has none" for side in (self.first, self.second)
            )
            rows.append(("config", "", one, other, "not compared"))
        rows += [("object", name, one, other, "") for name, one, other in self.objects]
        return rows + self._beside()

    def _beside(self) -> list[Row]:
        first, second = self.first, self.second
        rows = [
            ("version", name, first.versions.get(name, ""), second.versions.get(name, ""), "")
            for name in dict.fromkeys((*first.versions, *second.versions))
            if first.versions.get(name) != second.versions.get(name)
        ]
        if not (first.progress.trained or second.progress.trained):
            return rows
        one, other = _progress(first.progress), _progress(second.progress)
        return rows + [
            ("progress", name, one.get(name, ""), other.get(name, ""), "")
            for name in dict.fromkeys((*one, *other))
            if one.get(name) != other.get(name)
        ]

    def caption(self) -> str:
        """Return one line with the counts."""
        counts = ", ".join(f"{number} {verdict}" for verdict, number in self.counts.items())
        facts = [f"{self.first.path} -> {self.second.path}: {counts or 'no tensors'}"]
        if self.config:
            more = "more than " if self.more_config else ""
            facts.append(f"configs differ in {more}{len(self.config)} places")
        if self.objects:
            facts.append(f"{len(self.objects)} custom objects differ")
        return "; ".join(facts)

    def to_json(self, by: Sort = "path") -> dict[str, Any]:
        """Return the report as JSON has it: dicts, lists, strings and numbers."""
        equal = [change.name for change in self.tensors if change.verdict == "equal"]
        return {
            "same": bool(self),
            "first": _side(self.first),
            "second": _side(self.second),
            "tolerance": self.tolerance,
            "counts": self.counts,
            "tensors": [change.to_json() for change in self.sorted(by)],
            "equal": equal,
            "config": [
                {"where": c.where, "first": c.first, "second": c.second} for c in self.config
            ],
            "more_config": self.more_config,
            "objects": [
                {"name": name, "first": one, "second": other} for name, one, other in self.objects
            ],
        }

    def __str__(self) -> str:
        return as_text(self.caption(), self.rows())

    def _repr_html_(self) -> str:
        return as_html(self.caption(), _HEADER, self.rows())


def _differs(change: TensorChange) -> bool:
    return change.verdict not in ("equal", "not compared")


def _row(change: TensorChange) -> Row:
    first, second = change.first, change.second
    far = f"renamed? {change.nearest}" if change.nearest else _how_far(change.distance)
    path = " -> ".join(dict.fromkeys(info.path for info in (first, second) if info))
    where = f"{change.variable} ({path})" if change.variable else path
    one, other = _shown(first), _shown(second)
    if one == other:  # Shown once, to save width.
        other, far = far, ""
    return change.verdict, where, one, other, far


def _shown(info: TensorInfo | None) -> str:
    return f"{info.dtype}{list(info.shape)}" if info else ""


def _how_far(distance: Distance | None) -> str:
    if distance is None or not distance.changed:
        return ""
    parts = [f"{distance.changed:,} of {distance.elements:,}"]
    if distance.relative is not None:
        far = "from zero" if distance.relative == math.inf else f"{distance.relative:.2%}"
        parts = [f"moved {far}", f"L2 {distance.l2:.3g}", f"largest {distance.largest:.3g}", *parts]
    if distance.not_finite:
        parts.append(f"{distance.not_finite:,} of them NaN or infinite")
    return ", ".join(parts)


def _progress(progress: TrainingProgress) -> dict[str, str]:
    found = {
        "epochs completed": str(progress.epochs_completed),
        "batches completed": str(progress.batches_completed),
        "step": str(progress.step),
        "run": progress.run_id,
    }
    found |= {f"logs[{name}]": f"{value:.6g}" for name, value in progress.logs.items()}
    if progress.best is not None and progress.best.value is not None:
        best = progress.best
        found[f"best {best.monitor}"] = f"{best.value:.6g} (epoch {best.epoch})"
    return found


def _side(side: Side) -> dict[str, Any]:
    return {
        "path": side.path,
        "kind": str(side.kind),
        "size": side.size,
        "versions": dict(side.versions),
        "progress": side.progress.to_json(),
        "objects": dict(side.objects),
        "has_config": side.has_config,
    }


def objects_changed(
    first: Mapping[str, str], second: Mapping[str, str]
) -> Iterable[tuple[str, str, str]]:
    """Yield the custom objects of which the two sides say something else.

    >>> list(objects_changed({"my>A": "version 1"}, {"my>A": "version 2"}))
    [('my>A', 'version 1', 'version 2')]
    """
    for name in dict.fromkeys((*first, *second)):
        one, other = first.get(name, ""), second.get(name, "")
        if one != other:
            yield name, one, other

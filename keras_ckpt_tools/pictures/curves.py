"""Compute the curves of a run over epochs or steps.

The metrics of an epoch are drawn at its end, at `epochs_completed`, and so is a save at its end. So
marks are on the curve, and a save inside an epoch is between two points. The number of steps in an
epoch follows from the positions in the record; steps between them are interpolated.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import epoch_number
from keras_ckpt_tools.pictures.run_summary import Save, Story, believable
from keras_ckpt_tools.runs.save_history import Place, place_of

By = Literal["epoch", "step"]

_LARGEST = 2**53


@dataclass(frozen=True)
class Line:
    """One metric of one run.

    Attributes:
        metric: Its name in the logs.
        xs: Epochs completed, or steps, rising.
        ys: Its values; NaN where there is a gap.
    """

    metric: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]

    def at(self, x: float) -> float:
        """Return the height of the curve, NaN in a gap; beyond its ends that of the end.

        >>> line = Line("loss", (1.0, 2.0), (0.5, 0.3))
        >>> round(line.at(1.5), 3), line.at(9.0)
        (0.4, 0.3)
        """
        after = bisect_left(self.xs, x)
        if after == len(self.xs):
            return self.ys[-1]
        if self.xs[after] == x or after == 0:
            return self.ys[after]
        x0, x1, y0, y1 = *self.xs[after - 1 : after + 1], *self.ys[after - 1 : after + 1]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)

    def pieces(self) -> list[list[tuple[float, float]]]:
        """Return its points, apart at each gap.

        >>> Line("loss", (1.0, 2.0, 3.0), (0.5, math.nan, 0.3)).pieces()
        [[(1.0, 0.5)], [(3.0, 0.3)]]
        """
        found: list[list[tuple[float, float]]] = [[]]
        for x, y in zip(self.xs, self.ys, strict=True):
            if math.isfinite(y):
                found[-1].append((x, y))
            elif found[-1]:
                found.append([])
        return [piece for piece in found if piece]


@dataclass(frozen=True)
class Best:
    """The best value of what was monitored.

    Attributes:
        metric: Its name.
        x: Where it was reached.
        y: The value.
        epoch: One-based number of that epoch, as Keras prints it.
    """

    metric: str
    x: float
    y: float
    epoch: int


@dataclass(frozen=True)
class Curves:
    """One run, laid out.

    Attributes:
        name: What to call it.
        lines: Its metrics, by name.
        saves: Where each save lies, with the save.
        restarts: Where it was gone on with.
        best: Its best value, where one is known.
    """

    name: str
    lines: dict[str, Line]
    saves: tuple[tuple[float, Save], ...] = ()
    restarts: tuple[float, ...] = ()
    best: Best | None = None


@dataclass(frozen=True)
class Panel:
    """Metrics that are drawn together.

    Attributes:
        title: Name of the metric of the training data.
        train: That name, or `None` where only the other is drawn.
        validation: Name of the metric of the validation data, or `None`.
    """

    title: str
    train: str | None = None
    validation: str | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its metrics; the first is the one that carries the marks."""
        return tuple(name for name in (self.validation, self.train) if name)


@dataclass
class Axis:
    """Where a place of a run lies."""

    by: By
    known: Iterable[Place] = ()
    _ends: dict[int, int] = field(init=False)
    _steps: dict[float, float] = field(init=False)

    def __post_init__(self) -> None:
        places = sorted(set(self.known))
        ends = {place.epochs: place.step for place in places if not place.batches}
        self._ends = dict(sorted({0: 0, **ends}.items()))
        self._epochs_ended = list(self._ends)
        self._most = max((place.batches for place in places), default=0)
        steps = {self._epochs(place): float(place.step) for place in places}
        self._steps = dict(sorted({0.0: 0.0, **steps}.items()))
        self._xs = list(self._steps)

    def of(self, place: Place) -> float:
        """Return where a place lies."""
        return float(place.step) if self.by == "step" else self._epochs(place)

    def of_epochs(self, epochs: int) -> float:
        """Return where so many epochs have been completed."""
        if self.by == "epoch":
            return float(epochs)
        after = min(max(bisect_left(self._xs, epochs), 1), len(self._xs) - 1)
        if not after:
            return 0.0
        x0, x1 = self._xs[after - 1 : after + 1]
        y0, y1 = self._steps[x0], self._steps[x1]
        return y0 + (y1 - y0) * (epochs - x0) / (x1 - x0)

    def _epochs(self, place: Place) -> float:
        """Return epochs completed, with the part of the one under way."""
        if not place.batches:
            return float(place.epochs)
        ended = self._epochs_ended
        after = min(max(bisect_left(ended, place.epochs + 1), 1), len(ended) - 1)
        length = 0.0
        if after:
            e0, e1 = ended[after - 1 : after + 1]
            length = (self._ends[e1] - self._ends[e0]) / (e1 - e0)
        # If no epoch has ended yet, its length is unknown.
        return place.epochs + min(place.batches / max(length, self._most, 1.0), 1.0)


def curves_of(story: Story, by: By) -> Curves:
    """Lay a run out.

    Raises:
        ArgumentError: steps are asked for, and nothing counted them.
    """
    progress = story.progress
    here = place_of(progress)
    known = [*story.restarts, *(save.place for save in story.saves)]
    axis = Axis(by, [*known, here] if believable(here) else known)
    if by == "step" and not here.step and (here.epochs or here.batches):
        raise ArgumentError(
            f"Nothing has counted the steps of {story.name!r}.",
            received='x="step"',
            remedy='Draw it by epochs: `x="epoch"`.',
        )
    lines = {}
    for name, values in progress.history.items():
        points = {
            axis.of_epochs(epoch_number(epoch)): number(value)
            for epoch, value in zip(progress.history_epochs[name], values, strict=False)
            if 0 <= epoch < _LARGEST
        }
        lines[name] = Line(name, tuple(sorted(points)), tuple(points[x] for x in sorted(points)))
    lines |= _of_saves(story, axis, lines)
    best = progress.best
    found = None
    if best is not None and best.value is not None and best.epoch is not None:
        # With a save inside of an epoch the best one may be between two epochs.
        value = number(best.value)
        if math.isfinite(value) and 0 <= best.epoch < _LARGEST and best.monitor in lines:
            reached = epoch_number(best.epoch)
            found = Best(best.monitor, axis.of_epochs(reached), value, reached)
    return Curves(
        story.name,
        {name: line for name, line in lines.items() if line.xs},
        tuple((axis.of(save.place), save) for save in story.saves),
        tuple(axis.of(place) for place in story.restarts),
        found,
    )


def _of_saves(story: Story, axis: Axis, known: dict[str, Line]) -> dict[str, Line]:
    """Return the metrics that only the saves know: a loop without epochs has no other history."""
    points: dict[str, dict[float, float]] = {}
    for save in story.saves:
        for name, value in (save.file.logs if save.file else {}).items():
            points.setdefault(name, {})[axis.of(save.place)] = number(value)
    return {
        name: Line(name, tuple(sorted(found)), tuple(found[x] for x in sorted(found)))
        for name, found in points.items()
        if name not in known
    }


def number(value: float) -> float:
    """Return a number that can be drawn and written, NaN for any other."""
    # JSON has integers of any length, which no float may be able to hold.
    return float(value) if abs(value) < 1e300 else math.nan


def panels_of(runs: Sequence[Curves], metrics: Sequence[str] | None = None) -> list[Panel]:
    """Return what is drawn together: `loss` with `val_loss`, for all runs.

    Args:
        runs: The runs.
        metrics: Which metrics; `"loss"` is both of them, `"val_loss"` only that one.

    Raises:
        ArgumentError: there is none, or no run has a metric that is asked for.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.lines))
    if not names:
        shown = ", ".join(repr(run.name) for run in runs)
        raise ArgumentError(
            f"There is nothing to draw: no metric is on record of {shown}.",
            received=f"run_or_runs={shown}",
            remedy="A curve begins with the first epoch that ends: pass a run that has one, and in "
            "a loop of your own call `manager.log(loss=loss)`.",
        )
    asked = names if metrics is None else list(metrics)
    unknown = [name for name in asked if name not in names]
    if unknown or not asked:
        raise ArgumentError(
            "No run has these metrics: " + ", ".join(map(repr, unknown)) + "."
            if unknown
            else "`metrics` is empty.",
            received=f"metrics={list(asked)!r}",
            remedy="Available metrics: " + ", ".join(map(repr, names)) + ".",
        )
    panels: dict[str, Panel] = {}
    for name in asked:
        base = name.removeprefix("val_")
        before = panels.get(base, Panel(base))
        whole = name == base or metrics is None
        train = before.train or (base if whole and base in names else None)
        paired = f"val_{base}" in names
        panels[base] = Panel(base, train, f"val_{base}" if paired else None)
    if metrics is None:
        return sorted(panels.values(), key=lambda panel: panel.title != "loss")
    return list(panels.values())

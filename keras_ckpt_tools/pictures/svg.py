"""Draw one panel of a report page as SVG.

A page for light and dark themes needs curves in the page's own colours (CSS variables), text for
screen readers, and marks with tooltips. This takes few lines, so a report does not need
Matplotlib.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from keras_ckpt_tools.pictures.curves import By, Curves, Line, Panel
from keras_ckpt_tools.pictures.run_summary import Save
from keras_ckpt_tools.showing.tables import printable

_WIDTH, _HEIGHT = 420, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 16, 38
_MOST_ON_CURVE = 60
_MOST_POINTS = 800
_WORDS = {"kept": "kept", "deleted": "deleted since then", "saved": "saved"}


def _star(outer: float, inner: float) -> str:
    points = []
    for n in range(10):
        radius, angle = (inner if n % 2 else outer), math.pi * (n / 5 - 0.5)
        points.append(f"{radius * math.cos(angle):.1f} {radius * math.sin(angle):.1f}")
    return "M" + "L".join(points) + "Z"


STAR = _star(8.0, 3.4)


def shown(value: float) -> str:
    """Return a number in few digits.

    >>> shown(0.21736), shown(0.00002), shown(12_500_000.0)
    ('0.2174', '2e-05', '1.25e+07')
    """
    return f"{value:.4g}"


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return round numbers between two numbers.

    >>> ticks(0.07, 0.93, 5)
    [0.2, 0.4, 0.6, 0.8]
    >>> ticks(0, 3, 7, whole=True)
    [0.0, 1.0, 2.0, 3.0]
    """
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    steps = (size * factor for factor in (1, 2, 5, 10, 20))
    step = next((s for s in steps if (high - low) / s <= most), 20 * size)
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


class _Frame:
    """Where values lie in the picture."""

    def __init__(self, run: Curves, lines: Sequence[Line]):
        xs = [x for line in lines for x in line.xs] + [x for x, _ in run.saves]
        xs += run.restarts
        ys = [y for line in lines for y in line.ys if math.isfinite(y)] or [0.0, 1.0]
        self.x0, self.x1 = min(xs), max(xs)
        if self.x1 - self.x0 < 1:
            self.x0, self.x1 = self.x0 - 1, self.x1 + 1
        room = (max(ys) - min(ys)) * 0.07 or abs(max(ys)) * 0.1 or 1.0
        self.y0, self.y1 = min(ys) - room, max(ys) + room

    def x(self, value: float) -> float:
        part = (value - self.x0) / (self.x1 - self.x0)
        return _LEFT + 6 + part * (_WIDTH - _LEFT - _RIGHT - 12)

    def y(self, value: float) -> float:
        part = (value - self.y0) / (self.y1 - self.y0)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


def panel_as_svg(run: Curves, panel: Panel, by: By, name: str) -> str:
    """Return one panel of one run as an `<svg>` element.

    Args:
        run: The run.
        panel: The panel.
        by: What its curves are drawn over.
        name: The id of the element, for a page with several.
    """
    lines = [run.lines[metric] for metric in panel.metrics if metric in run.lines]
    frame = _Frame(run, lines)
    parts = [_grid(frame, by), *_restarts(frame, run)]
    for number, line in reversed(list(enumerate(lines))):
        kind = "main" if number == 0 else "second"
        parts.append(f'<path class="curve {kind}" d="{_path(frame, line)}"/>')
        parts += [
            f'<circle class="alone {kind}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.5"/>'
            for ((x, y), *more) in line.pieces()
            if not more
        ]
    parts += _saves(frame, run, lines[0], by)
    if run.best is not None and run.best.metric == lines[0].metric:
        parts.append(_best(frame, run))
    said = html.escape(printable(_in_words(run, panel, lines, by)))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{name}-d">'
        f'<desc id="{name}-d">{said}</desc>{"".join(parts)}</svg>'
    )


def _in_words(run: Curves, panel: Panel, lines: Sequence[Line], by: By) -> str:
    said = [f"Curves of {panel.title} over {by}s."]
    for line in lines:
        values = [y for y in line.ys if math.isfinite(y)]
        if values:
            said.append(f"{line.metric}: from {shown(values[0])} to {shown(values[-1])}.")
    if run.best is not None and run.best.metric == lines[0].metric:
        said.append(f"The best is {shown(run.best.y)}, in epoch {run.best.epoch}.")
    return " ".join(said)


def _grid(frame: _Frame, by: By) -> str:
    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for value in ticks(frame.y0, frame.y1, 6):
        y = frame.y(value)
        parts.append(
            f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{_short(value)}</text>"
        )
    for value in ticks(frame.x0, frame.x1, 7, whole=True):
        x = frame.x(value)
        if value >= 0:
            parts.append(
                f'<path class="axis" d="M{x:.1f} {floor}v4"/><text class="tick" x="{x:.1f}" '
                f'y="{floor + 17}" text-anchor="middle">{_short(value)}</text>'
            )
    label = "epochs completed" if by == "epoch" else "step"
    parts.append(
        f'<path class="axis" d="M{_LEFT} {floor}H{right}"/><text class="tick" '
        f'x="{(_LEFT + right) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{label}</text>'
    )
    return "".join(parts)


def _path(frame: _Frame, line: Line) -> str:
    drawn = []
    for piece in line.pieces():
        points = [f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in _thinned(piece)]
        drawn.append("M" + "L".join(points))
    return "".join(drawn)


def _thinned(piece: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return so many points as can be told apart; of each group the lowest and the highest."""
    size = math.ceil(2 * len(piece) / _MOST_POINTS)
    if size <= 2:
        return piece
    groups = (piece[n : n + size] for n in range(0, len(piece), size))
    pairs = ((min(g, key=lambda p: p[1]), max(g, key=lambda p: p[1])) for g in groups)
    return [point for pair in pairs for point in sorted(set(pair))]


def _restarts(frame: _Frame, run: Curves) -> list[str]:
    return [
        f'<path class="restart" d="M{frame.x(x):.1f} {_TOP}V{_HEIGHT - _BOTTOM}">'
        f"<title>gone on with here, after an interruption</title></path>"
        for x in dict.fromkeys(run.restarts[-500:])
    ]


def _saves(frame: _Frame, run: Curves, line: Line, by: By) -> list[str]:
    parts = []
    few = len(run.saves) <= _MOST_ON_CURVE
    aside: dict[str, dict[str, None]] = {}
    some = sum(save.state == "kept" for _, save in run.saves) <= _MOST_ON_CURVE
    for x, save in sorted(run.saves, key=lambda pair: pair[1].state != "deleted"):
        y = line.at(x)
        if math.isfinite(y) and (few or (save.state == "kept" and some)):
            parts.append(
                f'<circle class="{save.state}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" '
                f'r="{4 if save.state == "kept" else 3.2}"><title>{_said(save, line, y)}</title>'
                "</circle>"
            )
        else:
            aside.setdefault(save.state, {})[f"M{frame.x(x):.0f} {_HEIGHT - _BOTTOM - 6}v6"] = None
    for state, strokes in aside.items():
        parts.insert(0, f'<path class="aside {state}" d="{"".join(strokes)}"/>')
    return parts


def _said(save: Save, line: Line, y: float) -> str:
    place = save.place
    where = f"epoch {place.epochs}"
    if place.batches:
        where += f" and {place.batches} batches"
    text = f"saved after {where}, step {place.step}: {_WORDS[save.state]}"
    name = f" as {save.file.name}" if save.file else ""
    return html.escape(printable(f"{text}{name}; {line.metric} {shown(y)}"))


def _best(frame: _Frame, run: Curves) -> str:
    assert run.best is not None
    x, y = frame.x(run.best.x), frame.y(run.best.y)
    anchor = "start" if x < _LEFT + 30 else "end" if x > _WIDTH - 40 else "middle"
    above = y - 12 if y > _TOP + 20 else y + 22
    return (
        f'<path class="star" transform="translate({x:.1f} {y:.1f})" d="{STAR}"><title>'
        f"best: {html.escape(printable(run.best.metric))} {shown(run.best.y)}, in epoch "
        f'{run.best.epoch}</title></path><text class="value" x="{x:.1f}" y="{above:.1f}" '
        f'text-anchor="{anchor}">{shown(run.best.y)}</text>'
    )

"""`plot`: draw the metrics of runs with Matplotlib.

Only Matplotlib's objects are used, never pyplot: no window opens, no figure stays in a global list,
and the backend and style of the program do not change. Matplotlib is an extra, and imported when
something is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.pictures.curves import By, Curves, Line, Panel, curves_of, panels_of
from keras_ckpt_tools.pictures.figure import literally, new_figure
from keras_ckpt_tools.pictures.run_summary import stories_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by eyes of all kinds, on white and on black.
_COLOURS = ("#2f78d6", "#e07b16", "#1d9a72", "#c2479a", "#8a6fd8", "#8f7a1c", "#3aa0b8", "#d1495b")
_MUTED = "#8a8f98"
_GOLD = "#f2b807"
# More marks than these would hide the curve: then they stand along the axis.
_MOST_ON_CURVE = 60
_LONG = 500


def plot(
    run_or_runs: Any,
    *,
    metrics: Sequence[str] | str | None = None,
    x: Literal["epoch", "step"] | None = None,
    side_by_side: bool = False,
    title: str | None = None,
) -> Figure:
    """Draw the metrics of runs, with saves, the best value, restarts and deleted checkpoints.

    Use it to see how a run went, or to compare several. A metric of the training data and that of
    the validation data share a panel. In a notebook the figure is displayed; elsewhere call
    `figure.savefig("run.png")` or `"run.svg"`. You can change its Matplotlib axes:
    `figure.axes[0].set_yscale("log")`. It needs Matplotlib (`pip install
    'keras_ckpt_tools[plot]'`), but neither Keras nor TensorFlow.

    Args:
        run_or_runs: The directory of a run, one of its files, a `CheckpointManager`, a Keras model,
            the `History` that `fit()` returns, or a `TrainingProgress`; or a list of these, or a
            dict from names to these.
        metrics: Names of metrics. `"loss"` stands for `"val_loss"` as well. Default: all.
        x: `"epoch"` for epochs completed, `"step"` for optimizer updates. Default: epochs, and
            steps for a loop that has none.
        side_by_side: Whether each run has its own column, instead of its own colour.
        title: Heading of the figure. Default: the name of the run.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ArgumentError: an argument cannot work, or there is no metric to draw.
        ArtefactNotFoundError: there is nothing at a path.
        ArtefactError: there is no checkpoint of this package at a path.
        MissingPackageError: Matplotlib is not installed.

    Example:

    >>> import keras_ckpt_tools as kct
    >>> progress = kct.TrainingProgress(
    ...     epochs_completed=3, step=30,
    ...     history={"loss": (0.9, 0.5, 0.4), "val_loss": (0.8, 0.6, 0.7)},
    ...     history_epochs={"loss": (0, 1, 2), "val_loss": (0, 1, 2)})
    >>> figure = kct.plot({"first try": progress})
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['loss']
    """
    if x not in (None, "epoch", "step"):
        raise ArgumentError(
            "`x` is 'epoch' or 'step'.",
            received=f"x={x!r}",
            remedy="Pass one of these, or leave it out.",
        )
    stories = stories_of(run_or_runs)
    by = x or ("epoch" if any(story.progress.epochs_completed for story in stories) else "step")
    runs = [curves_of(story, by) for story in stories]
    panels = panels_of(runs, [metrics] if isinstance(metrics, str) else metrics)
    return _drawn(runs, panels, by, side_by_side=side_by_side and len(runs) > 1, title=title)


def _drawn(
    runs: list[Curves], panels: list[Panel], by: By, *, side_by_side: bool, title: str | None
) -> Figure:
    if side_by_side:
        rows, columns = len(panels), len(runs)
    else:
        columns = 1 if len(panels) == 1 else 2
        rows = math.ceil(len(panels) / columns)
    wide = 6.4 if columns == 1 else min(4.8 * columns, 16.0)
    figure = new_figure(wide, min(3.1 * rows + 0.7, 40.0))
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharex=not side_by_side,
        sharey="row" if side_by_side else False,
    )
    drawn: dict[str, Any] = {}
    for number, panel in enumerate(panels):
        if side_by_side:
            for axes, run in zip(grid[number], runs, strict=True):
                _draw_panel(axes, panel, [run], [_COLOURS[0]], drawn)
                axes.set_title(literally(panel.title), loc="left", fontweight="bold")
                if number == 0:
                    axes.annotate(
                        literally(run.name), (0.5, 1.16), xycoords="axes fraction", ha="center",
                        fontweight="bold", fontsize="large",
                    )  # fmt: skip
        else:
            axes = grid[number // columns][number % columns]
            colours = [_COLOURS[n % len(_COLOURS)] for n in range(len(runs))]
            _draw_panel(axes, panel, runs, colours, drawn)
            axes.set_title(literally(panel.title), loc="left", fontweight="bold")
    for axes in list(grid.flat)[len(panels) if not side_by_side else rows * columns :]:
        axes.remove()
    for axes in figure.axes:
        axes.set_xlabel("epochs completed" if by == "epoch" else "step")
        axes.tick_params(labelbottom=True)
    heading = title or (runs[0].name if len(runs) == 1 else "")
    if heading:
        figure.suptitle(literally(heading), fontweight="bold")
    if len(runs) > 1 and not side_by_side:
        drawn = _run_names(runs) | drawn
    figure.legend(
        list(drawn.values()), list(drawn), loc="outside lower center", frameon=False,
        ncols=min(len(drawn), 3 if columns == 1 else 4 if len(drawn) > 7 else 7),
    )  # fmt: skip
    return figure


def _run_names(runs: Sequence[Curves]) -> dict[str, Any]:
    from matplotlib.lines import Line2D

    return {
        literally(run.name): Line2D([], [], color=_COLOURS[n % len(_COLOURS)], linewidth=2.5)
        for n, run in enumerate(runs)
    }


def _draw_panel(
    axes: Axes, panel: Panel, runs: list[Curves], colours: list[str], drawn: dict[str, Any]
) -> None:
    alone = len(runs) == 1
    for run, colour in zip(runs, colours, strict=True):
        for metric in reversed(panel.metrics):
            line = run.lines.get(metric)
            if line is not None:
                main = metric == panel.metrics[0]
                handle = _draw_line(axes, line, colour, main=main, alone=alone)
                if panel.validation:
                    drawn.setdefault("validation" if main else "training", handle)
        first = next((run.lines[name] for name in panel.metrics if name in run.lines), None)
        if first is not None:
            _draw_marks(axes, run, first, colour, drawn)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_MUTED)
    axes.grid(axis="y", color=_MUTED, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.03)
    low, high = axes.get_xlim()
    if high - low < 1:
        axes.set_xlim(round(low) - 1, round(high) + 1)
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def _draw_line(axes: Axes, line: Line, colour: str, *, main: bool, alone: bool) -> Any:
    style: dict[str, Any] = (
        {"linewidth": 2.0, "zorder": 3}
        if main
        else {"linewidth": 1.4, "linestyle": (0, (3, 1.6)), "alpha": 0.75, "zorder": 2.5}
    )
    if len(line.xs) > _LONG:
        style["linewidth"] /= 2
    (handle,) = axes.plot(line.xs, line.ys, color=colour, **style)
    for piece in line.pieces():
        if len(piece) == 1:
            axes.plot(*piece[0], ".", color=colour, markersize=7, zorder=style["zorder"])
    if alone:
        return handle
    from matplotlib.lines import Line2D

    return Line2D([], [], **{**style, "color": _MUTED})


_MARKS: dict[str, dict[str, Any]] = {
    "kept": {"marker": "o", "markersize": 6.5, "zorder": 5},
    "saved": {"marker": "o", "markersize": 5, "zorder": 4},
    "deleted": {"marker": "o", "markersize": 5, "zorder": 4},
}


def _draw_marks(axes: Axes, run: Curves, line: Line, colour: str, drawn: dict[str, Any]) -> None:
    from matplotlib.patheffects import withStroke

    for state, style in _MARKS.items():
        xs = [x for x, save in run.saves if save.state == state]
        if not xs:
            continue
        edge = _MUTED if state == "deleted" else colour
        fill = axes.get_facecolor() if state == "deleted" else colour
        ys = [line.at(x) for x in xs]
        if len(run.saves) > _MOST_ON_CURVE and (state != "kept" or len(xs) > _MOST_ON_CURVE):
            ys = [math.nan] * len(xs)
        (handle,) = axes.plot(
            xs, ys, linestyle="none", **style, markerfacecolor=fill, markeredgecolor=edge,
            markeredgewidth=1.2,
        )  # fmt: skip
        aside = [at for at, y in zip(xs, ys, strict=True) if not math.isfinite(y)]
        if aside:
            axes.plot(
                aside, [0.0] * len(aside), "|", color=edge, markersize=9, alpha=0.7,
                transform=axes.get_xaxis_transform(), zorder=4,
            )  # fmt: skip
        drawn.setdefault(
            {"kept": "saved, kept", "deleted": "saved, deleted"}.get(state, state), handle
        )
    for at in run.restarts:
        handle = axes.axvline(at, color=_MUTED, linewidth=1.1, linestyle=(0, (1, 1.8)), zorder=1.5)
        drawn.setdefault("restart", handle)
    if run.best is not None and run.best.metric == line.metric:
        (handle,) = axes.plot(
            run.best.x, run.best.y, "*", color=_GOLD, markersize=15, markeredgecolor="#6b4e00",
            markeredgewidth=0.9, linestyle="none", zorder=6,
        )  # fmt: skip
        axes.annotate(
            f"{run.best.y:.4g}", (run.best.x, run.best.y), (0, 11), textcoords="offset points",
            ha="center", fontsize="small", fontweight="bold", zorder=7,
            path_effects=[withStroke(linewidth=3, foreground=axes.get_facecolor())],
        )  # fmt: skip
        drawn.setdefault("best", handle)

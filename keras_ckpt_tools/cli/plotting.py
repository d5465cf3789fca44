"""`keras-ckpt plot`: draws the metrics of runs."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, cast

import click

from keras_ckpt_tools.cli.printing import GOOD, UNREADABLE, Answer, answer
from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.pictures.figure import save_plot
from keras_ckpt_tools.pictures.plot import plot


@click.command("plot")
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Output file: .png, .svg or .pdf.  [default: NAME-OF-THE-RUN.png]",
)
@click.option("--metric", "metrics", multiple=True, help="A metric to draw. Can be repeated.")
@click.option(
    "--by",
    type=click.Choice(["epoch", "step"]),
    help="Horizontal axis.  [default: epoch, or step if there are no epochs]",
)
@click.option("--side-by-side", is_flag=True, help="Draw each run in its own column.")
@click.option("--title", help="Heading of the plot.  [default: name of the run]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    runs: tuple[str, ...],
    output: str | None,
    metrics: tuple[str, ...],
    by: str | None,
    side_by_side: bool,
    title: str | None,
    as_json: bool,
) -> None:
    """Draw the metrics of runs, with saves, the best value, restarts and deleted checkpoints.

    RUNS are directories of checkpoints or models of this package, or single files. An existing
    output file is replaced.
    """
    path = output or name_for(runs, ".png")
    try:
        figure = plot(
            list(runs),
            metrics=metrics or None,
            x=cast(Any, by),
            side_by_side=side_by_side,
            title=title,
        )
        save_plot(figure, path)
    except CkptError as error:
        found = Answer(UNREADABLE, str(error), facts={"path": path, "error": str(error)})
    else:
        shown = [axes.get_title(loc="left") for axes in figure.axes]
        panels = list(dict.fromkeys(shown))
        facts = {"path": path, "runs": list(runs), "metrics": panels}
        found = Answer(GOOD, f"{path}: {', '.join(panels)}", facts=facts)
    sys.exit(answer([found], as_json=as_json))


def name_for(runs: tuple[str, ...], suffix: str) -> str:
    """Return a file name in the working directory for the output of runs.

    >>> name_for(("runs/digits/",), ".png"), name_for(("a", "b"), ".png")
    ('digits.png', 'a-b.png')
    """
    names = [os.path.basename(os.path.abspath(run)) or "run" for run in runs]
    joined = re.sub(r"\.(keras|weights\.h5|h5)$", "", "-".join(names).strip("."))
    # Names in other scripts are longer in bytes than they look; a file system counts bytes.
    return os.fsdecode(os.fsencode(joined)[:120]) + suffix

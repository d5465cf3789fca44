"""`keras-ckpt report`: writes an HTML page about a run."""

from __future__ import annotations

import sys

import click

from keras_ckpt_tools.cli.plotting import name_for
from keras_ckpt_tools.cli.printing import GOOD, UNREADABLE, Answer, answer
from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.pictures.report_page import report_page
from keras_ckpt_tools.storage.commit import staged


@click.command("report")
@click.argument("run", type=click.Path())
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Output file.  [default: NAME-OF-THE-RUN.html]",
)
@click.option("--title", help="Heading of the page.  [default: name of the run]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: str, output: str | None, title: str | None, as_json: bool) -> None:
    """Write an HTML page about a run: plots, checkpoints, objects, versions and settings.

    RUN is a directory of checkpoints or models of this package, or a single file. The page is one
    HTML file that needs no other files. An existing output file is replaced.
    """
    path = output or name_for((run,), ".html")
    try:
        # A file name may have bytes that are not valid text.
        page = report_page(run, title=title).encode("utf-8", "replace")
        with staged(path) as file:
            file.write(page)
    except CkptError as error:
        found = Answer(UNREADABLE, str(error), facts={"path": path, "error": str(error)})
    else:
        facts = {"path": path, "run": run, "size": len(page)}
        found = Answer(GOOD, f"{path}: {len(page):,} bytes", facts=facts)
    sys.exit(answer([found], as_json=as_json))

"""`keras-ckpt diff`: shows how two files differ.

The exit status is that of diff(1): 0 if they are equal, 1 if they differ, 2 for an error.
"""

from __future__ import annotations

import sys

import click

from keras_ckpt_tools.cli.places import one_of_folder
from keras_ckpt_tools.cli.printing import GOOD, PROBLEMS, UNREADABLE, Answer, answer_one
from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.showing.bars import bar
from keras_ckpt_tools.tools.diff import diff
from keras_ckpt_tools.tools.diff_report import Sort

_SHOWN = 40


@click.command("diff")
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help='Compare only these tensors, for example "layers/dense*". Can be repeated.',
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Ignore differences of single numbers up to this one.",
)
@click.option(
    "--values/--no-values",
    default=True,
    help="Read the values; without them, files of this package are compared by their digests.",
)
@click.option(
    "--sort",
    type=click.Choice(["moved", "path"]),
    default="moved",
    show_default=True,
    help="Order of the tensors: the largest change first, or by path.",
)
@click.option(
    "--all", "everything", is_flag=True, help=f"Show all tensors, not only the first {_SHOWN}."
)
def command(
    first: str,
    second: str,
    as_json: bool,
    only: tuple[str, ...],
    tolerance: float,
    values: bool,
    sort: Sort,
    everything: bool,
) -> None:
    """Show how two files differ, and by how much their values have changed.

    FIRST and SECOND are files, directories of a run, or prefixes of TensorFlow checkpoints. In a
    directory, the newest file is used; DIRECTORY@3 is the file of epoch 3 (zero-based),
    DIRECTORY@best the best one.

    The exit status is 0 if they are equal, 1 if they differ, and 2 if one cannot be read.
    """
    (one, of_one), (other, of_other) = one_of_folder(first), one_of_folder(second)
    try:
        with bar("Comparing"):
            report = diff(
                one, other, which=(of_one, of_other), only=only, tolerance=tolerance, values=values
            )
    except CkptError as error:
        facts = {"first": first, "second": second, "error": str(error)}
        sys.exit(answer_one(Answer(UNREADABLE, str(error), (), facts, "trouble"), as_json=as_json))
    status, word = (GOOD, "same") if report else (PROBLEMS, "different")
    rows = () if as_json else report.rows(sort, None if everything else _SHOWN)
    facts = report.to_json(sort) if as_json else {}
    sys.exit(answer_one(Answer(status, report.caption(), rows, facts, word), as_json=as_json))

"""`keras-ckpt diff`: how two files differ, and how far their values have moved.

The exit status is that of diff(1): 0 if they are alike, 1 if they differ, 2 for trouble.
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
    help='Compare these tensors and nothing else, "layers/dense*"; repeat it for more.',
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="The largest difference of one number that still counts as none.",
)
@click.option(
    "--values/--no-values",
    default=True,
    help="Whether values are read; without, files of ours are compared by their digests.",
)
@click.option(
    "--sort",
    type=click.Choice(["moved", "path"]),
    default="moved",
    show_default=True,
    help="The order of the tensors: those that have moved furthest first, or by path.",
)
@click.option("--all", "everything", is_flag=True, help=f"Show more than {_SHOWN} tensors.")
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
    """Say how two files differ, and how far their values have moved.

    FIRST and SECOND are files, folders of a run, or prefixes of TensorFlow checkpoints. A folder
    stands for its newest file; FOLDER@3 is that of epoch 3 (zero-based), FOLDER@best the best.

    The exit status is 0 if they are alike, 1 if they differ, and 2 where one cannot be read.
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

"""`keras-ckpt export`: one file made of another, and what went and what stayed behind."""

from __future__ import annotations

import sys
from typing import Any, get_args

import click

from keras_ckpt_tools.cli.places import one_of_folder
from keras_ckpt_tools.cli.printing import GOOD, PROBLEMS, UNREADABLE, Answer, answer_one
from keras_ckpt_tools.errors import ArtefactError, CkptError
from keras_ckpt_tools.showing.bars import bar
from keras_ckpt_tools.tools.export import export
from keras_ckpt_tools.tools.export_report import Format, Wish

_SHOWN = 20


@click.command("export")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option(
    "--to",
    type=click.Choice(get_args(Format)),
    help="The format. Default: by the ending of TARGET (.keras, .weights.h5, .safetensors, .ckpt).",
)
@click.option("--object", metavar="NAME", help="Of a run's checkpoint, the object that is to go.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only these tensors go.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="These tensors stay.")
@click.option(
    "--rename",
    multiple=True,
    metavar="OLD=NEW",
    help='Another name for tensors: "net.*.weight=layers/dense_*/vars/0"; the first that fits '
    "counts.",
)
@click.option(
    "--optimizer/--no-optimizer",
    default=True,
    help="Whether the state of the optimizer goes along.",
)
@click.option(
    "--config-from",
    type=click.Path(),
    help="A .keras file of the same model, where SOURCE does not say what the model is.",
)
@click.option(
    "--trusted",
    multiple=True,
    metavar="NAME",
    help="A name that may be used where the model has to be built.",
)
@click.option(
    "--bare", is_flag=True, help="In a TensorFlow checkpoint: variables by path, without the model."
)
@click.option("--force", is_flag=True, help="Replace the file that is at TARGET.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    source: str, target: str, rename: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Make a file of another format.

    SOURCE is a file, a folder of a run, or the prefix of a TensorFlow checkpoint. A folder stands
    for its newest file; FOLDER@3 is that of epoch 3 (zero-based), FOLDER@best the best.

    The exit status is 0 if TARGET was written, 1 where it cannot be made of SOURCE, and 2 where
    SOURCE cannot be read. Unless it is 0, whatever was at TARGET is unchanged.
    """
    path, which = one_of_folder(source)
    try:
        wish = Wish(which=which, rename=_rules(rename), **options)
        with bar(f"Exporting to {target}"):
            report = export(path, target, wish)
    except CkptError as error:
        status = UNREADABLE if isinstance(error, ArtefactError) else PROBLEMS
        facts = {"source": source, "target": target, "error": str(error)}
        # Errors of several lines have made them harmless; a line break elsewhere is a file's own.
        first, *lines = str(error).split("\n") if error.what.endswith("\n") else [str(error)]
        sys.exit(answer_one(Answer(status, first, (), facts, "refused", lines), as_json=as_json))
    word = "written" if report.written else "dry run"
    rows = () if as_json else report.rows(_SHOWN)
    facts = report.to_json() if as_json else {}
    sys.exit(answer_one(Answer(GOOD, report.caption(), rows, facts, word), as_json=as_json))


def _rules(given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    rules = []
    for rule in given:
        old, equals, new = rule.partition("=")
        if not (old and equals and new):
            raise click.BadParameter(f"{rule!r} is not OLD=NEW.", param_hint="--rename")
        rules.append((old, new))
    return tuple(rules)

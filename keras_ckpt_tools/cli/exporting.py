"""`keras-ckpt export`: converts a file to another format, and reports what was converted."""

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
    help="Format. Default: from the suffix of TARGET (.keras, .weights.h5, .safetensors, .ckpt).",
)
@click.option("--object", metavar="NAME", help="Which tracked object of a run to export.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Export only these tensors.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Do not export these tensors.")
@click.option(
    "--rename",
    multiple=True,
    metavar="OLD=NEW",
    help='Rename tensors: "net.*.weight=layers/dense_*/vars/0"; the first matching rule is used.',
)
@click.option(
    "--optimizer/--no-optimizer",
    default=True,
    help="Export the optimizer state too.",
)
@click.option(
    "--config-from",
    type=click.Path(),
    help="A .keras file of the same model, if SOURCE has no config.",
)
@click.option(
    "--trusted",
    multiple=True,
    metavar="NAME",
    help="A name to trust if the model has to be built. Can be repeated.",
)
@click.option(
    "--bare", is_flag=True, help="In a TensorFlow checkpoint: save variables by path, no objects."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    source: str, target: str, rename: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Convert a file to another format.

    SOURCE is a file, the directory of a run, or the prefix of a TensorFlow checkpoint. In a
    directory, the newest file is used; DIRECTORY@3 is the file of epoch 3 (zero-based),
    DIRECTORY@best the best one.

    The exit status is 0 if TARGET was written, 1 if SOURCE cannot be converted, and 2 if SOURCE
    cannot be read. If it is not 0, an existing TARGET is unchanged.
    """
    path, which = one_of_folder(source)
    try:
        wish = Wish(which=which, rename=_rules(rename), **options)
        with bar(f"Exporting to {target}"):
            report = export(path, target, wish)
    except CkptError as error:
        status = UNREADABLE if isinstance(error, ArtefactError) else PROBLEMS
        facts = {"source": source, "target": target, "error": str(error)}
        # Errors with several lines are escaped already; other line breaks are from file names.
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

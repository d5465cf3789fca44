"""`keras-ckpt inspect`: shows what files contain and need.

A name that `safe_load_model` would refuse is a problem here too. A shell has no `custom_objects=`,
so `--trusted` lists the names that the loading program provides.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from keras_ckpt_tools.cli.places import artefacts_at, file_of_folder, refuse_found_link
from keras_ckpt_tools.cli.printing import GOOD, PROBLEMS, UNREADABLE, Answer, answer
from keras_ckpt_tools.errors import ArgumentError, CkptError
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.open_source import READABLE
from keras_ckpt_tools.inspection.inspect import inspect
from keras_ckpt_tools.inspection.report import Inspection
from keras_ckpt_tools.inspection.trust import Trust

_READ = READABLE | {Kind.CHECKPOINT_DIR}


@click.command("inspect")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--trusted",
    multiple=True,
    metavar="NAME",
    help='A name to trust, "my_package>Scale" or "my_package>*". Can be repeated.',
)
def command(paths: tuple[str, ...], as_json: bool, trusted: tuple[str, ...]) -> None:
    """Show what files contain and need, without running anything from them.

    PATHS are files or directories. In a directory, all models in it and its subdirectories are
    inspected. FOLDER@3 is the file of epoch 3 (zero-based), FOLDER@best the best and FOLDER@latest
    the newest.
    """
    try:
        trust = Trust.of(trusted)
    except ArgumentError as error:
        raise click.BadParameter(str(error), param_hint="--trusted") from error
    sys.exit(answer(_answers(paths, trusted, trust), as_json=as_json))


def _answers(paths: tuple[str, ...], trusted: tuple[str, ...], trust: Trust) -> Iterator[Answer]:
    meant: list[str] = []
    for path in paths:
        try:
            meant.append(file_of_folder(path))
        except CkptError as error:
            yield Answer(UNREADABLE, f"{path}: {error}", facts={"path": path, "error": str(error)})
    for path in artefacts_at(meant):
        try:
            refuse_found_link(path, paths)
            report = inspect(path, trusted=trusted)
        except CkptError as error:
            yield Answer(UNREADABLE, f"{path}: {error}", facts={"path": path, "error": str(error)})
            continue
        caption = str(report).partition("\n")[0]
        yield Answer(_status(report, trust), caption, report.rows(), _facts(report))


def _status(report: Inspection, trust: Trust) -> int:
    if report.kind not in _READ:
        return UNREADABLE
    refused = any(
        not use.usable and not trust.allows(use.registered_name) for use in report.objects
    )
    errors = any(problem.severity == "error" for problem in report.problems)
    return PROBLEMS if errors or refused else GOOD


def _facts(report: Inspection) -> dict[str, Any]:
    facts = report.to_json()
    named = [{**use, "name": use["registered_name"]} for use in facts["objects"]]
    return {**facts, "objects": named}

"""`keras-ckpt verify`: reads and checks every byte of files."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from keras_ckpt_tools.cli.places import artefacts_at, refuse_found_link
from keras_ckpt_tools.cli.printing import GOOD, PROBLEMS, UNREADABLE, Answer, answer
from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.open_source import READABLE
from keras_ckpt_tools.inspection.verify import FileCheck, verify


@click.command("verify")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(paths: tuple[str, ...], as_json: bool) -> None:
    """Read and check every byte of files.

    PATHS are files or directories. In a directory, all models in it and its subdirectories are
    checked.
    """
    sys.exit(answer(_answers(paths), as_json=as_json))


def _answers(paths: tuple[str, ...]) -> Iterator[Answer]:
    for path in artefacts_at(paths):
        try:
            refuse_found_link(path, paths)
            checks = verify(path).files
        except CkptError as error:
            yield Answer(UNREADABLE, f"{path}: {error}", facts={"path": path, "error": str(error)})
            continue
        for check in checks:
            yield _answer_of(check)


def _answer_of(check: FileCheck) -> Answer:
    status = GOOD if check else PROBLEMS if check.kind in READABLE else UNREADABLE
    notes = list(check.problems)
    if check and not check.covered:
        notes.append("the file has no digests: it was read, but not verified")
    facts = {
        "path": check.path,
        "kind": str(check.kind),
        "size": check.size,
        "covered": check.covered,
        "problems": list(check.problems),
    }
    caption = f"{check.path}: {check.kind}, {check.size:,} bytes"
    return Answer(status, caption, [(note,) for note in notes], facts)

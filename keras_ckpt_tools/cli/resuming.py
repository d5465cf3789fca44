"""`keras-ckpt resume-info`: shows from which checkpoint a restart would resume.

The checkpoint is chosen by the code of a restart, so the two cannot differ. Files of a
`ModelCheckpoint` are not resumed from automatically; for these it shows which file to load.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from typing import Any

import click

from keras_ckpt_tools.cli.columns import Column, Row, Table, age, metric, show
from keras_ckpt_tools.cli.printing import GOOD, PROBLEMS, UNREADABLE, word_of, write_json
from keras_ckpt_tools.errors import CkptError, DamagedArtefactError
from keras_ckpt_tools.formats.kinds import plain_path
from keras_ckpt_tools.runs.listing import Run, State, read_run
from keras_ckpt_tools.runs.resume_preview import Difference, Foresight, foresee, foresee_file
from keras_ckpt_tools.showing.messages import harmless


@click.command("resume-info")
@click.argument("path", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: str, as_json: bool) -> None:
    """Show what a restart would do: which checkpoint it restores, and where it resumes.

    PATH is the directory of a CheckpointManager or a BackupAndRestore (also Keras' own), a
    directory with files of a ModelCheckpoint, or a file. Every byte of the checkpoint that would be
    restored is checked; nothing is changed.
    """
    try:
        run = read_run(path)
        found = _foreseen(plain_path(path), run)
    except CkptError as error:
        if as_json:
            write_json(UNREADABLE, command="resume-info", path=path, error=str(error))
        else:
            click.echo(harmless(f"{word_of(UNREADABLE)}: {path}: {error}"))
        sys.exit(UNREADABLE)
    status = _status(found)
    if as_json:
        write_json(status, **_facts_of(found, run))
    else:
        show([_table_of(found, run)])
    sys.exit(status)


def _foreseen(path: str, run: Run) -> Foresight:
    if not os.path.isdir(path):
        try:
            return foresee_file(path)
        except DamagedArtefactError as error:
            return Foresight(path, passed=((path, error.what),), by_itself=False)
    found = foresee(path)
    if found.chosen is not None or found.passed:
        return found
    return _of_files(found, run)


def _of_files(found: Foresight, run: Run) -> Foresight:
    """Return which file of a `ModelCheckpoint` to resume from."""
    passed = [(one.path, one.note) for one in run.checkpoints if one.state is State.DAMAGED]
    for one in reversed(run.whole):
        try:
            told = foresee_file(one.path)
        except CkptError as error:
            passed.append((one.path, error.what))
            continue
        return dataclasses.replace(told, path=run.path, passed=tuple(passed), in_use=found.in_use)
    return dataclasses.replace(found, passed=tuple(passed))


def _status(found: Foresight) -> int:
    if found.chosen is None or found.passed:
        return PROBLEMS
    return PROBLEMS if any(one.stops for one in found.differences) else GOOD


def _table_of(found: Foresight, run: Run) -> Table:
    rows = [Row(("in use", "a running program saves into this directory"))] * found.in_use
    rows += [Row(("skipped", f"{path}: {why}"), "bad") for path, why in found.passed]
    if found.chosen is not None:
        rows += _rows_of(found)
    rows += [Row(("leftover", f"{one.name}: {one.note}"), "faint") for one in _leftovers(run)]
    rows += [Row(("note", note)) for note in found.notes]
    return Table(_caption(found), (Column(""), Column("")), rows)


def _caption(found: Foresight) -> str:
    if found.chosen is None:
        refused = bool(found.passed)
        what = "no intact checkpoint to resume from" if refused else "nothing to resume from"
        return f"{found.path}: {what}"
    progress = found.progress
    batch = f", batch {progress.batches_completed:,}" if progress.batches_completed else ""
    verb = "resumes" if found.by_itself else "can resume"
    return (
        f"{found.path}: {verb} with epoch {progress.epochs_completed} (from 0){batch}, "
        f"step {progress.step:,}"
    )


def _rows_of(found: Foresight) -> list[Row]:
    progress = found.progress
    rows = [Row(("from", f"{found.chosen} ({found.kind})"), "good")]
    if progress.run_id:
        rows.append(Row(("run", progress.run_id)))
    if progress.saved_at:
        rows.append(Row(("saved", _when(progress.saved_at))))
    if progress.elapsed_s:
        rows.append(Row(("trained for", age(progress.elapsed_s) if progress.elapsed_s >= 1 else
                         f"{progress.elapsed_s:.2g} s")))  # fmt: skip
    if progress.logs:
        logs = ", ".join(f"{name} {metric(value)}" for name, value in progress.logs.items())
        rows.append(Row(("logs", logs)))
    best = progress.best
    if best is not None and best.value is not None:
        rows.append(Row(("best", f"{best.monitor} {metric(best.value)} ({best.mode})")))
    rows += [Row(("restores", _held(name, kind))) for name, kind in found.holds.items()]
    rows += [Row(("starts over", what)) for what in found.lacks]
    rows += [Row(("version", _told(one)), "bad" if one.stops else "") for one in found.differences]
    return rows


def _held(name: str, kind: str) -> str:
    return kind if name.startswith("_") or name == kind else f"{name}: {kind}"


def _when(moment: float) -> str:
    ago = age(time.time() - moment)
    told = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    return told if ago == "now" else f"{told}, {ago} ago"


def _told(one: Difference) -> str:
    here = one.installed or "none"
    refused = "; a restart refuses another major version" if one.stops else ""
    return f"{one.package} {one.saved} saved it, {here} is installed{refused}"


def _leftovers(run: Run) -> list[Any]:
    return [one for one in run.checkpoints if one.state is State.UNFINISHED]


def _facts_of(found: Foresight, run: Run) -> dict[str, Any]:
    progress = found.progress
    return {
        "command": "resume-info",
        "path": found.path,
        "from": found.chosen,
        "kind": found.kind,
        "by_itself": found.by_itself,
        "epoch": progress.epochs_completed,
        "batch": progress.batches_completed,
        "step": progress.step,
        "progress": progress.to_json(),
        "passed_over": [{"path": path, "why": why} for path, why in found.passed],
        "holds": dict(found.holds),
        "lacks": list(found.lacks),
        "versions": [dataclasses.asdict(one) for one in found.differences],
        "in_use": found.in_use,
        "leftovers": [{"path": one.path, "what": one.note} for one in _leftovers(run)],
        "notes": list(found.notes),
    }

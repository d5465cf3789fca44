"""`keras-ckpt prune`: deletes the checkpoints that a policy does not retain.

Deleted files cannot be restored. So a file is deleted only after it was shown, confirmed, and
checked again, because a run may have begun between the question and the answer.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from keras_ckpt_tools.cli.columns import Column, Row, Table, metric, show
from keras_ckpt_tools.cli.printing import GOOD, PROBLEMS, UNREADABLE, write_json
from keras_ckpt_tools.errors import ArgumentError, CkptError, PathInUseError
from keras_ckpt_tools.formats.kinds import Kind, plain_path
from keras_ckpt_tools.formats.tensorflow.recorded import SUFFIXES, is_prefix
from keras_ckpt_tools.inspection.verify import verify
from keras_ckpt_tools.metadata import Best
from keras_ckpt_tools.runs.listing import Run, State, read_run
from keras_ckpt_tools.runs.pruning import Plan, plan_pruning
from keras_ckpt_tools.runs.retention import KeepBest, KeepEvery, KeepLast, Policy
from keras_ckpt_tools.runs.tensorflow import delete_prefixes
from keras_ckpt_tools.showing.messages import harmless
from keras_ckpt_tools.showing.tables import plural, size_of
from keras_ckpt_tools.storage.commit import remove_files
from keras_ckpt_tools.storage.directory_lock import Occupancy, is_occupied

_TERM = re.compile(r"(?P<what>last|every)\s+(?P<n>\d+)|best\s+(?P<best>\d+)(?P<rest>(\s+\S+){0,2})")
_EXAMPLE = '"last 3, best 2 val_loss min, every 10"'


@click.command("prune")
@click.argument("path", type=click.Path())
@click.option("--keep", metavar="POLICY", help=f"Which checkpoints to keep: {_EXAMPLE}.")
@click.option("--keep-last", type=click.IntRange(1), metavar="N", help="Keep the newest N.")
@click.option("--keep-best", type=click.IntRange(1), metavar="N", help="Keep the best N.")
@click.option("--monitor", metavar="NAME", help="The metric for --keep-best.")
@click.option("--mode", type=click.Choice(["min", "max"]), help="Whether min or max is best.")
@click.option("--keep-every", type=click.IntRange(1), metavar="N", help="Keep every N-th epoch.")
@click.option("--pin", multiple=True, metavar="FILE", help="A file to keep. Can be repeated.")
@click.option("--run-id", metavar="ID", help="Which of several runs: the beginning of its ID.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: str, **options: Any) -> None:
    """Delete the checkpoints of a run that no policy keeps.

    PATH is the directory of a CheckpointManager, a BackupAndRestore or a ModelCheckpoint. A
    checkpoint is kept if any policy keeps it. The newest one (which is checked first), the best one
    and pinned files are always kept, and so are files that the run did not write or that cannot be
    read. The command shows what it would delete and why it keeps the rest, and asks for
    confirmation. Without a terminal, nothing is deleted unless you pass --yes. If a running program
    saves into the directory, nothing is deleted.
    """
    try:
        sys.exit(_prune(path, **options))
    except CkptError as error:
        if options["as_json"]:
            write_json(UNREADABLE, command="prune", path=path, error=str(error))
        else:
            click.echo(harmless(f"{path}: {error}"), err=True)
        # The directory can be read; it is only in use.
        sys.exit(PROBLEMS if isinstance(error, PathInUseError) else UNREADABLE)


def _prune(path: str, *, dry_run: bool, yes: bool, as_json: bool, **options: Any) -> int:
    run = _readable(path)
    given = _Given(run, options)
    _refuse_live(run)
    plan = given.plan(run)
    agreed = bool(plan.goes) and not dry_run and (yes or _may_ask(as_json))
    if not as_json:
        show([_table_of(plan, run)])
        if agreed and not yes:
            question = f"Delete {plural(len(plan.goes), 'file')}, {size_of(plan.nbytes)}?"
            agreed = click.confirm(question, default=False)
    if agreed:
        _delete(plan, given)
    if as_json:
        status = _status(plan, agreed=agreed, dry_run=dry_run)
        write_json(status, **_facts_of(plan, deleted=agreed, dry_run=dry_run))
    elif agreed:
        click.echo(f"Deleted {plural(len(plan.goes), 'file')}, {size_of(plan.nbytes)}.")
    elif plan.goes and not dry_run:
        click.echo("Nothing was deleted. Pass --yes to delete without confirmation.")
    return _status(plan, agreed=agreed, dry_run=dry_run)


def _status(plan: Plan, *, agreed: bool, dry_run: bool) -> int:
    undone = bool(plan.goes) and not agreed and not dry_run
    return PROBLEMS if plan.damaged or undone else GOOD


def _may_ask(as_json: bool) -> bool:
    return not as_json and sys.stdin.isatty() and sys.stdout.isatty()


def _readable(path: str) -> Run:
    path = plain_path(path)
    if os.path.exists(path) and not os.path.isdir(path):
        raise ArgumentError(
            "The path is a file, not a directory.",
            received=f"path={path!r}",
            remedy="Pass the directory of the run, or delete the file yourself.",
        )
    run = read_run(path)
    if not run.checkpoints:
        raise ArgumentError(
            "There is no checkpoint in this directory.",
            received=f"path={path!r}",
            remedy="Pass the directory of the checkpoints; `keras-ckpt ls` finds it.",
        )
    return run


def _refuse_live(run: Run) -> None:
    writing = [
        one for one in run.checkpoints if one.state is State.UNFINISHED and "being" in one.note
    ]
    if writing or is_occupied(run.path):
        raise PathInUseError(
            "A running program saves checkpoints to this directory. Nothing was deleted.",
            received=f"path={run.path!r}",
            remedy="Pass `max_to_keep=` or `keep=` in that program, or wait until it has ended.",
            path=run.path,
        )


def _delete(plan: Plan, given: _Given) -> None:
    """Delete the files that were shown, if none of them has changed."""
    occupancy = Occupancy(plan.path)
    occupancy.take()
    try:
        again = given.plan(read_run(plan.path))
        if [(one.path, one.identity) for one in again.goes] != [
            (one.path, one.identity) for one in plan.goes
        ]:
            raise PathInUseError(
                "The directory has changed since it was shown. Nothing was deleted.",
                received=f"path={plan.path!r}",
                remedy="Run the same command again.",
                path=plan.path,
            )
        prefixes = [one.path for one in again.goes if one.kind is Kind.TF_CHECKPOINT]
        remove_files([one.path for one in again.goes if one.path not in prefixes])
        if prefixes:
            delete_prefixes(prefixes)
    finally:
        occupancy.release()


class _Given:
    """The arguments of the command: the policies and the pinned files."""

    def __init__(self, run: Run, options: dict[str, Any]):
        self.policies = policies_of(run, options)
        self._run_id = _run_id_of(run, options["run_id"])
        self._pinned = _pinned_of(run, options["pin"])

    def plan(self, run: Run) -> Plan:
        return plan_pruning(
            run,
            self.policies,
            run_id=self._run_id,
            pinned=self._pinned,
            check=lambda path: verify(path).problems,
        )


def _run_id_of(run: Run, wanted: str | None) -> str:
    if wanted is None:
        return run.run_id
    found = [name for name in run.run_ids if name.startswith(wanted)]
    if len(found) != 1:
        raise click.BadParameter(
            f"{len(found)} runs have an ID that begins with {wanted!r}; the runs are: "
            f"{', '.join(run.run_ids)}.",
            param_hint="--run-id",
        )
    return found[0]


def _pinned_of(run: Run, names: Sequence[str]) -> list[str]:
    pinned = []
    for name in names:
        places = [name, os.path.join(run.path, name)]
        there = [place for place in places if os.path.exists(place) or is_prefix(place)]
        # Any file of a TensorFlow checkpoint stands for all of it.
        there += [
            p.removesuffix(ending) for p in there for ending in SUFFIXES if p.endswith(ending)
        ]
        if not there:
            # With a misspelled name, the file would be deleted.
            raise click.BadParameter(f"there is no file {name!r}.", param_hint="--pin")
        pinned += there
    return pinned


def policies_of(run: Run, options: dict[str, Any]) -> list[tuple[str, Policy]]:
    """Return the policies of the options, each with its name.

    Raises:
        click.UsageError: there is none, or one cannot be parsed.
    """
    best = next((one.progress.best for one in reversed(run.whole) if one.progress.best), None)
    terms = [] if options["keep"] is None else options["keep"].split(",")
    found = [_policy_of(term.strip(), run, best) for term in terms]
    if options["keep_last"]:
        found.append((f"last {options['keep_last']}", KeepLast(options["keep_last"])))
    if options["keep_best"]:
        words = [options["monitor"], options["mode"]]
        found.append(_best_policy(options["keep_best"], words, run, best))
    elif options["monitor"] or options["mode"]:
        raise click.UsageError("--monitor and --mode need --keep-best.")
    if options["keep_every"]:
        found.append((f"every {options['keep_every']}", KeepEvery(options["keep_every"])))
    if not found:
        raise click.UsageError(f"Pass which checkpoints to keep, for example --keep {_EXAMPLE}.")
    return found


def _policy_of(term: str, run: Run, best: Best | None) -> tuple[str, Policy]:
    match = _TERM.fullmatch(term)
    if match is None or "0" in (match["n"], match["best"]):
        raise click.BadParameter(
            f"{term!r} is not a policy; an example is {_EXAMPLE}.", param_hint="--keep"
        )
    if match["what"] == "last":
        return term, KeepLast(int(match["n"]))
    if match["what"] == "every":
        return term, KeepEvery(int(match["n"]))
    words = [*match["rest"].split(), None, None]
    return _best_policy(int(match["best"]), words, run, best)


def _best_policy(
    n: int, words: Sequence[str | None], run: Run, best: Best | None
) -> tuple[str, Policy]:
    monitor = words[0] or (best.monitor if best else None)
    there = dict.fromkeys(name for one in run.whole for name in one.logs)
    if monitor is None or monitor not in there:
        what = "Pass the metric for the best." if monitor is None else f"No metric {monitor!r}."
        raise click.UsageError(f"{what} Available: {', '.join(there) or 'none'}.")
    mode = words[1] or (best.mode if best and best.monitor == monitor else None)
    if mode not in ("min", "max"):
        raise click.UsageError(
            f"Pass whether the lowest or the highest {monitor!r} is best: min or max."
        )
    return f"best {n} {monitor}", KeepBest(n, monitor, mode)


def _table_of(plan: Plan, run: Run) -> Table:
    metrics = list(dict.fromkeys(n for one in run.whole for n in one.logs))[:3]
    columns = [Column(""), Column("name", flexible=True), Column("epochs", right=True)]
    columns += [Column("step", right=True), *(Column(name, right=True) for name in metrics)]
    columns += [Column("size", right=True), Column("why", flexible=True)]
    rows = []
    for verdict in plan.verdicts:
        one = verdict.checkpoint
        cells = ["delete" if verdict.goes else "keep", one.name, str(one.epoch), f"{one.step:,}"]
        cells += [metric(one.logs.get(name)) for name in metrics]
        rows.append(Row([*cells, size_of(one.size), verdict.why], "bad" if verdict.goes else ""))
    caption = (
        f"{plan.path}: {plural(len(plan.goes), 'file')} of {len(plan.verdicts):,} to delete, "
        f"{size_of(plan.nbytes)} of {size_of(sum(v.checkpoint.size for v in plan.verdicts))}"
    )
    return Table(caption, columns, rows, [f"{path}: {what}" for path, what in plan.damaged])


def _facts_of(plan: Plan, *, deleted: bool, dry_run: bool) -> dict[str, Any]:
    return {
        "command": "prune",
        "path": plan.path,
        "dry_run": dry_run,
        "deleted": deleted,
        "bytes": plan.nbytes,
        "files": [
            {
                "path": verdict.checkpoint.path,
                "size": verdict.checkpoint.size,
                "goes": verdict.goes,
                "why": verdict.why,
            }
            for verdict in plan.verdicts
        ],
        "damaged": [{"path": path, "what": what} for path, what in plan.damaged],
    }

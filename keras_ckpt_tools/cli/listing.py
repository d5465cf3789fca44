"""`keras-ckpt ls`: the checkpoints of runs.

Only records are read, no tensors: what is called whole here has no visible damage, and the line
below the table says which command reads every byte.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import click

from keras_ckpt_tools.cli.columns import (
    Column,
    Row,
    Table,
    age,
    amount,
    colours_wanted,
    lines_of,
    metric,
    show,
)
from keras_ckpt_tools.cli.printing import GOOD, PROBLEMS, UNREADABLE, word_of, write, write_json
from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.runs.listing import KeptCheckpoint, Run, State, find_runs, read_run
from keras_ckpt_tools.showing.tables import plural

__all__ = ["Listing", "command", "facts_of", "list_runs", "table_of", "watch_runs"]

_MOST_METRICS = 4
_EVERY_S = 2
_STOCK = "latest.weights.h5"
_NUMBER = re.compile(r"\d+(\.\d+)?")
_ORDERS = {
    "saved": lambda one: one.saved_at,
    "epoch": lambda one: (one.epoch, one.batch),
    "step": lambda one: one.step,
    "size": lambda one: one.size,
    "name": lambda one: one.name,
    "state": lambda one: str(one.state),
}
_STYLES = {State.DAMAGED: "bad", State.UNFINISHED: "faint", State.FOREIGN: "faint"}
_HINT = 'A "whole" checkpoint has no visible damage; `keras-ckpt verify` reads every byte.'


@dataclass(frozen=True)
class Listing:
    """What was found at the paths.

    Attributes:
        runs: The runs.
        errors: What could not be read, with the reason.
    """

    runs: tuple[Run, ...] = ()
    errors: tuple[tuple[str, str], ...] = ()

    @property
    def status(self) -> int:
        """The exit status that this means."""
        damaged = any(one.state is State.DAMAGED for run in self.runs for one in run.checkpoints)
        return UNREADABLE if self.errors else PROBLEMS if damaged else GOOD


@dataclass(frozen=True)
class Choice:
    """What of a run is shown, and in which order."""

    metrics: tuple[str, ...] = ()
    sort: str = "saved"
    reverse: bool = False
    now: float = field(default_factory=time.time)


class _WithWatch(click.Command):
    """Takes `--watch` alone and with a number, and no path for that number."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for place, (arg, after) in enumerate(pairwise([*args, ""])):
            if arg == "--":
                break
            if arg == "--watch" and not _NUMBER.fullmatch(after):
                args = [*args[:place], f"--watch={_EVERY_S}", *args[place + 1 :]]
        return super().parse_args(ctx, args)


@click.command("ls", cls=_WithWatch)
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="A metric of the logs to show; repeat it for more. Default: the first few.",
)
@click.option(
    "--sort",
    default="saved",
    show_default=True,
    metavar="KEY",
    help=f"What to sort by, the largest last: {', '.join(_ORDERS)}, or the name of a metric.",
)
@click.option("--reverse", is_flag=True, help="The largest first.")
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    metavar="[SECONDS]",
    help="Look again and again, every 2 seconds or as often as you say, until Ctrl-C.",
)
def command(
    paths: tuple[str, ...],
    as_json: bool,
    metrics: tuple[str, ...],
    sort: str,
    reverse: bool,
    watch: float | None,
) -> None:
    """List the checkpoints of runs: where training was, metrics, the best, and what is damaged.

    PATHS are directories of a CheckpointManager, a BackupAndRestore or a ModelCheckpoint, or
    folders of such directories. The newest checkpoint stands last, and the best has a *. Damage is
    what shows without reading whole files; `keras-ckpt verify` reads them.
    """
    choice = Choice(metrics, sort, reverse)
    if watch is not None:
        watch_runs(paths, choice, every=watch, as_json=as_json)
        return
    listing = list_runs(paths)
    _check_names(listing, choice)
    if as_json:
        write_json(listing.status, **facts_of(listing, choice))
    else:
        show([*(table_of(run, choice) for run in listing.runs), *error_tables(listing)])
    sys.exit(listing.status)


def list_runs(paths: Iterable[str], before: Listing | None = None) -> Listing:
    """Read the runs at some paths.

    Args:
        paths: Directories, folders of them, or files.
        before: What was read of them before: files that have not changed are not read again.
    """
    known = {run.path: run for run in before.runs} if before else {}
    runs: list[Run] = []
    errors: list[tuple[str, str]] = []
    for path in paths:
        count = len(runs) + len(errors)
        try:
            for place in find_runs(path):
                run = read_run(place, known=known.get(place))
                if run.checkpoints:
                    runs.append(run)
        except CkptError as error:
            errors.append((path, str(error)))
        if len(runs) + len(errors) == count:
            errors.append((path, "No checkpoint is in this directory or below it."))
    return Listing(tuple(runs), tuple(errors))


def _check_names(listing: Listing, choice: Choice) -> None:
    """Refuse metrics that no checkpoint has: a misspelled one would be an empty column."""
    names = dict.fromkeys(n for run in listing.runs for one in run.whole for n in one.logs)
    if not listing.runs:
        return
    sort = () if choice.sort in _ORDERS else (choice.sort,)
    for name, option in [
        *((n, "--metric") for n in choice.metrics),
        *((n, "--sort") for n in sort),
    ]:
        if name not in names:
            there = ", ".join(names) or "none"
            raise click.BadParameter(
                f"no checkpoint has a metric {name!r}; there are: {there}.", param_hint=option
            )


def _ordered(run: Run, choice: Choice) -> list[KeptCheckpoint]:
    order = _ORDERS.get(choice.sort)
    found = list(run.checkpoints)
    if order is not None:
        found.sort(key=order, reverse=choice.reverse)
    else:
        have = [one for one in found if choice.sort in one.logs]
        have.sort(key=lambda one: one.logs[choice.sort], reverse=choice.reverse)
        found = [*(one for one in found if choice.sort not in one.logs), *have]
    return found


def _metrics_of(run: Run, choice: Choice) -> Sequence[str]:
    if choice.metrics:
        return choice.metrics
    there = dict.fromkeys(name for one in run.whole for name in one.logs)
    best = run.progress.best
    if best is None or best.monitor not in there:
        return list(there)[:_MOST_METRICS]
    # The monitored metric is always one of them, at its place among the others.
    first = [name for name in there if name != best.monitor][: _MOST_METRICS - 1]
    return [name for name in there if name in (*first, best.monitor)]


def table_of(run: Run, choice: Choice) -> Table:
    """Return a run as a table."""
    metrics = _metrics_of(run, choice)
    ordered = _ordered(run, choice)
    in_epoch = any(one.batch for one in ordered)
    several = len(run.run_ids) > 1
    columns = [Column(""), Column("name", flexible=True), Column("epochs", right=True)]
    columns += [Column("batch", right=True)] * in_epoch
    columns += [Column("step", right=True), *(Column(name, right=True) for name in metrics)]
    columns += [Column("age", right=True), Column("size", right=True), Column("state")]
    columns += [Column("run")] * several
    rows = []
    for one in ordered:
        told = one.state is State.WHOLE
        cells = ["*" if one.best else "", one.name, str(one.epoch) if told else ""]
        cells += [str(one.batch) if told else ""] * in_epoch
        cells += [f"{one.step:,}" if told else ""]
        cells += [metric(one.logs.get(name)) for name in metrics]
        cells += [age(choice.now - one.saved_at) if one.saved_at else "", amount(one.size)]
        cells += [str(one.state), *([one.run_id[:8]] * several)]
        rows.append(Row(cells, "good" if one.best else _STYLES.get(one.state, "")))
    return Table(_caption(run), columns, rows, _notes(run))


def _caption(run: Run) -> str:
    size = sum(one.size for one in run.checkpoints)
    parts = [plural(len(run.whole), "checkpoint"), amount(size)]
    if run.newest:
        parts.append(f"{plural(run.progress.epochs_completed, 'epoch')} completed")
        parts.append(f"step {run.progress.step:,}")
    best = run.progress.best
    if best and best.value is not None:
        epoch = "" if best.epoch is None else f" in epoch {best.epoch} (from 0)"
        parts.append(f"best {best.monitor} {metric(best.value)}{epoch}")
    return f"{run.path}: {', '.join(parts)}"


def _notes(run: Run) -> list[str]:
    notes = [
        f"{one.name}: {one.state}: {one.note}"
        for one in run.checkpoints
        if one.note and one.state in (State.DAMAGED, State.UNFINISHED)
    ]
    later = {one.note for one in run.checkpoints if one.state is State.FOREIGN and one.note}
    foreign = sum(one.state is State.FOREIGN for one in run.checkpoints)
    if foreign:
        what = "; ".join(sorted(later))
        notes.append(f"{plural(foreign, 'file')} not written by this package: {what}")
    if any(one.name.startswith(_STOCK) and one.state is State.FOREIGN for one in run.checkpoints):
        notes.append("A backup of Keras' own: `keras-ckpt resume-info` says where it is")
    monitored = run.best and (run.best.progress.best or run.progress.best)
    if monitored:
        other = run.best is not None and run.best.run_id != run.run_id
        whose = f", of an earlier run ({run.best.run_id[:8]})" if run.best and other else ""
        notes.append(f"* the best {monitored.monitor} ({monitored.mode}) that is there{whose}")
    return [*notes, _HINT] if run.whole else notes


def error_tables(listing: Listing) -> list[Table]:
    """Return what could not be read, for people."""
    return [Table(f"{word_of(UNREADABLE)}: {path}: {why}") for path, why in listing.errors]


def facts_of(listing: Listing, choice: Choice) -> dict[str, Any]:
    """Return the same and more, for programs."""
    return {
        "command": "ls",
        "runs": [_facts_of_run(run, choice) for run in listing.runs],
        "errors": [{"path": path, "error": why} for path, why in listing.errors],
    }


def _facts_of_run(run: Run, choice: Choice) -> dict[str, Any]:
    return {
        "path": run.path,
        "run_id": run.run_id,
        "run_ids": list(run.run_ids),
        "progress": run.progress.to_json(),
        "newest": run.newest.path if run.newest else None,
        "best": run.best.path if run.best else None,
        "missing_numbers": list(run.missing_numbers),
        "restarts": [vars(one) for one in run.restarts],
        "checkpoints": [_facts_of_checkpoint(one) for one in _ordered(run, choice)],
    }


def _facts_of_checkpoint(one: KeptCheckpoint) -> dict[str, Any]:
    return {
        "path": one.path,
        "name": one.name,
        "kind": str(one.kind),
        "state": str(one.state),
        "note": one.note,
        "best": one.best,
        "epochs_completed": one.epoch,
        "batches_completed": one.batch,
        "step": one.step,
        "logs": one.progress.to_json()["logs"],
        "saved_at": one.saved_at,
        "size": one.size,
        "number": one.number,
        "pattern": one.pattern,
        "run_id": one.run_id,
    }


def watch_runs(paths: Sequence[str], choice: Choice, *, every: float, as_json: bool) -> None:
    """Show runs until the user stops it, which is the way it ends.

    Args:
        paths: Directories, which need not be there yet.
        choice: What of them is shown.
        every: Seconds between two looks.
        as_json: Whether each change is one line of JSON.
    """
    live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not as_json
    try:
        if live:
            _draw(paths, choice, every)
        else:
            _log(paths, choice, every, as_json=as_json)
    except KeyboardInterrupt:
        return


def _log(paths: Sequence[str], choice: Choice, every: float, *, as_json: bool) -> None:
    listing: Listing | None = None
    while True:
        found = list_runs(paths, listing)
        if found != listing:
            now = dataclasses.replace(choice, now=time.time())
            if as_json:
                write_json(found.status, **facts_of(found, now))
            else:
                write(time.strftime("%Y-%m-%d %H:%M:%S"))
                show(_tables(found, now))
        listing = found
        time.sleep(every)


def _draw(paths: Sequence[str], choice: Choice, every: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(no_color=not colours_wanted())
    listing: Listing | None = None
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            listing = list_runs(paths, listing)
            tables = _tables(listing, dataclasses.replace(choice, now=time.time()))
            text = "\n".join(_fitting(tables))
            live.update(Text.from_ansi(text, no_wrap=True, overflow="crop"), refresh=True)
            time.sleep(every)


def _tables(listing: Listing, choice: Choice) -> list[Table]:
    waiting: list[Any] = []
    if not listing.runs:
        paths = ", ".join(path for path, _ in listing.errors)
        return [Table(f"{paths}: no checkpoint yet; waiting (Ctrl-C to stop)")]
    waiting += error_tables(listing)
    return [*(table_of(run, choice) for run in listing.runs), *waiting]


def _fitting(tables: Sequence[Table]) -> list[str]:
    """Return tables as lines that fit the terminal, each with its newest rows."""
    size = shutil.get_terminal_size()
    # A caption, a header, the line on what is left out, and one between two tables.
    beside = sum(4 + len(table.notes) for table in tables)
    each = max((size.lines - 1 - beside) // len(tables), 1)
    lines: list[str] = []
    for table in tables:
        lines += [""] * bool(lines)
        lines += lines_of(table, size.columns - 1, colours=colours_wanted(), most_rows=each)
    return lines

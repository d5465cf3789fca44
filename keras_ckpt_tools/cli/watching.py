"""`keras-ckpt ls --watch`: the same list, again and again, until Ctrl-C.

On a terminal it is drawn over itself. Anywhere else a log would fill with copies, so a list is
printed only when something has changed.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from keras_ckpt_tools.cli.columns import Table, colours_wanted, lines_of, show
from keras_ckpt_tools.cli.listing import (
    Choice,
    Listing,
    error_tables,
    facts_of,
    list_runs,
    table_of,
)
from keras_ckpt_tools.cli.printing import write, write_json

__all__ = ["watch_runs"]


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

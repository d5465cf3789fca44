"""Draw tables with a header, for a terminal or a pipe.

On a terminal, no line is wider than the terminal: names are shortened in their middle first,
because their ends distinguish files. A pipe gets every character. Colours are for terminals only,
and not if `NO_COLOR` is set (no-color.org). It does not use rich, which takes too long for ten
thousand rows.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from keras_ckpt_tools.cli.printing import write
from keras_ckpt_tools.showing.tables import printable

_STYLES = {"head": "1", "good": "32", "bad": "31", "faint": "2"}
_LEAST = 8


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: Its heading.
        right: Whether it is aligned to the right, like numbers.
        flexible: Whether it may be shortened if there is not enough space.
    """

    name: str
    right: bool = False
    flexible: bool = False


@dataclass(frozen=True)
class Row:
    """A row: its cells and its style, `"good"`, `"bad"` or `"faint"`."""

    cells: Sequence[str]
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a line above it and lines below it.

    Attributes:
        caption: One line about it.
        columns: Its columns.
        rows: Its rows.
        notes: Lines below the rows.
    """

    caption: str
    columns: Sequence[Column] = ()
    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()


def colours_wanted() -> bool:
    """Return whether standard output is a terminal that shows colours, and the user wants them."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def show(tables: Sequence[Table]) -> None:
    """Print tables, one below the other."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    colours = colours_wanted()
    for index, table in enumerate(tables):
        lines = lines_of(table, width, colours=colours)
        write("\n".join([""] * (index > 0) + lines))


def lines_of(
    table: Table, width: int | None, *, colours: bool = False, most_rows: int | None = None
) -> list[str]:
    """Return a table as lines.

    Args:
        table: The table.
        width: Columns of the terminal; `None` for no limit.
        colours: Whether styles are shown.
        most_rows: Maximum number of rows; the last ones are shown.

    >>> rows = [Row(["a.keras", "1"]), Row(["b.keras", "12"])]
    >>> for line in lines_of(Table("two", [Column("name"), Column("step", right=True)], rows), 80):
    ...     print(line)
    two
      name     step
      a.keras     1
      b.keras    12
    """
    hidden = len(table.rows) - most_rows if most_rows is not None else 0
    rows = table.rows[hidden:] if hidden > 0 else table.rows
    cells = [[printable(column.name) for column in table.columns]]
    cells += [[printable(cell) for cell in row.cells] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        _shrink(widths, table.columns, width)
    lines = [_styled(_fitted(printable(table.caption), width), "head", colours)]
    if rows:
        styles = ["head", *(row.style for row in rows)]
        has_header = any(cells[0])
        for line, style in zip(_laid_out(cells, widths, table.columns), styles, strict=True):
            lines.append(_styled(_fitted(line, width), style, colours))
        if not has_header:
            del lines[1]
        if hidden > 0:
            lines.insert(1 + has_header, _styled(f"  ... {hidden:,} earlier", "faint", colours))
    lines += [_fitted(f"  {printable(note)}", width) for note in table.notes]
    return lines


def _shrink(widths: list[int], columns: Sequence[Column], width: int) -> None:
    flexible = [index for index, column in enumerate(columns) if column.flexible]
    over = sum(widths) + 2 * len(widths) - width
    while over > 0 and flexible:
        widest = max(flexible, key=lambda index: widths[index])
        if widths[widest] <= _LEAST:
            return
        widths[widest] -= 1
        over -= 1


def _laid_out(
    cells: Sequence[Sequence[str]], widths: Sequence[int], columns: Sequence[Column]
) -> Iterator[str]:
    for row in cells:
        parts = []
        for cell, width, column in zip(row, widths, columns, strict=True):
            if len(cell) <= width and cell.isascii():
                parts.append(cell.rjust(width) if column.right else cell.ljust(width))
                continue
            text = _shortened(cell, width)
            padding = " " * (width - _width(text))
            parts.append(padding + text if column.right else text + padding)
        yield ("  " + "  ".join(parts)).rstrip()


def _shortened(text: str, width: int) -> str:
    """Return text with its middle left out, if it is too wide.

    >>> _shortened("weights-0001.keras", 12)
    'weights...as'
    """
    if _width(text) <= width:
        return text
    begin, end = text[: width * 2 // 3], text
    while _width(begin) > max(width * 2 // 3 - 1, 1):
        begin = begin[:-1]
    while end and _width(begin) + 3 + _width(end) > width:
        end = end[1:]
    return f"{begin}...{end}"


def _fitted(line: str, width: int | None) -> str:
    if width is None or _width(line) <= width:
        return line
    while line and _width(line) > width - 3:
        line = line[: min(len(line) - 1, width - 3)]
    return f"{line}..."


def _width(text: str) -> int:
    """Return the width of a text on a terminal.

    >>> _width("abc"), _width("模型"), _width("e\u0301")
    (3, 4, 1)
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _styled(text: str, style: str, colours: bool) -> str:
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if colours and style else text


_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def age(seconds: float) -> str:
    """Return a duration in its largest unit.

    >>> age(0.2), age(59), age(3 * 3600 + 5), age(-1)
    ('now', '59 s', '3 h', 'now')
    """
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


def metric(value: float | None) -> str:
    """Return the value of a metric; empty if there is none.

    >>> metric(0.123456), metric(None), metric(float("nan"))
    ('0.1235', '', 'nan')
    """
    return "" if value is None else f"{value:.4g}"

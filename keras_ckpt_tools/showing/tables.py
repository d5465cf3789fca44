"""Show rows as text and as HTML.

Text from files is escaped here, because it could move the cursor in a terminal or be markup in a
notebook. The HTML sets no colours, so it fits the light and dark themes of notebooks.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from keras_ckpt_tools.showing.messages import harmless

_LONGEST = 500


def printable(text: str) -> str:
    r"""Return text as one line without control characters.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    shown = harmless(text).replace("\n", "\\n")
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


def as_text(caption: str, rows: Iterable[Sequence[str]]) -> str:
    """Return a caption and rows in columns.

    >>> print(as_text("two", [("a", "1"), ("long", "2")]))
    two
      a     1
      long  2
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]
    return "\n".join([printable(caption), *(line.rstrip() for line in lines)])


def as_html(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the same as an HTML table, with everything escaped.

    >>> as_html("two", ["name"], [["<b>"]])
    '<table><caption>two</caption><tr><th>name</th></tr><tr><td>&lt;b&gt;</td></tr></table>'
    """
    head = "".join(f"<th>{_escaped(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><caption>{_escaped(caption)}</caption><tr>{head}</tr>{body}</table>"


def facts_as_html(caption: str, facts: Mapping[str, str]) -> str:
    """Return names and what they stand for as an HTML table, with everything escaped.

    >>> facts_as_html("one", {"step": "<3"})
    '<table><caption>one</caption><tr><th>step</th><td>&lt;3</td></tr></table>'
    """
    body = "".join(
        f"<tr><th>{_escaped(name)}</th><td>{_escaped(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table><caption>{_escaped(caption)}</caption>{body}</table>"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "checkpoint"), plural(1200, "epoch")
    ('1 checkpoint', '1,200 epochs')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size_of(nbytes: float) -> str:
    """Return a number of bytes in a unit that keeps it short, of 1000 as disks are sold.

    >>> size_of(42), size_of(1_500), size_of(3_200_000_000)
    ('42 B', '1.5 kB', '3.2 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 999.5:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:,.3g} TB"


def _escaped(text: str) -> str:
    return html.escape(printable(text))

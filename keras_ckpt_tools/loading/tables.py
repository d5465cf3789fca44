"""Lay rows out as text and as HTML: reports -> *reader*.

What a file says about itself is somebody else's text. In a terminal it could move the cursor and
rewrite what stands above it, in a notebook it could be markup; so both are made harmless here, in
the one place where reports turn into tables.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ["as_html", "as_text", "printable"]

_LONGEST = 500


def printable(text: str) -> str:
    r"""Return text as one line without control characters.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    shown = text
    if not text.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
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
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(printable(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    top = f"<caption>{html.escape(printable(caption))}</caption>"
    return f"<table>{top}<tr>{head}</tr>{body}</table>"

"""The registry as a table, in a terminal and in a notebook.

What kind of thing an entry is, is told by the names of its base classes: showing a table must not
import Keras. Names come from anybody's code, so both tables are made harmless where all tables are.
"""

from __future__ import annotations

from collections.abc import Iterable

from keras_ckpt_tools.registry.entries import Entry
from keras_ckpt_tools.showing.tables import as_html, printable

__all__ = ["html_table", "kind_of", "text_table"]

_HEADINGS = ("name", "kind", "version", "aliases", "defined at")
_KINDS = {
    "Model": "model",
    "Layer": "layer",
    "Loss": "loss",
    "Metric": "metric",
    "LearningRateSchedule": "schedule",
    "BaseOptimizer": "optimizer",
    "Initializer": "initializer",
    "Regularizer": "regularizer",
    "Constraint": "constraint",
    "Operation": "operation",
}


def kind_of(obj: object) -> str:
    """Return what a class or function is, in Keras' words.

    >>> kind_of(kind_of), kind_of(dict)
    ('function', 'class')
    """
    if not isinstance(obj, type):
        return "function"
    for base in obj.__mro__:
        if base.__module__.partition(".")[0] == "keras" and base.__name__ in _KINDS:
            return _KINDS[base.__name__]
    return "class"


def text_table(entries: Iterable[Entry]) -> str:
    """Return the table as text, one row a line."""
    rows = _rows(entries)
    if not rows:
        return 'No objects registered. Decorate one with @register("my_package").'
    table = [_HEADINGS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADINGS))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def html_table(entries: Iterable[Entry]) -> str:
    """Return the table as HTML."""
    rows = _rows(entries)
    caption = f"{len(rows)} registered object{'' if len(rows) == 1 else 's'}"
    return as_html(caption, _HEADINGS, rows)


def _rows(entries: Iterable[Entry]) -> list[tuple[str, ...]]:
    cells = (
        (e.name, kind_of(e.obj), str(e.version), ", ".join(e.aliases), e.place) for e in entries
    )
    return [tuple(map(printable, row)) for row in cells]

"""Print the results of commands as text or JSON, and return the exit status.

On a terminal, tables are drawn in colours with rich. Elsewhere (a pipe, a CI log) they are plain
text and never cut, and rich is not imported: it would take a third of the time of a whole call.
Text from files is escaped in both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_ckpt_tools.showing.tables import as_text, printable

GOOD, PROBLEMS, UNREADABLE = 0, 1, 2

# Increases when a key is removed or changes its meaning; new keys can be added at any time.
JSON_FORMAT = 1

_COLOURS = {GOOD: "green", PROBLEMS: "yellow", UNREADABLE: "red"}
_WORDS = {GOOD: "good", PROBLEMS: "problems", UNREADABLE: "unreadable"}


@dataclass(frozen=True)
class Answer:
    """The result of a command for one file.

    Attributes:
        status: `GOOD`, `PROBLEMS` or `UNREADABLE`.
        caption: One line about it.
        lines: More lines, printed unchanged.
        rows: The result in columns.
        facts: The result as JSON values.
        word: Another word for the status, for example `"different"`.
    """

    status: int
    caption: str
    rows: Sequence[Sequence[str]] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    word: str = ""
    lines: Sequence[str] = ()

    @property
    def verdict(self) -> str:
        """The status as a word."""
        return self.word or _WORDS[self.status]


def answer(answers: Iterable[Answer], *, as_json: bool) -> int:
    """Print each result as soon as it is known; return the highest exit status.

    With `as_json`, print one JSON object: `format`, `status`, and `files` with one object for each.
    """
    worst = GOOD
    files = []
    show = _on_terminal() if sys.stdout.isatty() and not as_json else _as_plain_text
    for one in answers:
        worst = max(worst, one.status)
        if as_json:
            files.append({"status": one.verdict, **one.facts})
        else:
            show(one)
    if as_json:
        write_json(worst, files=files)
    return worst


def write_json(status: int | str, **facts: Any) -> None:
    """Print the result of a command as one JSON object.

    It begins with `format` and `status` (`"good"`, `"problems"`, `"unreadable"`, or the command's
    own word). It is indented on a terminal, and one line elsewhere.
    """
    word = status if isinstance(status, str) else word_of(status)
    document = {"format": JSON_FORMAT, "status": word, **facts}
    write(json.dumps(document, indent=2 if sys.stdout.isatty() else None))


def word_of(status: int) -> str:
    """Return an exit status as a word.

    >>> word_of(GOOD), word_of(PROBLEMS)
    ('good', 'problems')
    """
    return _WORDS[status]


def answer_one(one: Answer, *, as_json: bool) -> int:
    """Print the only result of a command; return its exit status."""
    if as_json:
        write_json(one.verdict, **one.facts)
        return one.status
    return answer([one], as_json=False)


def _as_plain_text(one: Answer) -> None:
    lines = (as_text(f"{one.verdict}: {one.caption}", ()), *map(printable, one.lines))
    table = as_text("", one.rows).split("\n")[1:]
    write("\n".join([*lines, *table]))


def write(text: str) -> None:
    """Print text with any characters, in any encoding of standard output."""
    # A file name may have bytes that are not valid text; printing must not fail on them.
    data = text.encode(sys.stdout.encoding or "utf-8", "backslashreplace")
    sys.stdout.flush()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.flush()


def _on_terminal() -> Any:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()

    def show(one: Answer) -> None:
        console.print(Text.assemble(
            (f" {one.verdict} ", f"reverse {_COLOURS[one.status]}"),
            f" {printable(one.caption)}",
        ))  # fmt: skip
        for line in one.lines:
            console.print(Text(printable(line)))
        if one.rows:
            table = Table(box=box.SIMPLE, show_header=False)
            for row in one.rows:
                table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
            console.print(table)

    return show

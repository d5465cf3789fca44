"""The table of checkpoints on a report page.

Deleted checkpoints are listed too, in grey, to explain gaps in the numbers. Several deleted saves
in a row share one line, so the table of a long run stays short.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from keras_ckpt_tools.pictures.curves import Curves, Panel, number
from keras_ckpt_tools.pictures.run_facts import moment
from keras_ckpt_tools.pictures.run_summary import Save, Story
from keras_ckpt_tools.pictures.svg import shown
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.showing.tables import printable, size_of

_MOST_ROWS = 1_000
_MOST_METRICS = 4
# So many saves in a row that are gone share a line.
_TOGETHER = 4


def checkpoint_table(story: Story, curves: Curves, panels: Sequence[Panel]) -> str:
    """Return the table.

    Args:
        story: The run.
        curves: The same, laid out; its lines say what the metrics were at a save that is gone.
        panels: Its metrics; the first few have columns.
    """
    metrics = [panel.metrics[0] for panel in panels][:_MOST_METRICS]
    head = ("checkpoint", "epochs", "step", *metrics, "saved", "size")
    titles = "".join(
        f'<th scope="col"{_numeric(name, metrics)}>{_text(name)}</th>' for name in head
    )
    rows = list(_rows(story, curves, metrics, head))
    left_out = ""
    if len(rows) > _MOST_ROWS:
        left_out = f'<p class="note">The {len(rows) - _MOST_ROWS:,} lines before are left out.</p>'
    return (
        f"{left_out}<table><thead><tr>{titles}</tr></thead>"
        f"<tbody>{''.join(rows[-_MOST_ROWS:])}</tbody></table>"
    )


def _text(value: object) -> str:
    return html.escape(printable(str(value)))


def _numeric(name: str, metrics: Sequence[str]) -> str:
    return ' class="n"' if name in ("epochs", "step", "size", *metrics) else ""


def _rows(
    story: Story, curves: Curves, metrics: Sequence[str], head: Sequence[str]
) -> Iterator[str]:
    for gone, group in groupby(curves.saves, lambda pair: pair[1].file is None):
        saves = list(group)
        if gone and len(saves) >= _TOGETHER:
            first, last = saves[0][1].place, saves[-1][1].place
            word = "deleted" if saves[0][1].state == "deleted" else "saved"
            yield _row(
                head, metrics, "gone", f"{len(saves):,} saves, {word}", [],
                (f"{first.epochs:,} to {last.epochs:,}", f"{first.step:,} to {last.step:,}"),
            )  # fmt: skip
            continue
        for x, save in saves:
            yield _save(story, curves, metrics, head, x, save)
    listed = {save.file.path for save in story.saves if save.file}
    for one in story.run.checkpoints if story.run else ():
        if one.path not in listed:
            yield _other(one, story, metrics, head)


def _save(
    story: Story, curves: Curves, metrics: Sequence[str], head: Sequence[str], x: float, save: Save
) -> str:
    place, file = save.place, save.file
    epochs = f"{place.epochs:,}" + (f" + {place.batches:,} batches" if place.batches else "")
    if file is None:
        # The record has the logs of complete epochs only.
        lines = [None if place.batches else curves.lines.get(metric) for metric in metrics]
        values = [_value(line.at(x) if line and x in line.xs else None) for line in lines]
        word = "deleted" if save.state == "deleted" else "saved"
        return _row(head, metrics, "gone", word, [], (epochs, f"{place.step:,}", *values))
    values = [_value(_logged(file, curves, metric, x)) for metric in metrics]
    newest = story.run is not None and story.run.newest is not None
    tags = [("is-best", "best")] if file.best else []
    if newest and story.run and story.run.newest and story.run.newest.path == file.path:
        tags.append(("is-newest", "newest"))
    cells = (epochs, f"{place.step:,}", *values, moment(file.saved_at), size_of(file.size))
    return _row(head, metrics, "best" if file.best else "", file.name, tags, cells)


def _logged(file: CheckpointEntry, curves: Curves, metric: str, x: float) -> float | None:
    if metric in file.logs:
        return number(file.logs[metric])
    line = curves.lines.get(metric)
    return line.at(x) if line and not file.batch and x in line.xs else None


def _value(value: float | None) -> str:
    if value is None:
        return ""
    return shown(value) if math.isfinite(value) else "not finite"


def _other(one: CheckpointEntry, story: Story, metrics: Sequence[str], head: Sequence[str]) -> str:
    tags = [("is-bad", str(one.state))] if not one.ours else [("", "of another run")]
    if one.ours and one.run_id == story.progress.run_id:
        tags = [("", "saved at the same place")]
    places = (f"{one.epoch:,}", f"{one.step:,}") if one.ours else ("", "")
    cells = (*places, *("" for _ in metrics), moment(one.saved_at), size_of(one.size))
    name = f"{one.name}: {one.note}" if one.note else one.name
    return _row(head, metrics, "gone", name, tags, cells)


def _row(
    head: Sequence[str],
    metrics: Sequence[str],
    kind: str,
    name: str,
    tags: Sequence[tuple[str, str]],
    cells: Sequence[str],
) -> str:
    filled = [*cells, *[""] * (len(head) - 1 - len(cells))]
    shown_tags = "".join(f' <span class="tag {kind}">{_text(word)}</span>' for kind, word in tags)
    columns = "".join(
        f'<td data-label="{_text(title)}"{_numeric(title, metrics)}>{_text(cell)}</td>'
        if cell
        else "<td></td>"
        for title, cell in zip(head[1:], filled, strict=True)
    )
    kind = f' class="{kind}"' if kind else ""
    return f'<tr{kind}><th scope="row">{_text(name)}{shown_tags}</th>{columns}</tr>'

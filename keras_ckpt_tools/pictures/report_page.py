"""One page about a run, for a colleague: story -> *page* -> browser, paper.

The page is one file that asks nobody for anything: it can be mailed, archived and opened in ten
years. It says what the files of the run say, so it says nothing about the run that a reader of the
files could not check. All of that is somebody else's text, and is escaped where it enters a tag.
"""

from __future__ import annotations

import html
import os
import time
from collections.abc import Iterable, Sequence

from keras_ckpt_tools._version import __version__
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.pictures.checkpoint_table import checkpoint_table
from keras_ckpt_tools.pictures.curves import By, Curves, Panel, curves_of, panels_of
from keras_ckpt_tools.pictures.page_style import STYLE
from keras_ckpt_tools.pictures.run_facts import RunFacts, duration, facts_of, moment
from keras_ckpt_tools.pictures.story import Story, story_of_directory
from keras_ckpt_tools.pictures.svg import STAR, panel_as_svg, shown
from keras_ckpt_tools.showing.tables import printable

__all__ = ["report_page"]


_NUMBERS = ("tensors", "numbers", "size", "step")


def report_page(path: str | os.PathLike[str], *, title: str | None = None) -> str:
    """Return a page of HTML about a run: its curves, checkpoints, objects, versions and settings.

    Args:
        path: The directory of a run, or one file of it.
        title: Heading of the page. Default: the name of the directory or file.

    Raises:
        ArtefactNotFoundError: nothing is there.
        ArtefactError: there is, and no checkpoint of this package is in it.

    Example:

    >>> report_page("nothing/here")
    Traceback (most recent call last):
    keras_ckpt_tools.errors.ArtefactNotFoundError: ...
    """
    name = os.path.basename(os.path.abspath(os.fspath(path)))
    story = story_of_directory(path, title or name)
    by: By = "epoch" if story.progress.epochs_completed else "step"
    curves = curves_of(story, by)
    try:
        panels = panels_of([curves])
    except ArgumentError:
        panels = []  # Not one epoch has ended; all the rest can be said.
    facts = facts_of(story)
    assert story.run is not None
    body = "".join(
        (
            _header(story, os.fspath(path)),
            _figures(story, curves),
            _curves(curves, panels, by),
            "<section><h2>Checkpoints</h2>",
            checkpoint_table(story, curves, panels),
            "</section>",
            _restarts(story),
            _facts(facts),
        )
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(story.name)}: training run</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>{body}</main>\n{_footer()}\n"
        "</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return html.escape(printable(str(value)))


def _header(story: Story, path: str) -> str:
    progress = story.progress
    began = f"Began {moment(progress.started_at)}" if progress.started_at else ""
    saved = f"last saved {moment(progress.saved_at)}" if progress.saved_at else ""
    said = ", ".join(part for part in (began, saved) if part)
    # As it was given: where it lies on somebody's disk is nothing to send around.
    return (
        f'<header><h1>{_text(story.name)}</h1><p class="path">{_text(path)}</p>'
        f'<p class="soft">{_text(said + "." if said else "")}</p></header>'
    )


def _figures(story: Story, curves: Curves) -> str:
    progress = story.progress
    kept = [save for save in story.saves if save.state == "kept"]
    under_way = f"and {progress.batches_completed:,} batches" if progress.batches_completed else ""
    figures = [
        ("Epochs completed", f"{progress.epochs_completed:,}", under_way),
        ("Steps", f"{progress.step:,}", ""),
    ]
    if curves.best is not None:
        epoch = f"in epoch {curves.best.epoch:,}"
        figures.append((f"Best {curves.best.metric}", shown(curves.best.y), epoch))
    figures.append(("Time in training", duration(progress.elapsed_s), ""))
    if len(kept) != len(story.saves):
        figures.append(("Checkpoints kept", f"{len(kept):,}", f"of {len(story.saves):,} saved"))
    else:
        figures.append(("Checkpoints", f"{len(kept):,}", ""))
    figures.append(("Restarts", f"{len(story.restarts):,}", ""))
    shown_figures = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}"
        + (f"<small>{_text(more)}</small>" if more else "")
        + "</dd></div>"
        for name, value, more in figures
    )
    return f'<dl class="figures">{shown_figures}</dl>'


def _curves(curves: Curves, panels: Sequence[Panel], by: By) -> str:
    if not panels:
        return (
            '<section><h2>Curves</h2><p class="note">No epoch has ended yet, so there is no curve.'
            "</p></section>"
        )
    drawn = []
    for number, panel in enumerate(panels):
        last = [
            f"{word} {shown(curves.lines[metric].ys[-1])}"
            for word, metric in (("training", panel.train), ("validation", panel.validation))
            if metric in curves.lines
        ]
        said = ", ".join(last) if panel.validation else last[0].partition(" ")[2]
        drawn.append(
            f"<figure><figcaption>{_text(panel.title)}<span>last: {_text(said)}</span>"
            f"</figcaption>{panel_as_svg(curves, panel, by, f'panel-{number}')}</figure>"
        )
    return (
        f"<section><h2>Curves</h2>{_legend(curves, panels)}"
        f'<div class="curves">{"".join(drawn)}</div></section>'
    )


_SAMPLES = {
    "validation": '<path class="curve main" d="M1 7H25"/>',
    "training": '<path class="curve second" d="M1 7H25"/>',
    "saved, kept": '<circle class="kept" cx="13" cy="7" r="4"/>',
    "saved": '<circle class="saved" cx="13" cy="7" r="3.2"/>',
    "saved, deleted": '<circle class="deleted" cx="13" cy="7" r="3.6"/>',
    "best": f'<path class="star" transform="translate(13 7) scale(.85)" d="{STAR}"/>',
    "restart": '<path class="restart" d="M13 0V14"/>',
}


def _legend(curves: Curves, panels: Sequence[Panel]) -> str:
    states = {save.state for _, save in curves.saves}
    paired = any(panel.validation and panel.train for panel in panels)
    there = {
        "validation": paired,
        "training": paired,
        "saved, kept": "kept" in states,
        "saved": "saved" in states,
        "saved, deleted": "deleted" in states,
        "best": curves.best is not None,
        "restart": bool(curves.restarts),
    }
    items = "".join(
        f'<li><svg viewBox="0 0 26 14" aria-hidden="true">{_SAMPLES[name]}</svg>{name}</li>'
        for name, is_there in there.items()
        if is_there
    )
    return f'<ul class="legend">{items}</ul>'


def _restarts(story: Story) -> str:
    rows = [
        (
            f"epoch {place.epochs}" + (f" and {place.batches} batches" if place.batches else ""),
            f"{place.step:,}",
            moment(one[3]) if len(one) > 3 else "",
        )
        for place, one in zip(story.restarts, story.progress.restarts, strict=False)
    ]
    if not rows:
        return ""
    table = _table(("gone on with after", "step", "when"), rows[-200:])
    return f"<section><h2>Restarts</h2>{table}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f'<th scope="col"{_aligned(name)}>{_text(name)}</th>' for name in head)
    body = []
    for first, *others in rows:
        cells = "".join(
            f'<td data-label="{_text(name)}"{_aligned(name)}>{_text(cell)}</td>'
            for name, cell in zip(head[1:], others, strict=True)
        )
        body.append(f'<tr><th scope="row">{_text(first)}</th>{cells}</tr>')
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _aligned(name: str) -> str:
    return ' class="n"' if name in _NUMBERS else ""


def _facts(facts: RunFacts) -> str:
    if facts.note:
        return f'<section><h2>Contents</h2><p class="note">{_text(facts.note)}</p></section>'
    parts = [f"<section><h2>Contents of {_text(facts.name)}</h2>"]
    parts.append(_table(("part", "kind", "tensors", "numbers", "size"), facts.parts))
    if facts.tensors:
        more = f", the first {len(facts.tensors):,}" if facts.more_tensors else ""
        table = _table(("tensor", "shape", "type", "size"), facts.tensors)
        parts.append(f"<details><summary>All tensors{more}</summary>{table}</details>")
    if facts.objects:
        parts.append("<h2>Custom objects it needs</h2>")
        parts.append(_table(("name", "defined in", "version", "package"), facts.objects))
    else:
        parts.append('<p class="soft">It needs no custom objects.</p>')
    lists = (("Settings", facts.settings), ("Written with", facts.versions))
    blocks = "".join(
        f"<div><h3>{name}</h3><dl>"
        + "".join(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in pairs)
        + "</dl></div>"
        for name, pairs in lists
        if pairs
    )
    heading = "Settings and versions" if facts.settings else "Versions"
    blocks = blocks if facts.settings else blocks.replace("<h3>Written with</h3>", "")
    parts.append(f'<h2>{heading}</h2><div class="facts">{blocks}</div></section>')
    return "".join(parts)


def _footer() -> str:
    now = moment(time.time())
    return (
        f"<footer><p>Made by keras_ckpt_tools {_text(__version__)} on {now} from the records in "
        "the files of the run. No tensor was read: <code>keras-ckpt verify</code> checks every "
        "byte.</p></footer>"
    )

"""Write an HTML page about a run.

The page is one file that loads nothing else: it can be mailed and archived. It contains only what
the files of the run contain. Their text is third-party text, and is escaped.
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
from keras_ckpt_tools.pictures.run_facts import RunFacts, duration, facts_of, moment
from keras_ckpt_tools.pictures.run_summary import Story, story_of_directory
from keras_ckpt_tools.pictures.svg import STAR, panel_as_svg, shown
from keras_ckpt_tools.showing.tables import printable

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
    # As it was passed: the absolute path should not be published.
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


_DARK = """
--ground:#11151b;--card:#181e26;--text:#e7eaf0;--soft:#a0abba;--line:#2d3541;
--accent:#79b0ff;--second:#6d93c7;--gone:#8391a3;--gold:#f3c34d;--gold-edge:#11151b;
--good:#6fd0a0;--bad:#ff9c94;--wash:#1c2836;
"""

STYLE = f"""
:root{{color-scheme:light dark;
--ground:#ffffff;--card:#f6f7f9;--text:#1a1f28;--soft:#576172;--line:#dde1e7;
--accent:#1f62c8;--second:#5585c9;--gone:#667284;--gold:#f0b400;--gold-edge:#6b4e00;
--good:#146c43;--bad:#b3261e;--wash:#eaf1fb}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%}}
body{{margin:0;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}}
main,footer{{max-width:68rem;margin:0 auto;padding:0 1.25rem}}
header{{padding:2.5rem 0 1.25rem}}
h1{{font-size:clamp(1.6rem,5vw,2.3rem);line-height:1.15;margin:0 0 .35rem;letter-spacing:-.02em;
text-wrap:balance}}
h2{{font-size:1.2rem;margin:2.75rem 0 .9rem;letter-spacing:-.01em}}
h3{{font-size:1rem;margin:0 0 .4rem}}
p{{margin:.4rem 0;max-width:65ch}}
h1,p,td,th,dd,figcaption,code{{overflow-wrap:anywhere}}
.soft,.path{{color:var(--soft)}}
code,.path{{font:.9em/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}}
.figures{{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:1px;margin:0;
background:var(--line);border:1px solid var(--line);border-radius:.6rem;overflow:hidden}}
.figures>div{{background:var(--ground);padding:.8rem 1rem}}
.figures dt{{font-size:.82rem;color:var(--soft)}}
.figures dd{{margin:0;font-size:1.35rem;font-weight:600;line-height:1.3}}
.figures small{{display:block;font-size:.82rem;font-weight:400;color:var(--soft)}}
.curves{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.25rem}}
figure{{margin:0;padding:1rem 1rem .6rem;background:var(--card);border-radius:.6rem;max-width:42rem;
min-width:0}}
figcaption{{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1rem;font-weight:600}}
figcaption span{{font-weight:400;color:var(--soft);font-size:.88rem}}
svg{{display:block;width:100%;height:auto;overflow:visible}}
.legend{{display:flex;flex-wrap:wrap;gap:.3rem 1.25rem;list-style:none;margin:0 0 .9rem;padding:0;
font-size:.9rem;color:var(--soft)}}
.legend li{{display:flex;align-items:center;gap:.45rem}}
.legend svg{{width:26px;height:14px;flex:none}}
.tick{{font-size:11.5px;fill:var(--soft)}}
.grid{{stroke:var(--line);fill:none}}
.axis{{stroke:var(--gone);fill:none}}
.curve{{fill:none;stroke-linejoin:round;stroke-linecap:round}}
.curve.main{{stroke:var(--accent);stroke-width:2.2}}
.curve.second{{stroke:var(--second);stroke-width:1.5;stroke-dasharray:4 3.5}}
.alone.main{{fill:var(--accent)}}
.alone.second{{fill:var(--second)}}
.restart{{stroke:var(--gone);stroke-width:1.3;stroke-dasharray:1.5 3;fill:none}}
circle.kept,circle.saved{{fill:var(--accent);stroke:var(--card);stroke-width:1.3}}
circle.deleted{{fill:var(--card);stroke:var(--gone);stroke-width:1.3}}
.aside{{fill:none;stroke:var(--gone);stroke-width:1}}
.aside.kept,.aside.saved{{stroke:var(--accent)}}
.star{{fill:var(--gold);stroke:var(--gold-edge);stroke-width:.9;stroke-linejoin:round}}
.value{{font-size:12px;font-weight:600;fill:var(--text);stroke:var(--card);stroke-width:3.5px;
paint-order:stroke;stroke-linejoin:round}}
table{{width:100%;border-collapse:collapse;font-size:.93rem}}
th,td{{padding:.5rem 1.1rem .5rem 0;text-align:left;vertical-align:baseline;
border-bottom:1px solid var(--line)}}
thead th{{color:var(--soft);font-weight:500;font-size:.82rem}}
tbody th{{font-weight:500}}
th:last-child,td:last-child{{padding-right:.4rem}}
.n{{text-align:right}}
tr.best{{background:linear-gradient(90deg,transparent,var(--wash) 1rem)}}
tr.gone td,tr.gone th{{color:var(--gone);font-weight:400}}
.tag{{display:inline-block;border:1px solid currentColor;border-radius:1rem;padding:0 .55rem;
font-size:.8rem;line-height:1.45;margin-right:.3rem;white-space:nowrap}}
.tag.is-best{{background:var(--gold);border-color:var(--gold);color:#2b2000;font-weight:600}}
.tag.is-newest{{color:var(--accent)}}
.tag.is-bad{{color:var(--bad)}}
.facts{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));
gap:1.25rem 2.5rem}}
.facts dl{{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);margin:0;
font-size:.93rem}}
.facts dt,.facts dd{{margin:0;padding:.32rem .75rem .32rem 0;border-bottom:1px solid var(--line)}}
.facts dt{{color:var(--soft);overflow-wrap:anywhere}}
details{{margin:1.25rem 0}}
summary{{cursor:pointer;color:var(--accent);padding:.3rem 0}}
summary:focus-visible{{outline:2px solid var(--accent);outline-offset:3px;border-radius:.2rem}}
.note{{border-left:3px solid var(--gold);padding:.1rem 0 .1rem .9rem}}
footer{{margin-top:3rem;padding-bottom:2.5rem;font-size:.88rem;color:var(--soft)}}
footer p{{border-top:1px solid var(--line);padding-top:1rem;max-width:none}}
@media (max-width:44rem){{
main,footer{{padding:0 1rem}}
header{{padding-top:1.5rem}}
figure{{padding:.8rem .6rem .4rem}}
figcaption{{padding:0 .3rem}}
.figures{{grid-template-columns:1fr 1fr}}
.figures dd{{font-size:1.15rem}}
.tick{{font-size:13px}}
.value{{font-size:14px}}
table,tbody,tr,td,tbody th{{display:block;border:0;padding:0}}
thead{{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}}
tr{{padding:.7rem 0;border-bottom:1px solid var(--line)}}
tr.best{{background:var(--wash);margin:0 -1rem;padding:.7rem 1rem}}
tbody th{{font-weight:600;margin-bottom:.15rem}}
td[data-label]{{display:flex;justify-content:space-between;gap:1rem;text-align:right}}
td[data-label]::before{{content:attr(data-label);color:var(--soft);flex:none}}
td:empty{{display:none}}
}}
@media print{{
:root{{color-scheme:light}}
body{{font-size:10.5pt}}
header{{padding-top:0}}
figure,tr,.figures{{break-inside:avoid}}
h2{{break-after:avoid}}
.curves{{grid-template-columns:1fr 1fr}}
a{{color:inherit}}
}}
"""

"""The results as Markdown: a table of targets, and under it every measurement with its ratio."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.importing import IMPORT
from benchmarks.loading import OURS_INSPECT, OURS_MODEL, OURS_WEIGHTS, RAW_ALL, RAW_MODEL, RAW_READ
from benchmarks.resuming import NO_BACKUP, OURS_IN_BACKGROUND, name_of
from benchmarks.saving import BY_REFERENCE, NO_SAVE, RAW_BESIDE, RAW_WRITE

OURS = "**ours**"
PACKAGES = ("keras", "tensorflow", "numpy", "h5py", "safetensors", "orbax-checkpoint")

Medians = Mapping[str, Mapping[str, float]]
"""For each case, the median of each contender."""


@dataclass(frozen=True)
class Row:
    """One thing that is measured.

    Attributes:
        key: The name of its measurement.
        title: What it is called.
        subject: The contender that the target is about.
        floor: What its ratios are to; empty where the target is a number.
        target: The target, in words; empty where there is none.
        met: Whether a median of a case meets it: `met(ours, floor, bytes of the state)`.
        about: What the contenders are, where their names do not say it.
    """

    key: str
    title: str
    subject: str
    floor: str
    target: str
    met: Callable[[float, float, int], bool]
    about: str = ""


def _times(most: float) -> Callable[[float, float, int], bool]:
    return lambda ours, floor, _: ours <= most * floor


_IN_BACKGROUND = f"{OURS} `ModelCheckpoint` (.keras, in the background)"
_BESIDE = (
    "Ours is measured twice: left to its pace, as between two saves of a run, and while a thread "
    "waits for it, when it writes as fast as it can. For each peer a thread waits, which makes no "
    "difference to it."
)
_DURABLE = f"{OURS} `ModelCheckpoint` (.keras)"

ROWS = (
    Row(
        "pause",
        "Time that a background save takes from the training loop",
        _IN_BACKGROUND,
        BY_REFERENCE,
        "at most 1.5 times reading by reference",
        _times(1.5),
    ),
    Row(
        "steps",
        "Training step while a background save is under way",
        _IN_BACKGROUND,
        NO_SAVE,
        "at most 1.15 times a step without",
        _times(1.15),
        _BESIDE,
    ),
    Row(
        "cost",
        "Training time that one background save costs in all",
        _IN_BACKGROUND,
        RAW_BESIDE,
        "",
        _times(1.0),
        "How much longer the steps beside a save take, in all, than as many without one; beside a "
        f"gentle save there are more. {_BESIDE}",
    ),
    Row(
        "durable",
        "A durable save",
        _DURABLE,
        RAW_WRITE,
        "at most 1.2 times raw write + fsync from 100 MB up, 2 times for 6,000 variables",
        lambda ours, floor, size: ours <= (1.2 if size > 50 * 10**6 else 2.0) * floor,
    ),
    Row(
        "resume",
        "Training step of a `fit()` with a backup",
        name_of(OURS_IN_BACKGROUND, "every 10 steps"),
        NO_BACKUP,
        "at most 1.5 times a step without, with a backup every 10 steps in the background",
        _times(1.5),
    ),
    Row(
        "weights",
        "`load_weights` into a built model",
        OURS_WEIGHTS,
        RAW_READ,
        "at most 1.4 times raw read + assign",
        _times(1.4),
    ),
    Row(
        "fresh",
        "`load_weights` after an idle while, as where memory has to come from the host first",
        OURS_WEIGHTS,
        RAW_ALL,
        "",
        _times(1.0),
        "A virtual machine gives memory that is free back to its host, and gets it again slowly. "
        "Who assigns each variable as it is read needs memory for one; who changes nothing before "
        "all is read and found whole needs it for all of the new state. On a machine that has its "
        "memory for itself this table is like the one before.",
    ),
    Row(
        "model",
        "`safe_load_model` of a `.keras`, inspected and verified",
        f"{OURS} `safe_load_model`",
        RAW_MODEL,
        "at most 1.4 times building without initializers + raw read + assign",
        _times(1.4),
    ),
    Row(
        "inspection",
        "Inspection beside the load that it is part of",
        OURS_INSPECT,
        OURS_MODEL,
        "at most 0.1 of a load from 100 MB up",
        lambda ours, load, size: size < 50 * 10**6 or ours <= 0.1 * load,
    ),
    Row(
        "memory",
        "Peak memory above the model's, a save in the foreground",
        _DURABLE,
        "",
        "at most 64 MB + 2% of the state",
        lambda ours, _, size: ours <= 64e6 + 0.02 * size,
    ),
    Row(
        "import",
        "Imports",
        IMPORT,
        "",
        "at most 80 ms",
        lambda ours, _f, _s: ours <= 0.08,
    ),
)


def markdown(
    measured: Mapping[str, Medians],
    failed: Mapping[str, str],
    sizes: Mapping[str, int],
    missing: list[str],
    rounds: int,
) -> str:
    """Return the page.

    Args:
        measured: The medians, by row.
        failed: Why contenders have no result.
        sizes: Bytes of the state of each case.
        missing: Peers that are not installed.
        rounds: How often each was measured.
    """
    lines = ["# How fast it is", "", *_conditions(rounds, missing), ""]
    lines += ["## Against the targets", "", *_targets(measured, sizes), ""]
    for row in ROWS:
        if measured.get(row.key):
            lines += [f"## {row.title}", ""]
            lines += [f"Target: {row.target}.", ""] if row.target else []
            lines += [row.about, ""] if row.about else []
            lines += [*_table(row, measured[row.key]), ""]
    if failed:
        lines += ["## What failed", "", *(f"* {n}: {why}" for n, why in failed.items()), ""]
    return "\n".join(lines)


def _conditions(rounds: int, missing: list[str]) -> list[str]:
    found = [f"{n} {importlib.metadata.version(n)}" for n in PACKAGES if n not in missing]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = [
        f"Medians of {rounds} rounds; in a round each contender runs once, so the ratios within a "
        "table hold on a noisy machine too. Models are fully connected, trained with Adam: the "
        "state is three times the weights. Before a load its files are in the page cache, and as "
        "much memory as two states take has just been freed, unless a table says otherwise.",
        "",
        f"Python {platform.python_version()}, {', '.join(found)}; {platform.system()}, "
        f"{os.cpu_count()} cores, {memory:.0f} GB of memory, no GPU in use.",
    ]
    if missing:
        lines += ["", f"Not installed, so not measured: {', '.join(missing)}."]
    return lines


def _targets(measured: Mapping[str, Medians], sizes: Mapping[str, int]) -> list[str]:
    names = list(sizes)
    lines = [_line("what", *names, "ours must be"), _line(*["---"] * (len(names) + 2))]
    for row in (row for row in ROWS if row.target):
        medians = measured.get(row.key, {})
        cells = [_verdict(row, medians.get(name, {}), sizes[name]) for name in names]
        if "" in medians:
            cells = [_verdict(row, medians[""], 0), *[""] * (len(names) - 1)]
        lines.append(_line(row.title, *cells, row.target))
    return lines


def _verdict(row: Row, medians: Mapping[str, float], size: int) -> str:
    ours, floor = medians.get(row.subject), medians.get(row.floor, 0.0)
    if ours is None or (row.floor and not floor):
        return "-"
    mark = "" if row.met(ours, floor, size) else " (not met)"
    return f"{_shown(row, ours)}{_ratio(ours, floor)}{mark}"


def _table(row: Row, medians: Medians) -> list[str]:
    cases = list(medians)
    names = list(dict.fromkeys(name for case in cases for name in medians[case]))
    lines = [_line("", *cases), _line(*["---"] * (len(cases) + 1))]
    for name in names:
        cells = []
        for case in cases:
            value, floor = medians[case].get(name), medians[case].get(row.floor, 0.0)
            ratio = _ratio(value, floor) if value is not None and name != row.floor else ""
            cells.append("-" if value is None else _shown(row, value) + ratio)
        lines.append(_line(name, *cells))
    return lines


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(row: Row, value: float) -> str:
    if row.key == "memory":
        return f"{value / 1e6:,.0f} MB"
    milliseconds = value * 1000
    return f"{milliseconds:,.1f} ms" if milliseconds < 100 else f"{milliseconds:,.0f} ms"


def _ratio(value: float, floor: float) -> str:
    return f" ({value / floor:,.2f}x)" if floor else ""

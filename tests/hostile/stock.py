"""Runs the corpus on stock Keras and on ours, and writes docs/security.md's table.

    python tests/hostile/stock.py            # stock and ours; writes outcomes-<version>.json
    python tests/hostile/stock.py zip/ json/     # again for those that begin so
    python tests/hostile/stock.py --table    # puts the outcomes of all versions into the page

What stock Keras does is measured, not tested: it is not ours to promise. So it runs when somebody
runs this, and the page keeps what came out. A judge that an artefact has reached, taken down or
changed is replaced before the next one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from hostile.parts import CORPUS
from hostile.trial import Judge, tried

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "security.md"
BEGIN, END = "<!-- outcomes: begin -->", "<!-- outcomes: end -->"
HUGE_MB = 256
LONG_S = 10.0
_MEMORY = 12 << 30


def outcome(answer: Mapping[str, Any]) -> str:
    """Return what became of a call, in the words of the table."""
    noticed = [*answer.get("noticed", ()), *answer.get("leaked", ())]
    if answer["outcome"] == "died":
        return f"**the process died** ({answer['error']})"
    if answer["outcome"] == "hung":
        return "**hung**"
    parts = []
    if any("marker" in n or n.startswith("payload") or "planted" in n for n in noticed):
        parts.append("**the payload ran**")
    if any("secret" in n for n in noticed):
        parts.append("**read another file**")
    if any(n.startswith(("socket", "urllib", "os.", "subprocess")) for n in noticed):
        parts.append("**connected or ran a command**")
    if any(n.startswith("Keras'") for n in noticed):
        parts.append("**changed Keras' state**")
    if answer.get("megabytes", 0) > HUGE_MB:
        parts.append(f"**{answer['megabytes']:,} MB**")
    if answer.get("seconds", 0) > LONG_S:
        parts.append(f"**{answer['seconds']:.0f} s**")
    words = {"loaded": "loaded", "refused": f"refused ({answer.get('error')})"}
    return ", ".join([words[answer["outcome"]], *parts])


def measure(prefixes: tuple[str, ...], calls: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the outcomes of every artefact whose name begins so, by call."""
    judges = {call: Judge(20.0, _MEMORY) for call in calls}
    found: dict[str, dict[str, str]] = {}
    for name, artefact in CORPUS.items():
        if not name.startswith(prefixes):
            continue
        found[name] = {}
        for call, judge in judges.items():
            with tempfile.TemporaryDirectory(prefix="kct-hostile-") as folder:
                answer = tried(judge, artefact, Path(folder), [call])[call]
            Path("/tmp/kct_hostile_marker").unlink(missing_ok=True)
            found[name][call] = outcome(answer)
            if "**" in found[name][call]:
                judge.close()
        print(f"{name}: {found[name]}", flush=True)
    for judge in judges.values():
        judge.close()
    return found


def table(measured: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """Return the table: a row for each artefact, a column for each stock version, and ours."""
    versions = sorted(measured)
    lines = [f"| file | what it is | {' | '.join(f'Keras {v}' for v in versions)} | here |"]
    lines.append(f"|---|---|{'---|' * (len(versions) + 1)}")
    for name, artefact in CORPUS.items():
        what = artefact.what.replace("|", "\\|").replace("\n", " ")
        cells = [measured[version].get(name, {}).get("stock", "-") for version in versions]
        cells.append(measured[versions[-1]].get(name, {}).get("safe_load_model", "-"))
        lines.append(f"| `{name}` | {what} | {' | '.join(cells)} |")
    return "\n".join([_summary(measured, versions), "", *lines])


def _summary(measured: Mapping[str, Mapping[str, Mapping[str, str]]], versions: list[str]) -> str:
    columns = {f"Keras {v}": [one.get("stock", "-") for one in measured[v].values()]
               for v in versions}  # fmt: skip
    columns["here"] = [one.get("safe_load_model", "-") for one in measured[versions[-1]].values()]
    kinds = {
        "refused, and nothing else": lambda c: c.startswith("refused") and "**" not in c,
        "loaded as if nothing were wrong": lambda c: c == "loaded",
        "the payload ran": lambda c: "payload" in c,
        "read another file": lambda c: "another file" in c,
        "connected, or ran a command": lambda c: "connected" in c,
        "changed Keras' state": lambda c: "state" in c,
        "the process died": lambda c: "died" in c,
        "hung, or took over 10 s": lambda c: "hung" in c or " s**" in c,
        f"took over {HUGE_MB} MB": lambda c: "MB**" in c,
    }
    lines = [f"| of {len(CORPUS)} files | {' | '.join(columns)} |",
             f"|---|{'---|' * len(columns)}"]  # fmt: skip
    for kind, test in kinds.items():
        counts = [str(sum(map(test, cells))) for cells in columns.values()]
        lines.append(f"| {kind} | {' | '.join(counts)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or write what was measured into the page."""
    if "--table" in sys.argv:
        measured = {
            path.stem.removeprefix("outcomes-"): json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(HERE.glob("outcomes-*.json"))
        }
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{table(measured)}\n{END}{after}", encoding="utf-8")
        return
    import keras

    target = HERE / f"outcomes-{keras.__version__}.json"
    known = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    calls = [c for c in ("stock", "safe_load_model") if f"--no-{c}" not in sys.argv]
    prefixes = tuple(a for a in sys.argv[1:] if not a.startswith("--")) or ("",)
    for name, outcomes in measure(prefixes, calls).items():
        known.setdefault(name, {}).update(outcomes)
    kept = {name: known[name] for name in CORPUS if name in known}
    target.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

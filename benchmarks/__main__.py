"""Measure everything and write `RESULTS.md`.

python -m benchmarks                    all sizes; takes a good while, and 10 GB of disk
python -m benchmarks --quick            10 and 100 MB, three rounds; a few minutes
python -m benchmarks --rows pause steps --cases "500 MB"
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the parts one after another; write the page after each."""
    options = _options()
    # Keras is quiet and on the CPU, here and in every part.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from benchmarks import memory, peers
    from benchmarks.cases import CASES
    from benchmarks.part import Part
    from benchmarks.results import ROWS, markdown

    chosen = [
        case
        for case in CASES
        if (case.name in options.cases if options.cases else case.quick or not options.quick)
    ]
    rounds = options.rounds or (3 if options.quick else 5)
    measured: dict[str, dict[str, dict[str, float]]] = {}
    failed: dict[str, str] = {}
    for row in ROWS:
        if options.rows and row.key not in options.rows:
            continue
        names = [case.name for case in chosen if case.quick or row.key != "resume"]
        for case in [""] if row.key == "import" else names:
            found = measured.setdefault(row.key, {}).setdefault(case, {})
            for one in memory.NAMES if row.key == "memory" else [""]:
                print(f"{row.title}: {case} {one}".strip(), flush=True)
                answer = _run(Part(row.key, case, rounds, options.directory or "", one))
                found |= answer["medians"]
                failed |= {f"{n}, {row.key}, {case}": why for n, why in answer["failed"].items()}
                for name, value in answer["medians"].items():
                    print(f"    {value:12.6g}  {name}")
            sizes = {case.name: case.nbytes for case in chosen}
            page = markdown(measured, failed, sizes, peers.missing(), rounds)
            Path(options.output).write_text(page)
    print(f"Written: {options.output}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure and write.")
    parser.add_argument("--quick", action="store_true", help="10 and 100 MB only, three rounds")
    parser.add_argument("--rounds", type=int, help="how often each contender runs (5; quick: 3)")
    parser.add_argument("--cases", nargs="*", default=[], help="only these cases, by name")
    parser.add_argument("--rows", nargs="*", default=[], help="only these measurements")
    parser.add_argument("--directory", help="where files are put (default: a temporary directory)")
    parser.add_argument("--output", default=str(ROOT / "benchmarks" / "RESULTS.md"))
    return parser.parse_args()


def _run(part: Any) -> dict[str, Any]:
    from benchmarks.part import arguments

    with tempfile.TemporaryDirectory(prefix="kct-bench-") as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run(
            arguments(part, str(answer)), cwd=ROOT, check=False, capture_output=True, text=True
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            return {"medians": {}, "failed": {part.contender or "the measurement": last[0]}}
        return json.loads(answer.read_text())


if __name__ == "__main__":
    sys.exit(main())

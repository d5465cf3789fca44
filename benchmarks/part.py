"""One measurement in a process of its own: what one leaves behind does not slow the next down.

Called by `__main__`, with the measurement as JSON; writes what came out as JSON into a file.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    """A measurement.

    Attributes:
        row: What is measured: `"pause"`, `"steps"`, `"cost"`, `"durable"`, `"resume"`,
            `"weights"`, `"fresh"`, `"model"`, `"inspection"`, `"memory"` or `"import"`.
        case: Name of the case; empty for `"import"`.
        rounds: How often.
        directory: Where files may be put.
        contender: For `"memory"`, the one contender.
    """

    row: str
    case: str
    rounds: int
    directory: str
    contender: str = ""


def measure(part: Part) -> dict[str, Any]:
    """Measure a part; return medians and failures."""
    from benchmarks.importing import measure_import

    if part.row == "import":
        return _as_json(measure_import(part.rounds))
    from benchmarks import loading, memory, resuming, saving
    from benchmarks.cases import case_named

    case = case_named(part.case)
    with tempfile.TemporaryDirectory(prefix="kct-bench-", dir=part.directory or None) as name:
        folder = Path(name)
        if part.row == "memory":
            peak = memory.measure_peak(case, folder, part.contender)
            return {"medians": {} if peak is None else {part.contender: peak}, "failed": {}}
        functions = {
            "pause": saving.measure_pause,
            "steps": saving.measure_steps,
            "cost": saving.measure_cost,
            "durable": saving.measure_durable,
            "resume": resuming.measure_resume,
            "weights": loading.measure_weights,
            "fresh": loading.measure_fresh,
            "model": loading.measure_model,
            "inspection": loading.measure_inspection,
        }
        return _as_json(functions[part.row](case, folder, part.rounds))


def _as_json(timings: Any) -> dict[str, Any]:
    return {"medians": timings.medians(), "failed": timings.failed}


def arguments(part: Part, answer: str) -> list[str]:
    """Return the command line that measures a part."""
    return [sys.executable, "-m", "benchmarks.part", json.dumps(asdict(part)), answer]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(measure(Part(**json.loads(sys.argv[1])))))

"""How long imports take, each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.timing import Contender, Timings, interleaved

IMPORT = "**ours** `import keras_ckpt_tools`"
IMPORT_KERAS = "`import keras`"
_PROGRAM = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def measure_import(rounds: int) -> Timings:
    """Measure the imports, the start of the interpreter left out."""
    return interleaved([_importing(IMPORT), _importing(IMPORT_KERAS)], rounds)


def _importing(name: str) -> Contender:
    statement = name.split("`")[1]
    return Contender(name, lambda: None, measure=lambda: _time(statement))


def _time(statement: str) -> float:
    command = [sys.executable, "-c", _PROGRAM.format(statement)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

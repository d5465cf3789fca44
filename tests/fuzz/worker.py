"""Opens mutants, one after another, and says which of them did what they must not.

A program: it is given a format, a seed, the first number and how many, line by line on its input,
and answers each job with one line. Before each mutant it notes its number in a file, so that
whoever started it knows what took it down.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SLOW_S = 10.0
# No mutant is larger than a few kilobytes; Keras and TensorFlow grow by themselves as they warm up.
LARGE = 1 << 30


def open_one(path: str, form: str, data: bytes) -> tuple[str, str | None]:
    """Inspect and load one mutant; return the outcome, and what is wrong with it if anything is."""
    from fuzz.mutation import UNTOUCHED

    import keras_ckpt_tools as kct

    outcome, wrong = "refused", None
    started = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    calls: tuple[Any, ...] = (kct.inspect, kct.safe_load_model)
    for call in calls:
        try:
            answer = call(path)
            if call is kct.inspect:
                str(answer)
            else:
                outcome = "loaded"
        except kct.errors.CkptError as error:
            if not str(error).endswith((".", ")", "`")):
                wrong = f"an error without a remedy: {error}"
        except BaseException as error:  # noqa: BLE001 - exactly this must not happen
            trace = "".join(traceback.format_exception(error))
            wrong = f"{call.__name__} raised {type(error).__name__}: {error}\n{trace[-2000:]}"
    if outcome == "loaded" and form in UNTOUCHED and data != UNTOUCHED[form]():
        wrong = "bytes have changed and nobody noticed"
    if "kct_hostile_payload" in sys.modules:
        wrong = "an object that nobody trusts was imported"
    seconds = time.perf_counter() - started
    if seconds > SLOW_S:
        wrong = f"it took {seconds:.1f} s"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - memory
    if grown > LARGE:
        wrong = f"it took {grown:,} bytes of memory"
    return outcome, wrong


def run(form: str, seed: int, first: int, count: int, folder: Path) -> dict[str, Any]:
    """Open that many mutants of a format."""
    import keras
    from fuzz.mutation import mutant

    outcomes: Counter[str] = Counter()
    wrong: list[tuple[int, str]] = []
    started = time.process_time()
    for number in range(first, first + count):
        (folder / "now").write_text(f"{form} {seed} {number}", encoding="utf-8")
        name, data = mutant(form, seed, number)
        path = folder / name
        path.write_bytes(data)
        outcome, why = open_one(str(path), form, data)
        outcomes[outcome] += 1
        if why is not None:
            wrong.append((number, why))
        if outcome == "loaded" and outcomes["loaded"] % 100 == 0:
            keras.backend.clear_session()
    left = sorted(set(os.listdir(folder)) - {"now", "model.keras", "model.weights.h5", "model.h5"})
    left = [name for name in left if not name.startswith("__autograph")]
    if left:
        wrong.append((first, f"temporary files are left: {left}"))
    return {
        "form": form,
        "done": count,
        "outcomes": dict(outcomes),
        "wrong": wrong[:20],
        "wrong_count": len(wrong),
        "seconds": round(time.process_time() - started, 2),
    }


def main() -> None:
    """Answer jobs until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[:1] = [
        str(HERE.parent / "hostile" / "payload"),
        str(HERE.parent),
        str(HERE.parent / "helpers"),
    ]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = Path(sys.argv[1])
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    from fuzz.zygote import Zygote

    zygote = Zygote()  # Before there are threads.
    from keras_ckpt_tools.formats.hdf5 import scan

    scan._run = zygote.run
    importlib.import_module("keras_ckpt_tools.loading.model")
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        answers.write(json.dumps(run(*json.loads(line), folder=folder)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

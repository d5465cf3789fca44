"""Which numbers of a config cost memory or time while Keras makes objects of it: a list made anew.

Each class of Keras' that a file may use is made and called with a billion for each of its
arguments, in a process with limits. What costs anything there has to be counted, or has a bound in
`inspection/bounds.py`. The short form takes a few of the classes.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
import warnings

import pytest

from keras_ckpt_tools.inspection.bounds import _NUMBERS
from keras_ckpt_tools.inspection.builtin_names import CLASSES_IN

SHORT = ("AUC", "RepeatVector", "Hashing")
MODULES = ("layers", "metrics", "losses", "initializers", "regularizers", "optimizers", "src.ops")
SECONDS, MEGABYTES = 6, 200
COUNTED = 1 << 28
NOT_NUMBERS = ("name", "dtype", "trainable", "layer", "data_format", "activation", "cell")
OBJECTS = ("initializer", "regularizer", "constraint")
GIVEN = {"equation": "ab,bc->ac", "target_shape": [4], "dims": [1], "shape": [4, 4], "axes": 1,
         "bin_boundaries": [1, 2], "target_class_ids": [0], "function": "relu", "axis": -1,
         "bounding_box_format": "xyxy", "precision": 0.5, "recall": 0.5, "specificity": 0.5,
         "sensitivity": 0.5, "rate": 0.3, "factor": 0.2}  # fmt: skip
SHAPES = ((None, 4), (None, 4, 4), (None, 8, 8, 3), (None, 4, 4, 4, 3), (4, 4), (8,))


def classes(chosen):
    """Yield the classes of Keras' that a file may use, each once."""
    seen = set()
    for module, names in CLASSES_IN.items():
        if module.removeprefix("keras.").startswith(MODULES):
            for name in sorted(names):
                kind = getattr(importlib.import_module(module), name, None)
                if inspect.isclass(kind) and kind not in seen and (not chosen or name in chosen):
                    seen.add(kind)
                    yield kind


def arguments_of(kind):
    """Return the arguments of a class that may be numbers, and those that it must have."""
    try:
        parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    except (TypeError, ValueError):
        return [], {}
    known = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = {p.name: GIVEN.get(p.name, 2) for p in known if p.default is p.empty}
    numbers = [
        p.name
        for p in known
        if p.name not in NOT_NUMBERS
        and not p.name.endswith(OBJECTS)
        and not isinstance(p.default, (bool, str))
    ]
    return numbers, needed


def use(kind, arguments):
    """Make an object, and call it with whatever it takes."""
    import keras

    if "layer" in arguments or "cell" in arguments:
        inner = keras.layers.LSTMCell(3) if "cell" in arguments else keras.layers.Dense(3)
        arguments = {**arguments, ("cell" if "cell" in arguments else "layer"): inner}
    made = kind(**arguments)
    for shape in SHAPES if callable(made) else ():
        for dtype in ("float32", "int32", "string"):
            try:
                made(keras.KerasTensor(shape, dtype))
            except MemoryError:
                return
            except Exception:  # noqa: BLE001 - it does not take this.
                continue
            return


def cost(kind, arguments):
    """Return the seconds and megabytes of a use, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (10 << 30, 10 << 30))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
            with contextlib.suppress(BaseException):  # Only the cost counts.
                use(kind, arguments)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer = [time.process_time() - start, (peak - before) // 1024]
            os.write(writing, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else [SECONDS, MEGABYTES]


def main(chosen):
    """Print each argument that costs anything."""
    from keras_ckpt_tools import _keras_internals as internals

    original = internals.Variable.__init__

    def counted(self, initializer, shape=None, *args, **kwargs):
        size = math.prod(int(n) for n in (shape or ()) if callable(initializer))
        if size * 4 > COUNTED:
            raise MemoryError("counted")
        original(self, initializer, shape, *args, **kwargs)

    internals.Variable.__init__ = counted
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    for kind in classes(chosen):
        numbers, needed = arguments_of(kind)
        for name in numbers:
            for value in (10**9, [10**9] * 2):
                seconds, megabytes = cost(kind, {**needed, name: value})
                if seconds > SECONDS / 2 or megabytes >= MEGABYTES:
                    sys.stdout.write(f"{kind.__name__} {name}\n")
                    sys.stdout.flush()
                    break


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process for each number")
def test_every_number_that_costs_has_a_bound(long_form, tell):
    """A Keras that has new ones is found out here."""
    chosen = () if long_form else SHORT
    done = subprocess.run(
        [sys.executable, __file__, *chosen],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    costly = {tuple(line.split()) for line in done.stdout.splitlines() if line}
    assert ("AUC", "num_thresholds") in costly
    bounded = {(name, key) for name, keys in _NUMBERS.items() for key in keys}
    assert costly <= bounded
    tell(f"numbers: {len(costly)} cost anything, each has a bound")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1:])

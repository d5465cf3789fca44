"""A process that opens artefacts, one after another, and says of each what happened.

It runs as a program: jobs come in as lines of JSON, answers go out likewise. The process that sent
them sees whether this one died or hangs, so one artefact that takes it down is one answer, and the
next goes to a new process. `stock` jobs call `keras.models.load_model` in place of ours.

What is watched of each call, beside what it raises: whether the payload was imported or called, new
files anywhere around, temporary files that stay, commands and connections (by Python's audit
events), the process's state of Keras, the seconds, and the memory above what it had. Seconds in
which this process waits for a processor that others have do not count.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_EVENTS = ("os.system", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect",
           "socket.getaddrinfo", "subprocess.Popen", "urllib.Request")  # fmt: skip
_OF_TENSORFLOW = "__autograph_generated_file"


class Watch:
    """Notices what a call does beside answering."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.active = False
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.active and event.startswith(_EVENTS):
            if event == "subprocess.Popen" and arguments[0] == sys.executable:
                return  # The process of ours that libhdf5 runs in.
            self.events.append(f"{event} {arguments[:1]!r}"[:200])

    def run(self, call: Any, folder: Path) -> dict[str, Any]:
        """Make one call; say what happened."""
        before, state = _files(folder), _state_of_keras()
        self.events.clear()
        _reset_peak()
        memory, started = _memory("VmRSS"), time.perf_counter() - _delayed()
        self.active = True
        try:
            answer = call()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the answer
            answer = _describe(error)
        finally:
            self.active = False
        answer["seconds"] = round(time.perf_counter() - _delayed() - started, 3)
        answer["megabytes"] = max(0, _memory("VmHWM") - memory) >> 10
        answer["child_megabytes"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
        answer["noticed"] = [
            *self.events,
            *_payload(),
            *(f"new file {name}" for name in sorted(_files(folder) - before)),
            *(
                f"Keras' {key} changed"
                for key, v in _state_of_keras().items()
                if v != state.get(key, v)
            ),
        ]
        return answer


def _describe(error: BaseException) -> dict[str, Any]:
    from keras_ckpt_tools.errors import CkptError

    return {
        "outcome": "refused",
        "ours": isinstance(error, CkptError),
        "error": type(error).__name__,
        "message": str(error)[:3000],
        "trace": "".join(traceback.format_exception(error))[-3000:],
    }


def _payload() -> list[str]:
    module = sys.modules.get("kct_hostile_payload")
    if module is None:
        return []
    if getattr(module, "PLANTED", False):
        noticed = [f"payload {event}" for event in module.EVENTS]
        module.EVENTS.clear()
        return noticed
    del sys.modules["kct_hostile_payload"]
    return ["payload imported", *(f"payload {event}" for event in module.EVENTS)]


def _files(folder: Path) -> set[str]:
    """Return what is around, and what is in the folder for temporary files."""
    found = set()
    for place, folders, names in os.walk(folder):
        found |= {os.path.relpath(os.path.join(place, name), folder) for name in names + folders}
    kept = {name for name in found if _OF_TENSORFLOW not in name}
    outside = Path("/tmp/kct_hostile_marker")
    return kept | ({str(outside)} if outside.exists() else set())


def _state_of_keras() -> dict[str, Any]:
    if "keras" not in sys.modules:
        return {}
    import keras
    from keras.src.saving import object_registration as tables
    from keras.src.saving import serialization_lib

    return {
        "epsilon": keras.config.epsilon(),
        "float type": keras.config.floatx(),
        "data format": keras.config.image_data_format(),
        "dtype policy": keras.config.dtype_policy().name,
        "safe mode": serialization_lib.in_safe_mode(),
        "registered objects": sorted(tables.GLOBAL_CUSTOM_OBJECTS),
        "registered names": sorted(tables.GLOBAL_CUSTOM_NAMES.values()),
    }


def _delayed() -> float:
    """Return the seconds that this thread has waited for a processor, where the kernel counts."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _memory(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    return 0


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


# What is done with an artefact.


def plant_in_the_global_registry() -> None:
    """Do what an imported package may have done: put objects into Keras' own tables."""
    import keras

    payload = importlib.import_module("kct_hostile_payload")
    payload.PLANTED = True

    class Registered(keras.layers.Layer):
        def __init__(self, **arguments: Any):
            payload.EVENTS.append("planted class built")
            super().__init__(**arguments)

    def registered(x: Any) -> Any:
        payload.EVENTS.append("planted function called")
        return x

    class HijackedDense(Registered):
        pass

    # That package has defined them, not the program that loads.
    for one in (Registered, registered, HijackedDense):
        one.__module__ = payload.__name__
    table = keras.saving.get_custom_objects()
    table[f"{payload.__name__}>Registered"] = Registered
    table[f"{payload.__name__}>registered"] = registered
    table["HijackedDense"] = HijackedDense


def _inspect(path: str) -> dict[str, Any]:
    import keras_ckpt_tools as kct

    report = kct.inspect(path)
    text = f"{report}\n{report.problems}"
    assert report._repr_html_()
    found = bool(report.problems) or not all(use.usable for use in report.objects)
    return {"outcome": "reported" if found else "good", "ours": True, "message": text[:6000]}


def _load(path: str) -> dict[str, Any]:
    import keras_ckpt_tools as kct

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = kct.safe_load_model(path, compile=True)
    return {**_loaded(model), "message": "\n".join(str(w.message) for w in caught)[:2000]}


def _load_stock(path: str) -> dict[str, Any]:
    import keras

    return _loaded(keras.models.load_model(path, safe_mode=True))


def _loaded(model: Any) -> dict[str, Any]:
    from hostile.parts import SECRET

    leaked = []
    for layer in model._flatten_layers():
        words = layer.get_vocabulary() if hasattr(layer, "get_vocabulary") else ()
        leaked += [f"read a secret into {layer.name}" for word in words if SECRET in str(word)]
    return {"outcome": "loaded", "ours": True, "leaked": leaked}


@functools.cache
def _model() -> Any:
    import keras

    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")], name="net")


def _load_weights(path: str) -> dict[str, Any]:
    import numpy as np

    import keras_ckpt_tools as kct

    model = _model()
    before = [np.full(weight.shape, 7.0) for weight in model.weights]
    model.set_weights(before)
    try:
        kct.load_weights(model, path)
        outcome = "loaded"
    except kct.errors.CkptError as error:
        if not all(map(np.array_equal, model.get_weights(), before)):
            raise AssertionError("a refused restore has changed the model") from error
        raise
    return {"outcome": outcome, "ours": True, "message": ""}


CALLS = {
    "inspect": _inspect,
    "safe_load_model": _load,
    "load_weights": _load_weights,
    "stock": _load_stock,
}


def main() -> None:
    """Answer jobs until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print is not an answer.
    # Where this program is, other names hide the standard ones; nobody else imports from there.
    sys.path[:1] = [str(HERE / "payload"), str(HERE.parent), str(HERE.parent / "helpers")]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if len(sys.argv) > 1:
        resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
    importlib.import_module("keras_ckpt_tools.loading.model")  # Imports are no artefact's cost.
    watch = Watch()
    answers.write('{"outcome": "ready"}\n')
    answers.flush()
    for line in sys.stdin:
        job = json.loads(line)
        folder = Path(job["folder"])
        (folder / "tmp").mkdir(exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
        if job.get("plant") and not getattr(
            sys.modules.get("kct_hostile_payload"), "PLANTED", False
        ):
            plant_in_the_global_registry()
        for call in job["calls"]:
            answer = watch.run(functools.partial(CALLS[call], job["path"]), folder)
            answers.write(json.dumps({"call": call, **answer}) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()

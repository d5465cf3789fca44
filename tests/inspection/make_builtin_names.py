"""Write `builtin_names.py` from the public API of the installed Keras, by the rules below.

    python tests/inspection/make_builtin_names.py            adds what this Keras has
    python tests/inspection/make_builtin_names.py --fresh    starts from nothing

Run it once for each Keras that is to be known (3.10 and the newest), and read the difference: what
it adds, a stranger's file may use from then on. `names_left_out.json` beside it says of everything
else that Keras exports that it was looked at, and why a file may not use it. `judge` is what the
tests ask too, so a Keras with new names fails them until somebody has run this and read.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "keras_ckpt_tools" / "inspection" / "builtin_names.py"
LEFT_OUT = HERE / "names_left_out.json"

# Modules whose classes are what models, and what they are compiled with, are made of.
CLASSES_OF = {
    "keras": "models and the bases of all that they are made of",
    "keras._legacy.layers": "layers of Keras 2 that Keras 3 still has",
    "keras.activations": "activations that are layers",
    "keras.constraints": "constraints",
    "keras.distillation": "models that are trained from models",
    "keras.dtype_policies": "dtype policies",
    "keras.initializers": "initializers",
    "keras.layers": "layers",
    "keras.losses": "losses",
    "keras.metrics": "metrics",
    "keras.models": "models",
    "keras.optimizers": "optimizers",
    "keras.optimizers.schedules": "learning rate schedules",
    "keras.quantizers": "quantizers",
    "keras.random": "seed generators",
    "keras.regularizers": "regularizers",
}
# Modules whose functions compute a tensor from tensors and do nothing else.
FUNCTIONS_OF = {
    "keras.activations": "activations",
    "keras.losses": "losses",
    "keras.metrics": "metrics",
    "keras.ops": "operations",
    "keras.ops.image": "operations on images",
}
# Beside these, single names: what a `Lambda` is made of in many a model of images.
SINGLE_FUNCTIONS = "preprocess_input"
SINGLE_CLASSES = {("keras.utils", "FeatureSpace")}
# Classes without a public name that Keras writes into configs, beside operations.
UNEXPORTED = {
    ("keras.src.models.functional", "Functional"),
    ("keras.src.layers.preprocessing.feature_space", "Cross"),
    ("keras.src.layers.preprocessing.feature_space", "Feature"),
    ("keras.src.layers.preprocessing.feature_space", "TFDConcat"),
    ("keras.src.layers.preprocessing.feature_space", "TFDIdentity"),
}
# What a legacy config calls a class whose public name is another.
CALLED_OTHERWISE = {"GroupedQueryAttention"}
LAYERS_OF_APPLICATIONS = "keras.src.applications."
BASES = {"Operation", "Function"}
# They call a function that they are given, or make other objects.
NOT_PLAIN = {"get", "serialize", "deserialize", "custom_gradient", "shard_map"}
TAKES_A_FUNCTION = {
    "body", "body_fun", "branches", "cond", "f", "fn", "func", "func1d", "function", "pyfunc",
    "true_fn",
}  # fmt: skip
REASONS = {
    "keras._legacy": "an interface of Keras 1 and 2",
    "keras.applications": "builds a whole model and may download its weights",
    "keras.backend": "an interface of Keras 1 and 2",
    "keras.callbacks": "is used by training, and is in no config of a model",
    "keras.config": "changes the whole process",
    "keras.datasets": "downloads",
    "keras.distribution": "changes the whole process",
    "keras.export": "writes files",
    "keras.legacy": "makes objects from configs",
    "keras.optimizers.legacy": "only says that it is gone",
    "keras.preprocessing": "reads files",
    "keras.saving": "makes objects from configs, or reads and writes files",
    "keras.tree": "calls functions on structures",
    "keras.utils": "is for programs: reads files, downloads, or changes the process",
    "keras.visualization": "draws",
    "keras.wrappers": "is used by scikit-learn",
}


def judge() -> tuple[dict[str, set[str]], dict[str, set[str]], dict[str, str]]:
    """Return the classes by module, the functions by module, and what is left out and why."""
    import keras
    from keras.src.saving.keras_saveable import KerasSaveable

    import_all(keras.src)
    classes: dict[str, set[str]] = {}
    functions: dict[str, set[str]] = {}
    left_out: dict[str, str] = {}
    taken: set[Any] = set()
    for (module, name), obj in sorted(exported().items(), key=lambda item: item[0]):
        if inspect.isclass(obj) and _is_taken_class(module, name, obj):
            classes.setdefault(module, set()).add(name)
            taken.add(obj)
        elif inspect.isroutine(obj) and _is_taken_function(module, name, obj):
            functions.setdefault(module, set()).add(name)
        else:
            left_out[f"{module}.{name}"] = _reason(module, name, obj)
    for cls in subclasses(KerasSaveable):
        module, name = cls.__module__, cls.__name__
        if not module.startswith("keras.src.") or "_test" in module:
            continue
        own_layer = module.startswith(LAYERS_OF_APPLICATIONS)
        if cls in taken or (module, name) in UNEXPORTED or own_layer or _is_operation(cls):
            classes.setdefault(module, set()).add(name)
        else:
            left_out[f"{module}.{name}"] = "has no public name"
    return classes, functions, left_out


def _is_taken_class(module: str, name: str, obj: Any) -> bool:
    if (module, name) in SINGLE_CLASSES:
        return True
    return module in CLASSES_OF and hasattr(obj, "from_config") and name not in BASES


def _is_taken_function(module: str, name: str, obj: Any) -> bool:
    if module.startswith("keras.applications.") and name == SINGLE_FUNCTIONS:
        return True
    if module not in FUNCTIONS_OF or name in NOT_PLAIN:
        return False
    return not TAKES_A_FUNCTION & set(inspect.signature(obj).parameters)


def _is_operation(cls: Any) -> bool:
    from keras import Layer, Operation

    if not issubclass(cls, Operation) or issubclass(cls, Layer):
        return False
    parameters = set(inspect.signature(cls.__init__).parameters)
    parameters |= set(inspect.signature(cls.call).parameters) if hasattr(cls, "call") else set()
    return not TAKES_A_FUNCTION & parameters and cls.__name__ not in BASES


def _reason(module: str, name: str, obj: Any) -> str:
    if inspect.ismodule(obj):
        return "is a module"
    if module in FUNCTIONS_OF or module in CLASSES_OF:
        if inspect.isclass(obj):
            return "is not made from a config"
        if name in NOT_PLAIN or module not in FUNCTIONS_OF:
            return "makes other objects, or is no computation on tensors"
        return "calls a function that it is given"
    for prefix, reason in REASONS.items():
        if module == prefix or module.startswith(f"{prefix}."):
            return reason
    raise SystemExit(f"Nobody has judged {module}.{name}; add a rule for {module}.")


def exported() -> dict[tuple[str, str], Any]:
    """Return all that Keras exports, by module and name, with its second names."""
    from keras.src import api_export

    found = {}
    for full, obj in api_export.REGISTERED_NAMES_TO_OBJS.items():
        module, _, name = full.rpartition(".")
        found[module, name] = obj
    for module in {module for module, _ in found}:
        try:
            public = vars(importlib.import_module(module))
        except ModuleNotFoundError:
            continue  # `keras._legacy` is under another name.
        for name, obj in public.items():
            if not name.startswith("_") and not isinstance(obj, ModuleType):
                found[module, name] = obj
    return found


def import_all(package: ModuleType) -> None:
    """Import every module of Keras, so that all its classes exist, and leave Keras as it is."""
    backend = dict(vars(package.backend))
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        skipped = ("_test", ".backend.jax", ".backend.torch", ".backend.openvino", ".testing")
        if not any(part in info.name for part in skipped):
            try:
                importlib.import_module(info.name)
            except ImportError:
                continue
    # `backend.numpy` is the arithmetic of the backend in use, and now also a module of its own.
    vars(package.backend).update(backend)


def subclasses(cls: type) -> set[type]:
    """Return all classes below one."""
    below = set(cls.__subclasses__())
    return below.union(*map(subclasses, below)) if below else below


def identifiers() -> set[str]:
    """Return the strings that `get()` of losses, metrics, activations ... take for an object."""
    modules = [
        "activations", "constraints", "initializers", "losses", "metrics", "optimizers",
        "regularizers",
    ]  # fmt: skip
    return {"acc", "accuracy", "ce", "crossentropy"} | {
        name
        for module in modules
        for name in importlib.import_module(f"keras.src.{module}").ALL_OBJECTS_DICT
        if isinstance(name, str)
    }


def main() -> None:
    """Write the module and the list of what is left out."""
    import keras

    classes, functions, left_out = judge()
    strings, versions = identifiers(), {keras.__version__}
    if "--fresh" not in sys.argv:
        known: dict[str, Any] = {}
        exec(TARGET.read_text(), known)
        for ours, theirs in ((classes, "CLASSES_IN"), (functions, "FUNCTIONS_IN")):
            for module, names in known[theirs].items():
                ours.setdefault(module, set()).update(names)
        strings |= known["IDENTIFIERS"]
        versions |= set(known["KERAS_VERSIONS"])
        left_out = json.loads(LEFT_OUT.read_text()) | left_out
    TARGET.write_text(render(classes, functions, strings, versions))
    LEFT_OUT.write_text(json.dumps(left_out, indent=0, sort_keys=True) + "\n")


HEAD = '''\
"""List Keras' own names that a file may use, for inspections without Keras.

Generated by `tests/inspection/make_builtin_names.py` from the Keras versions below; do not edit.
The lists have the classes of models and of their compile arguments, by the module in a config, and
functions that compute a tensor from tensors. Functions that download, read or write files, change
the process, make objects from configs, or call a given function are left out. A test fails for a
Keras with names that were not judged.

`CLASSES` and `IDENTIFIERS` are for names without a module: legacy configs (`.h5`, Keras 2), and
bare strings for losses, metrics, activations, initializers, regularizers and constraints.
"""

from __future__ import annotations

__all__ = ["CLASSES", "CLASSES_IN", "FUNCTIONS_IN", "IDENTIFIERS", "KERAS_VERSIONS"]


def _by_module(text: str) -> dict[str, frozenset[str]]:
    entries = (entry.split(":") for entry in " ".join(text.split()).split("; "))
    return {module: frozenset(names.split()) for module, names in entries}


'''


def render(
    classes: dict[str, set[str]],
    functions: dict[str, set[str]],
    strings: set[str],
    versions: set[str],
) -> str:
    """Return the text of the module."""
    bare = {"keras.src.models.functional"} | (set(CLASSES_OF) & set(classes))
    bare_names = CALLED_OTHERWISE.union(*(classes[module] for module in bare))
    strings = strings.union(*(functions[m] for m in FUNCTIONS_OF if not m.startswith("keras.ops")))
    numbers = ", ".join(f'"{version}"' for version in sorted(versions, key=_as_numbers))
    return "".join(
        [
            HEAD,
            f"KERAS_VERSIONS = ({numbers}{',' * (len(versions) == 1)})\n\n",
            f"CLASSES_IN = _by_module(\n{_lines(_entries(classes))})\n\n",
            f"FUNCTIONS_IN = _by_module(\n{_lines(_entries(functions))})\n\n",
            f"CLASSES = frozenset(\n{_lines(' '.join(sorted(bare_names)), '.split()')})\n\n",
            f"IDENTIFIERS = frozenset(\n"
            f"{_lines(' '.join(sorted(strings - bare_names)), '.split()')})\n",
        ]
    )


def _as_numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def _entries(table: dict[str, set[str]]) -> str:
    return "; ".join(
        f"{module}: {' '.join(sorted(names))}" for module, names in sorted(table.items())
    )


def _lines(text: str, after: str = "") -> str:
    pad = "    "
    wrapped = textwrap.wrap(
        text, 100, initial_indent=pad, subsequent_indent=pad, break_on_hyphens=False
    )
    return "\n".join([f'{pad}"""', *wrapped, f'{pad}"""{after}']) + "\n"


if __name__ == "__main__":
    main()

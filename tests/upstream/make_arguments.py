"""Writes arguments.json: what Keras' own tests make layers, optimizers, losses and so on with.

    python tests/upstream/make_arguments.py        # with the newest Keras; takes some minutes

Keras' tests are run with two of their methods replaced: those that are given a layer with its
arguments and inputs, or an object that is to be written to a config and read again. What else a
test makes of the classes that a model is compiled with is noted by their constructors. Nothing of
the tests is kept but arguments.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import pytest
from keras.src import testing

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from keras_catalogue import GROUPS, classes
from upstream.keras_tests import INSTALLED, Case, cases_in, executed, reason_to_skip, variants_of

# Some of Keras' tests take a mark from a file that no wheel has.
_marks = ModuleType("conftest")
_marks.skip_if_backend = lambda name, reason: pytest.mark.skipif(
    keras.backend.backend() == name, reason=reason
)
sys.modules["conftest"] = _marks

HERE = Path(__file__).parent
FILE = HERE / "arguments.json"
FOLDERS = {
    "layers": "layers", "losses": "losses", "metrics": "metrics", "optimizers": "optimizers",
    "initializers": "initializers", "regularizers": "regularizers", "constraints": "constraints",
}  # fmt: skip
_RECORDED = ("losses", "metrics", "optimizers", "schedules", "initializers", "regularizers",
             "constraints")  # fmt: skip
_WITH_THESE = ("run_layer_test", "run_class_serialization_test")
_MOST = 4_000  # Characters of arguments: there are tests with large tables.


class Recorder:
    """What has been seen, by group and class; each set of arguments once."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, list[Any]]] = {group: {} for group in GROUPS}
        self.left_out = 0

    def note(self, kind: type, arguments: dict[str, Any], inputs: Any = None) -> None:
        """Keep a class of Keras' own and its arguments, if they can be written down."""
        groups = [name for name, of in classes().items() if of.get(kind.__name__) is kind]
        if not groups:
            return
        try:
            text = json.dumps(keras.saving.serialize_keras_object(arguments), sort_keys=True)
        except Exception:  # noqa: BLE001 - what no file could hold
            self.left_out += 1
            return
        case = {"arguments": json.loads(text), **({"inputs": inputs} if inputs else {})}
        cases = self.found[groups[0]].setdefault(kind.__name__, [])
        if len(text) > _MOST:
            self.left_out += 1
        elif case not in cases:
            cases.append(case)


def _arguments_of(kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(kind.__init__).bind(None, *args, **kwargs).arguments
    given = {**bound, **bound.get("kwargs", {})}
    return {name: value for name, value in given.items() if name not in ("self", "kwargs")}


def _shape_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not all(isinstance(one, int | float) for one in value):
        return [_shape_of(item) for item in value]
    if "Sparse" in type(value).__name__ or "Ragged" in type(value).__name__:
        raise TypeError("no dense tensor")
    array = value if hasattr(value, "dtype") else np.asarray(value)
    return {"shape": list(array.shape), "dtype": keras.backend.standardize_dtype(array.dtype)}


def _inputs_of(shape: Any, dtype: Any, data: Any, call: Any) -> Any:
    """Return the inputs of a layer, as shapes and dtypes; `None` where they are none of a model."""
    if not all(value is None or isinstance(value, bool) for value in (call or {}).values()):
        return None
    try:
        if data is not None:
            return _shape_of(data)
        if isinstance(shape, dict):
            names = dtype or dict.fromkeys(shape, "float32")
            return {
                name.removesuffix("_shape"): {"shape": list(of), "dtype": names[name]}
                for name, of in shape.items()
            }
        if isinstance(shape, list) or (shape and isinstance(shape[0], tuple)):
            types = dtype or ["float32"] * len(shape)
            return [{"shape": list(of), "dtype": one} for of, one in zip(shape, types, strict=True)]
        return {"shape": list(shape), "dtype": dtype or "float32"} if shape else None
    except (TypeError, ValueError):
        return None


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Let Keras' test cases and constructors note what they are given."""

    def layer(self: Any, layer_cls: type, init_kwargs: Any, *args: Any, **kwargs: Any) -> None:
        given = inspect.signature(stock_layer).bind(self, layer_cls, init_kwargs, *args, **kwargs)
        of = given.arguments
        inputs = None
        if not (of.get("input_sparse") or of.get("input_ragged")):
            inputs = _inputs_of(*(of.get(name) for name in (
                "input_shape", "input_dtype", "input_data", "call_kwargs")))  # fmt: skip
        recorder.note(layer_cls, dict(init_kwargs or {}), inputs)

    def instance(self: Any, instance: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(instance, keras.layers.Layer):
            given = getattr(instance, "_auto_config", None)
            recorder.note(type(instance), dict(given.config) if given is not None else {})
        return instance

    def noted(kind: type, stock: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(stock)
        def made(self: Any, *args: Any, **kwargs: Any) -> None:
            stock(self, *args, **kwargs)
            if type(self) is kind:
                with contextlib.suppress(TypeError):
                    recorder.note(kind, _arguments_of(kind, args, kwargs))

        return made

    kinds = [kind for group in _RECORDED for kind in classes()[group].values()]
    stock_inits = {kind: kind.__init__ for kind in kinds}
    stock_layer = testing.TestCase.run_layer_test
    stock_instance = testing.TestCase.run_class_serialization_test
    stock_apply = keras.optimizers.Optimizer.apply
    for kind, stock in stock_inits.items():
        kind.__init__ = noted(kind, stock)
    testing.TestCase.run_layer_test = layer
    testing.TestCase.run_class_serialization_test = instance
    keras.optimizers.Optimizer.apply = lambda *_, **__: None
    try:
        yield
    finally:
        for kind, stock in stock_inits.items():
            kind.__init__ = stock
        testing.TestCase.run_layer_test = stock_layer
        testing.TestCase.run_class_serialization_test = stock_instance
        keras.optimizers.Optimizer.apply = stock_apply


def _wanted(case: Case) -> bool:
    """Return whether a test is run: of layers, those that hand one over."""
    if not case.file.startswith("layers/"):
        return "saved_model" not in case.test
    tree = ast.parse((INSTALLED / case.file).read_text(encoding="utf-8"))
    (method,) = (
        one
        for kind in tree.body
        if isinstance(kind, ast.ClassDef) and kind.name == case.cases
        for one in kind.body
        if isinstance(one, ast.FunctionDef) and one.name == case.test
    )
    names = {node.attr for node in ast.walk(method) if isinstance(node, ast.Attribute)}
    return bool(names & set(_WITH_THESE))


def main() -> None:
    """Run Keras' tests and write down what they make."""
    recorder = Recorder()
    warnings.simplefilter("ignore")
    for folder in FOLDERS.values():
        for path in sorted((INSTALLED / folder).rglob("*_test.py")):
            file, began = str(path.relative_to(INSTALLED)), time.monotonic()
            try:
                module = executed(file)
            except (ImportError, pytest.skip.Exception):
                continue  # Of another framework.
            for case in filter(_wanted, cases_in(file)):
                keras.utils.clear_session(free_memory=False)
                with recording(recorder), contextlib.redirect_stdout(io.StringIO()):
                    for variant in variants_of(module, case):
                        if reason_to_skip(variant) is None:
                            with contextlib.suppress(Exception, pytest.skip.Exception):
                                variant.debug()
            print(f"{time.monotonic() - began:5.1f} s  {file}", file=sys.stderr, flush=True)
    write({"keras": keras.__version__, **recorder.found}, recorder.left_out)


def write(found: dict[str, Any], left_out: int) -> None:
    """Write down the cases that can be made without what a test has registered with Keras."""
    keras.saving.get_custom_objects().clear()
    version = found.pop("keras")
    for group, kinds in found.items():
        for name, cases in kinds.items():
            kept = [case for case in cases if _can_be_made(classes()[group][name], case)]
            left_out += len(cases) - len(kept)
            kinds[name] = kept
    counts = {group: sum(map(len, kinds.values())) for group, kinds in found.items()}
    print(f"{counts}, {left_out} left out", file=sys.stderr)
    kept = {
        group: {name: cases for name, cases in sorted(kinds.items()) if cases}
        for group, kinds in sorted(found.items())
        if kinds
    }
    FILE.write_text(_one_case_a_line({"keras": version, **kept}), encoding="utf-8")


def _can_be_made(kind: type, case: dict[str, Any]) -> bool:
    try:
        arguments = keras.saving.deserialize_keras_object(case["arguments"])
        made = kind(*arguments.pop("args", ()), **arguments)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(made)))
        keras.saving.deserialize_keras_object(config)
    except Exception:  # noqa: BLE001 - what a class refuses, and what Keras cannot read again
        return False
    return True


def _one_case_a_line(found: dict[str, Any]) -> str:
    parts = [f' "keras": {json.dumps(found.pop("keras"))}']
    for group, kinds in found.items():
        rows = []
        for name, cases in kinds.items():
            inner = ",\n   ".join(json.dumps(case, sort_keys=True) for case in cases)
            rows.append(f"  {json.dumps(name)}: [\n   {inner}]")
        parts.append(f' "{group}": {{\n' + ",\n".join(rows) + "}")
    return "{\n" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    main()

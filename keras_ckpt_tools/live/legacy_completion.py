"""Add to an `.h5` model what Keras leaves out, or refuse the model.

Keras writes some `.h5` models that it cannot open again, and drops parts of others. If the format
can hold a part, it is added to the config, so that stock Keras reads it, too: the modules of
operations (`x + y`, `ops.relu(x)`, the masks of an `Embedding`) and the vocabularies of lookups. If
not, the model is refused before anything is written, with one error that lists all losses.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import keras
import numpy as np

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.errors import UntrackedStateError

_CONFIG = "model_config"
_ELLIPSIS = "__ellipsis__"
_ALL = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}


@contextlib.contextmanager
def vocabularies_in_config(model: Any) -> Iterator[None]:
    """Let adapted lookups write their vocabulary, as lookups with a given vocabulary do."""
    before: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        for layer in model._flatten_layers():
            if isinstance(layer, internals.IndexLookup) and layer.input_vocabulary is None:
                # Past `__setattr__`, which would track the list.
                attributes, learnt = vars(layer), _learnt(layer)
                before.append((attributes, {name: attributes[name] for name in learnt}))
                attributes.update(learnt)
        yield
    finally:
        for attributes, values in before:
            attributes.update(values)


def _learnt(layer: Any) -> dict[str, Any]:
    words = layer.get_vocabulary(include_special_tokens=False)
    if not words:
        return {}
    plain = [word if isinstance(word, str) else int(word) for word in words]
    if layer.output_mode != "tf_idf":
        return {"input_vocabulary": plain}
    weights = np.asarray(layer.idf_weights_const)
    first = len(layer.get_vocabulary()) - len(plain)
    idf = [float(weight) for weight in weights[first : first + len(plain)]]
    return {"input_vocabulary": plain, "input_idf_weights": idf}


def complete_config(model: Any, hdf5: h5py.File) -> None:
    """Write the modules of operations into the config of a file."""
    modules = {
        type(operation).__name__: type(operation).__module__
        for part in model._flatten_layers()
        for operation in getattr(part, "operations", ())
        if not isinstance(operation, keras.layers.Layer)
    }
    own = {name: module for name, module in modules.items() if module.startswith("keras.")}
    if not own:
        return
    config = json.loads(hdf5.attrs[_CONFIG])
    todo: list[Any] = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if _is_operation(value, own):
                name = value["class_name"]
                value |= {"module": own[name], "registered_name": name}
                for call in value["inbound_nodes"]:
                    call["args"] = _without_ellipsis(call["args"])
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)
    hdf5.attrs[_CONFIG] = json.dumps(config).encode()


def _is_operation(node: Mapping[str, Any], modules: Mapping[str, str]) -> bool:
    config = node.get("config")
    return (
        "inbound_nodes" in node
        and "module" not in node
        and node.get("class_name") in modules
        and isinstance(config, dict)
        # A layer may have the same name: `Add`.
        and "trainable" not in config
    )


def _without_ellipsis(arguments: list[Any]) -> list[Any]:
    """Write `x[..., 0]` as `x[:, :, 0]`: Keras' reader of `.h5` cannot read the former."""
    if len(arguments) != 2 or not isinstance(arguments[0], dict):
        return arguments
    tensor, key = arguments
    shape, key = tensor.get("config", {}).get("shape"), key if isinstance(key, list) else [key]
    places = [i for i, part in enumerate(key) if _is_ellipsis(part)]
    if len(places) != 1 or not isinstance(shape, list):
        return arguments
    left = len(shape) - sum(part is not None for part in key) + 1
    return [tensor, [*key[: places[0]], *[_ALL] * left, *key[places[0] + 1 :]]]


def _is_ellipsis(part: Any) -> bool:
    return isinstance(part, dict) and part.get("class_name") == _ELLIPSIS


def require_representable(model: Any) -> None:
    """Refuse a model of which `.h5` cannot hold everything.

    Raises:
        UntrackedStateError: names what would be lost, and what to use instead.
    """
    if not (isinstance(model, keras.Sequential) or hasattr(model, "operations")):
        name = type(model).__name__
        what = "a subclassed model: `.h5` does not hold its shapes, so it cannot be opened again"
        raise refusal([(f"model {model.name!r} ({name})", what, "use another format")])
    lost = [found for layer in model._flatten_layers() for found in _lost_of(layer)]
    saved = {id(weight) for layer in model.layers for weight in layer.weights}
    saved |= {id(v) for v in (*model._trainable_variables, *model._non_trainable_variables)}
    # Keras 3.10 does not list a layer outside the graph among those of the model.
    beside = [part for part in vars(model).values() if isinstance(part, keras.layers.Layer)]
    everything = {weight.path: weight for part in (model, *beside) for weight in part.weights}
    lost += [
        (path, "a weight of a layer that no output of the model depends on", "remove it")
        for path, weight in everything.items()
        if id(weight) not in saved
    ]
    if lost:
        raise refusal(lost)


def _lost_of(layer: Any) -> Iterator[tuple[str, str, str]]:
    kind = type(layer)
    where = f"layer {layer.name!r} ({kind.__name__})"
    if isinstance(layer, keras.utils.FeatureSpace):
        yield where, "a FeatureSpace, whose files cannot be in an `.h5`", "use another format"
    if _of_keras(kind, "save_own_variables") and _of_keras(kind, "save_assets"):
        return
    if not _of_keras(kind, "save_assets"):
        yield where, "files of its own (`save_assets`)", "use another format"
    if not _of_keras(kind, "save_own_variables"):
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        weights = [np.asarray(weight) for weight in layer.weights]
        for key, value in store.items():
            array = np.asarray(value)
            if not any(w.shape == array.shape and np.array_equal(w, array) for w in weights):
                yield f"{where}.{key}", "saved by its own `save_own_variables`", "make it a weight"


def _of_keras(kind: type, method: str) -> bool:
    owner = next((base for base in kind.__mro__ if method in vars(base)), None)
    return owner is None or owner.__module__.partition(".")[0] == "keras"


def refusal(lost: list[tuple[str, str, str]]) -> UntrackedStateError:
    """Return the error for what a `.h5` cannot hold: where it is, what it is, what to do."""
    lines = "".join(f"\n  {where}: {what}; {remedy}" for where, what, remedy in lost)
    return UntrackedStateError(
        f"The model cannot be saved as `.h5`, Keras' older format; nothing was written:{lines}\n",
        remedy="Give the file a name that ends in '.keras', or pass `save_weights_only=True` with "
        "one that ends in '.weights.h5'.",
        untracked=tuple(lost),
    )

"""Makes configs that Keras could have written, with odd values and objects in odd places.

Where `mutation` changes what a small model happens to hold, this begins with every class that Keras
has: models of real layers, nodes with arguments, compiled with real losses, metrics, optimizers and
schedules. Then something is put where it does not belong: a number that multiplies, an object under
a key that some code of Keras' looks at, a name that nobody trusts. The digests and the seal of the
file are right, so the config is all that can be refused.
"""

from __future__ import annotations

import copy
import functools
import json
import random
from typing import Any

from hostile.parts import function, node
from hostile.records import our_archive, our_weights

_KEYS = (
    # Keys that Keras' deserializers look at, wherever they stand.
    *("compile_config", "build_config", "config", "class_name", "module", "registered_name"),
    *("args", "kwargs", "arguments", "inbound_nodes", "layers", "layer", "cell", "cells", "fn"),
    *("dtype", "value", "function", "output_shape", "mask", "quantization_config", "name"),
    *("shared_object_id", "input_layers", "output_layers", "loss", "metrics", "optimizer"),
    *("optimizer_config", "inner_optimizer", "activation", "kernel_initializer", "rnn_layer"),
    *("spec_name", "serialized", "policy_map", "vocabulary", "exclude_layers", "surplus"),
)
_NUMBERS = (-1, 0, 1, 2, 3, 7, 16, 255, 10**3, 10**4, 10**5, 10**6, 10**7, 10**9, 10**12, 2**31,
            2**63, 10**30, 0.5, -0.5, 1e300)  # fmt: skip
_TEXTS = ("", "relu", "mse", "adam", "Dense", "float32", "mixed_float16", "int8", "object", "O",
          "S99999", "kct_hostile_payload>Scale", "call", "../x", "(a+)+$", "x" * 300, "linear",
          "valid", "same", "__import__", "channels_first", "\x00", "os.system")  # fmt: skip


def grammar(random_: random.Random) -> tuple[str, bytes]:
    """Put a few odd things into the config of a real model, in a file whose digests are right."""
    config = _model(random_)
    for _ in range(random_.choice((0, 1, 1, 1, 2, 3))):
        _put(random_, config, _odd(random_))
    return "model.keras", our_archive(_no_tensors(), json.dumps(config))


@functools.cache
def _no_tensors() -> bytes:
    # Models of layers without variables load whole; of others, the restore is refused.
    return our_weights(values={})


def _model(random_: random.Random) -> dict[str, Any]:
    layers = [_object(random_, "layers") for _ in range(random_.choice((1, 1, 2, 4)))]
    for number, layer in enumerate(layers):
        layer["config"]["name"] = f"layer_{number}"
    shape = random_.choice(([4], [4], [6, 3], [8, 8, 3], []))
    first = node("InputLayer", batch_shape=[None, *shape], dtype="float32", name="first")
    if random_.random() < 0.5:
        model = node("Sequential", "keras", name="net", layers=[first, *layers])
    else:
        model = _graph(random_, first, layers, shape)
    model["build_config"] = {"input_shape": [None, *shape]}
    if random_.random() < 0.5:
        model["compile_config"] = {
            "optimizer": _object(random_, "optimizers"),
            "loss": _object(random_, "losses"),
            "metrics": [_object(random_, "metrics")],
        }
    return model


def _graph(
    random_: random.Random, first: dict[str, Any], layers: list[Any], shape: list[int]
) -> dict[str, Any]:
    first = {**first, "name": "first", "inbound_nodes": []}
    before, listed = "first", [first]
    for layer in layers:
        name = layer["config"]["name"]
        given = {
            "class_name": "__keras_tensor__",
            "config": {
                "shape": [None, *shape],
                "dtype": "float32",
                "keras_history": [before, 0, 0],
            },
        }
        listed.append({**layer, "name": name, "inbound_nodes": [{"args": [given], "kwargs": {}}]})
        before = name
    return node(
        "Functional",
        "keras.src.models.functional",
        name="net",
        trainable=True,
        layers=listed,
        input_layers=[["first", 0, 0]],
        output_layers=[[before, 0, 0]],
    )


def _object(random_: random.Random, group: str) -> dict[str, Any]:
    """Return the config of an object of a group, sometimes with others among its arguments."""
    every = _catalogue()[group]
    one = copy.deepcopy(every[random_.choice(list(every))])
    config = one["config"]
    if group == "layers" and random_.random() < 0.3:
        names = [key for key in config if key.endswith(("initializer", "regularizer"))]
        if names:
            name = random_.choice(names)
            config[name] = _object(random_, name.rpartition("_")[2] + "s")
    if group == "optimizers" and random_.random() < 0.3:
        config["learning_rate"] = _object(random_, "schedules")
    if group == "layers" and random_.random() < 0.1:
        config["dtype"] = _object(random_, "policies")
    return dict(one)


@functools.cache
def _catalogue() -> dict[str, dict[str, Any]]:
    import keras_catalogue

    return keras_catalogue.configs()


def _odd(random_: random.Random) -> Any:
    what = random_.randrange(12)
    if what <= 2:
        return random_.choice(_NUMBERS)
    if what == 3:
        return random_.choice(_TEXTS)
    if what == 4:
        return [random_.choice(_NUMBERS) for _ in range(random_.choice((1, 2, 3, 5)))]
    if what <= 6:
        return _object(random_, random_.choice(list(_catalogue())))
    if what == 7:
        return _constant(random_)
    if what == 8:
        return _stranger(random_)
    if what == 9:
        return {random_.choice(_KEYS): _stranger(random_)}
    if what == 10:
        return [_stranger(random_), _object(random_, "layers")]
    return random_.choice((None, True, {}, [], {"a": 1}, [[]], {"class_name": "Dense"}))


def _stranger(random_: random.Random) -> Any:
    """Return something that nobody trusts; what it names would note that it ran."""
    return random_.choice(
        (
            node("Scale", "kct_hostile_payload"),
            node("kct_hostile_payload>Scale", "kct_hostile_payload"),
            {**node("Dense", "keras.layers"), "registered_name": "kct_hostile_payload>Scale"},
            function("call", "kct_hostile_payload"),
            function("call", None),
            {"class_name": "Scale", "config": {}},
            {"class_name": "__lambda__", "config": {"value": "4wAAAA==", "defaults": None}},
            node("TFSMLayer", "keras.layers", filepath="x", call_endpoint="serve"),
            node("CSVLogger", "keras.callbacks", filename="left-behind.csv"),
            node("load_model", "keras.saving", filepath="x"),
            {
                "class_name": "__typespec__",
                "spec_name": "Scale",
                "module": "kct_hostile_payload",
                "registered_name": None,
                "config": [],
            },
        )
    )


def _constant(random_: random.Random) -> dict[str, Any]:
    value: Any = random_.choice((1.0, [1.0, 2.0], [[1.0]], random_.choice(_NUMBERS)))
    dtype = random_.choice(("float32", "int32", "object", "string", random_.choice(_TEXTS)))
    name = random_.choice(("__tensor__", "__numpy__"))
    return {"class_name": name, "config": {"value": value, "dtype": dtype}}


def _put(random_: random.Random, config: dict[str, Any], what: Any) -> None:
    """Put something into a config: in the place of a value, or under a key of its own."""
    found = list(places(config))
    parent, key = random_.choice(found)
    how = random_.randrange(5)
    if how <= 1 or not isinstance(parent, dict):
        parent[key] = what
    elif how == 2:
        parent[random_.choice(_KEYS)] = what
    elif how == 3 and isinstance(parent[key], dict):
        parent[key][random_.choice(_KEYS)] = what
    else:
        parent[key] = [parent[key], what]


def places(tree: Any) -> Any:
    """Yield each place of a tree: what holds it, and its key."""
    todo = [tree]
    while todo:
        value = todo.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield value, key
            if isinstance(value[key], (dict, list)):
                todo.append(value[key])

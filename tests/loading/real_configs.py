"""Configs of real objects: of each class that a model may be made of, as Keras itself writes them.

An object is made with the arguments that its class insists on, from the table below, and then
serialized by Keras. So the configs are those of the Keras that is installed, its newest classes
included; a class that cannot be made so is in `LEFT_OUT` with its reason, and a test counts.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

LEFT_OUT = {
    "FlaxLayer": "needs JAX",
    "JaxLayer": "needs JAX",
    "TFSMLayer": "needs a SavedModel",
    "TorchModuleWrapper": "needs torch",
    "Distiller": "is made of two models",
    "FeatureDistillation": "is made of two models",
    "LogitsDistillation": "is made of two models",
}
MODULES = (
    "constraints", "dtype_policies", "initializers", "layers", "losses", "metrics", "optimizers",
    "quantizers", "regularizers",
)  # fmt: skip


def _arguments() -> dict[str, Any]:
    import keras

    cell = keras.layers.GRUCell(1)
    return {
        "activation": "relu", "alpha": 0.1, "axes": 1, "axis": -1, "bin_boundaries": [0.0, 1.0],
        "cell": cell, "cells": [cell], "class_name": "x", "cropping": 1, "crop_to_aspect_ratio": 1,
        "data_format": "channels_last", "decay_rate": 0.5, "decay_steps": 10, "dims": [1],
        "equation": "ab,bc->ac", "factor": 0.1, "filters": 1, "fn": keras.losses.mean_squared_error,
        "function": keras.ops.relu, "gamma": 1.0, "height": 2, "height_factor": 0.1,
        "initial_learning_rate": 0.1, "inner_optimizer": keras.optimizers.SGD(), "input_dim": 3,
        "key_dim": 1, "kernel_size": 1, "layer": keras.layers.Dense(1), "layers": [
            keras.layers.Rescaling(0.5)], "max_boxes": 2, "max_number": 2, "mean": 0.0,
        "n": 2, "name": "float32", "num_bins": 3, "num_classes": 2, "num_heads": 1,
        "num_key_value_heads": 1, "num_query_heads": 1, "head_dim": 1, "output_dim": 2,
        "output_size": 2, "width_factor": 0.1, "first_decay_steps": 10,
        "output_shape": (2,), "pool_size": 1, "precision": 0.5, "rate": 0.5, "recall": 0.5,
        "scale": 0.5, "sensitivity": 0.5, "size": 2, "specificity": 0.5, "stddev": 1.0,
        "target_class_ids": [0], "target_shape": (1,), "units": 2, "value": 1.0, "width": 2,
        "vocabulary": ["a"], "boundaries": [1, 2], "values": [0.1, 0.2, 0.3], "mode": "int8",
        "default_optimizer": keras.optimizers.SGD(), "dtype": "int8", "gain": 1.0,
    }  # fmt: skip


def _special(name: str) -> dict[str, Any]:
    import keras

    return {
        "AWQDTypePolicy": {"mode": "awq/4/128", "source_name": "float32"},
        "Bidirectional": {"layer": keras.layers.GRU(1)},
        "CategoryEncoding": {"num_tokens": 3},
        "Discretization": {"bin_boundaries": [0.0, 1.0]},
        "EinsumDense": {"equation": "ab,bc->ac", "output_shape": 2},
        "GPTQDTypePolicy": {"mode": "gptq/4/128", "source_name": "float32"},
        "InputLayer": {"batch_shape": (None, 4)},
        "Int4DTypePolicy": {"mode": "int4/128", "source_name": "float32"},
        "Lambda": {"function": keras.ops.relu, "arguments": {"x": [1]}},
        "SpectralNormalization": {"layer": keras.layers.Dense(1)},
        "DTypePolicyMap": {"policy_map": {"dense": keras.DTypePolicy("float32")}},
        "QuantizedDTypePolicy": {"mode": "int8", "source_name": "float32"},
        "QuantizedFloat8DTypePolicy": {"mode": "float8", "source_name": "float32"},
        "StringLookup": {"vocabulary": ["a", "b"]},
    }.get(name, {})


def made(cls: Any) -> Any:
    """Return an object of a class; `None` where it takes what the table does not have."""
    given = dict(_special(cls.__name__))
    known = _arguments()
    if cls.__name__ == "RandomPosterization":
        given = {"factor": 4}
    for parameter in inspect.signature(cls.__init__).parameters.values():
        required = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if required and parameter.name != "self" and parameter.name not in given:
            given[parameter.name] = known.get(parameter.name)
    try:
        return cls(**given)
    except Exception:  # noqa: BLE001 - abstract ones, and those that take something special
        return None


def classes() -> Iterator[tuple[str, Any]]:
    """Yield module and class of all that models, and what they are compiled with, are made of."""
    import keras

    from keras_ckpt_tools.loading.builtin_names import CLASSES_IN

    modules = {f"keras.{name}": getattr(keras, name) for name in MODULES}
    modules["keras.optimizers.schedules"] = keras.optimizers.schedules
    seen = set()
    for module, found in modules.items():
        for name in sorted(CLASSES_IN[module]):
            cls = getattr(found, name, None)
            if inspect.isclass(cls) and cls not in seen and name not in LEFT_OUT:
                seen.add(cls)
                yield module, cls


def real_configs() -> dict[str, dict[str, Any]]:
    """Return the config of an object of each class, by module and name."""
    import json

    import keras

    found = {}
    for module, cls in classes():
        obj = made(cls)
        try:
            config = None if obj is None else keras.saving.serialize_keras_object(obj)
        except NotImplementedError:
            continue  # A base class.
        if config is not None:
            found[f"{module}.{cls.__name__}"] = json.loads(json.dumps(config, default=str))
    return found

"""One real object of every class that Keras has, as its config.

The classes are found by looking through Keras' public modules, so a new one is in the list by
itself. What a class needs as arguments is in one table, by the names of the arguments.
"""

from __future__ import annotations

import functools
import inspect
import json
import warnings
from typing import Any

import keras

GROUPS: dict[str, tuple[Any, type]] = {
    "layers": (keras.layers, keras.layers.Layer),
    "losses": (keras.losses, keras.losses.Loss),
    "metrics": (keras.metrics, keras.metrics.Metric),
    "optimizers": (keras.optimizers, keras.optimizers.Optimizer),
    "schedules": (
        keras.optimizers.schedules,
        keras.optimizers.schedules.LearningRateSchedule,
    ),
    "initializers": (keras.initializers, keras.initializers.Initializer),
    "regularizers": (keras.regularizers, keras.regularizers.Regularizer),
    "constraints": (keras.constraints, keras.constraints.Constraint),
    "policies": (keras.dtype_policies, keras.dtype_policies.DTypePolicy),
    "quantizers": (keras.quantizers, keras.quantizers.Quantizer),
}

ABSTRACT = frozenset(
    {
        *("Layer", "Wrapper", "RNN", "Loss", "Metric", "Optimizer", "LearningRateSchedule"),
        *("Initializer", "Regularizer", "Constraint", "Quantizer"),
        # They hold code of other frameworks.
        *("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"),
        # Their inner ones are what the others here are, and Keras makes no default of them.
        "MultiOptimizer",
    }
)

_ARGUMENTS: dict[str, Any] = {
    "activation": "relu", "output_size": 2, "pool_size": 2, "num_tokens": 4, "height": 4,
    "width": 4, "filters": 2, "kernel_size": 2, "units": 3, "num_bins": 4, "axes": 1, "rate": 0.5,
    "equation": "ab,bc->ac", "output_shape": 3, "input_dim": 6, "output_dim": 2, "stddev": 0.5,
    "head_dim": 2, "num_query_heads": 2, "num_key_value_heads": 1, "num_heads": 2, "key_dim": 2,
    "max_number": 3, "dims": (1,), "factor": 0.2, "height_factor": 0.2, "width_factor": 0.2,
    "n": 2, "scale": 0.5, "target_shape": (-1,), "num_classes": 2, "target_class_ids": [0],
    "recall": 0.5, "precision": 0.5, "specificity": 0.5, "sensitivity": 0.5, "decay_steps": 10,
    "initial_learning_rate": 0.1, "first_decay_steps": 10, "decay_rate": 0.5, "boundaries": [5],
    "values": [0.1, 0.01], "batch_shape": (None, 4), "bin_boundaries": [0.0, 1.0],
    "vocabulary": ["a", "b"], "axis": -1,
}  # fmt: skip
_MODES = {"AWQDTypePolicy": "awq/4/32", "GPTQDTypePolicy": "gptq/4/32",
          "Int4DTypePolicy": "int4/32", "QuantizedDTypePolicy": "int8",
          "QuantizedFloat8DTypePolicy": "float8"}  # fmt: skip
_OPTIONAL = {"InputLayer": ("batch_shape",), "CategoryEncoding": ("num_tokens",),
             "Discretization": ("bin_boundaries",), "StringLookup": ("vocabulary",)}  # fmt: skip


@functools.cache
def classes() -> dict[str, dict[str, type]]:
    """Return the classes of each group by name, those that stand for no object left out."""
    found: dict[str, dict[str, type]] = {}
    for group, (module, base) in GROUPS.items():
        found[group] = {
            name: kind
            for name, kind in sorted(vars(module).items())
            if inspect.isclass(kind)
            and issubclass(kind, base)
            and name == kind.__name__
            and name not in ABSTRACT
        }
    return found


def make(kind: type) -> Any:
    """Return an object of a class of Keras'."""
    name = kind.__name__
    if name == "Lambda":
        return keras.layers.Lambda(keras.activations.relu, arguments={"negative_slope": 0.1})
    if name == "DTypePolicyMap":
        return kind(policy_map={"dense": keras.DTypePolicy("float32")})
    inner: dict[str, Any] = {
        "layer": lambda: keras.layers.LSTM(2) if name == "Bidirectional" else keras.layers.Dense(2),
        "cells": lambda: [keras.layers.LSTMCell(2)],
        "layers": lambda: [keras.layers.Dense(2), keras.layers.ReLU()],
        "fn": lambda: keras.losses.mean_squared_error,
        "inner_optimizer": lambda: keras.optimizers.SGD(0.1),
        "mode": lambda: _MODES[name],
    }
    needed = [
        parameter.name
        for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    arguments = {}
    for argument in (*needed, *_OPTIONAL.get(name, ())):
        arguments[argument] = inner[argument]() if argument in inner else _ARGUMENTS[argument]
    if name == "RandomPosterization":
        arguments["factor"] = 4  # A number of bits.
    return kind(**arguments)


@functools.cache
def configs() -> dict[str, dict[str, Any]]:
    """Return the config of one object of every class, by group and name, as a file holds it."""
    found: dict[str, dict[str, Any]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for group, kinds in classes().items():
            found[group] = {
                name: keras.saving.serialize_keras_object(make(kind))
                for name, kind in kinds.items()
            }
    return dict(json.loads(json.dumps(found)))

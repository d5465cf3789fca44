"""Say in Keras 3's words what Keras 2 wrote: config -> *config* -> source.

Keras 3 reads configs of Keras 2, all but these: arguments that are gone and mean nothing at the
value they have; arguments of a base class that a layer never used; the numbers of a nested model's
nodes, which began at one; and optimizers that `tf-keras` registered as if they were the user's.
Where an argument that is gone does mean something, it stays, and Keras says that it is unknown.

Sources: `get_config` of `tf_keras` 2.18 in `layers/rnn`, `layers/convolutional` and
`engine/functional.py` (`get_network_config` keeps the first node of a nested model).
"""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["in_words_of_keras_3", "is_keras_2"]

# Arguments that are gone, and the value at which they meant nothing.
_GONE = {"time_major": False, "is_legacy_optimizer": False, "jit_compile": False}
# What these layers have from their base class in Keras 2, beside their own two of each.
_UNUSED = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D", "DepthwiseConv1D", "DepthwiseConv2D")
_MODELS = ("Functional", "Model", "Sequential")
_OPTIMIZERS = frozenset(
    "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lion Nadam RMSprop SGD".split()
)


def is_keras_2(version: object) -> bool:
    """Return whether a `keras_version` is one of Keras 2.

    >>> is_keras_2("2.15.0"), is_keras_2("3.10.0"), is_keras_2("2.2.4-tf")
    (True, False, True)
    """
    return isinstance(version, str) and version.startswith("2.")


def in_words_of_keras_3(config: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a model's or an optimizer's config that Keras 3 understands.

    >>> lstm = {"class_name": "LSTM", "config": {"units": 2, "time_major": False}}
    >>> in_words_of_keras_3(lstm)
    {'class_name': 'LSTM', 'config': {'units': 2}}
    """
    config = copy.deepcopy(config)
    todo: list[Any] = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo.extend(value)
        elif isinstance(value, dict):
            todo.extend(value.values())
            _object(value)
    return config


def _object(value: dict[str, Any]) -> None:
    name, inner = value.get("class_name"), value.get("config")
    if not isinstance(name, str) or not isinstance(inner, dict):
        return
    package, _, bare = name.rpartition(">")
    if package == "Custom" and bare in _OPTIMIZERS:
        value["class_name"] = bare
    for argument, meaningless in _GONE.items():
        if inner.get(argument, ...) is meaningless:
            del inner[argument]
    if bare in _SEPARABLE:
        for argument in _UNUSED:
            if f"depthwise_{argument.removeprefix('kernel_')}" in inner or argument == "groups":
                inner.pop(argument, None)
    if isinstance(inner.get("layers"), list):
        _renumber(inner)


def _renumber(model: dict[str, Any]) -> None:
    """Count the nodes of nested models from zero, and write single ends as such."""
    nested = {
        str(layer.get("name"))
        for layer in model["layers"]
        if isinstance(layer, dict) and layer.get("class_name") in _MODELS
    }
    for key in ("input_layers", "output_layers"):
        ends = model.get(key)
        if isinstance(ends, list) and len(ends) == 1 and isinstance(ends[0], list):
            model[key] = ends[0]  # A single one is no list of one.
    nodes = [layer.get("inbound_nodes") for layer in model["layers"] if isinstance(layer, dict)]
    todo = [*nodes, model.get("input_layers"), model.get("output_layers")]
    while todo:
        item = todo.pop()
        if not isinstance(item, list):
            continue
        named = len(item) >= 3 and isinstance(item[0], str) and item[0] in nested
        if named and isinstance(item[1], int) and item[1] > 0:
            item[1] -= 1
        todo.extend(item)

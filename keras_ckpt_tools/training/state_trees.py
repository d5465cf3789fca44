"""The state of an object of the user's, as JSON and arrays: snapshot -> *tree*, and back.

What `get_state` or `state_dict` returns is a tree of dicts, lists, numbers and arrays. Its arrays
become tensors of the file and the rest becomes JSON, with marks for what JSON cannot say (tuples,
long integers, infinities). No pickle: a file is data, and never code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_ckpt_tools.errors import ArgumentError

_ARRAYS = (np.ndarray, tf.Tensor, tf.Variable, keras.Variable)

# A JSON object with one of these as its only key stands for what JSON cannot say.
_MARKS = tuple({mark} for mark in ("__array__", "__float__", "__int__", "__items__", "__tuple__"))


def take_arrays(item: Any, arrays: dict[str, Any], name: str) -> Any:
    """Return the JSON part of a state; move its arrays into `arrays`.

    Args:
        item: The state: dicts, lists, tuples, numbers, strings, arrays.
        arrays: Takes the arrays, by their path in the file.
        name: What the state is of, for messages.

    Raises:
        ArgumentError: there is something else in it.

    >>> take_arrays({"step": 3, "mean": np.zeros(2)}, {}, "scaler")
    {'step': 3, 'mean': {'__array__': 'state/0'}}
    """
    if isinstance(item, np.generic) and not isinstance(item.item(), np.generic):
        return take_arrays(item.item(), arrays, name)
    if isinstance(item, _ARRAYS) and _is_numeric(item):
        path = f"state/{len(arrays)}"
        arrays[path] = item
        return {"__array__": path}
    if isinstance(item, Mapping):
        if set(item) in _MARKS or not all(isinstance(key, str) for key in item):
            # Keys of JSON objects are strings, and one of ours alone would be taken for a mark.
            return {"__items__": [take_arrays(list(pair), arrays, name) for pair in item.items()]}
        return {key: take_arrays(child, arrays, name) for key, child in item.items()}
    if isinstance(item, (list, tuple)):
        children = [take_arrays(child, arrays, name) for child in item]
        return {"__tuple__": children} if isinstance(item, tuple) else children
    if isinstance(item, int) and not -(2**63) <= item < 2**63:
        return {"__int__": str(item)}  # Readers of JSON need not have numbers this long.
    if isinstance(item, float) and not math.isfinite(item):
        return {"__float__": str(item)}  # JSON has no word for these.
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    raise ArgumentError(
        f"The state of {name!r} holds a {type(item).__name__}, which is neither JSON nor an array "
        "of numbers.",
        received=f"{item!r}",
        remedy="Let its `get_state` return dicts, lists, numbers, strings and arrays of numbers.",
    )


def _is_numeric(item: Any) -> bool:
    # Of numbers and truth values each file format knows the bytes; of text and dates none does.
    dtype = getattr(item, "dtype", None)
    return isinstance(item, _ARRAYS[1:]) or (dtype is not None and dtype.kind in "biufcV")


def give_arrays(item: Any, arrays: Mapping[str, Any]) -> Any:
    """Put a state together again; the inverse of `take_arrays`."""
    if isinstance(item, Mapping):
        if set(item) == {"__array__"}:
            return arrays[item["__array__"]]
        if set(item) == {"__tuple__"}:
            return tuple(give_arrays(child, arrays) for child in item["__tuple__"])
        if set(item) == {"__int__"}:
            return int(item["__int__"])
        if set(item) == {"__float__"}:
            return float(item["__float__"])
        if set(item) == {"__items__"}:
            pairs = give_arrays(item["__items__"], arrays)
            return dict(pairs)
        return {key: give_arrays(child, arrays) for key, child in item.items()}
    if isinstance(item, list):
        return [give_arrays(child, arrays) for child in item]
    return item

"""Convert the state of a custom object to JSON and arrays, and back.

The result of `get_state` or `state_dict` is a tree of dicts, lists, numbers and arrays. Its arrays
become tensors of the file. The rest becomes JSON, with marks for types that JSON does not have
(tuples, sets, counters, bytes, long integers, infinities, NumPy numbers, PyTorch tensors). Numbers
keep their type: a `float32` that came back as a `float` would be rounded differently. Pickle is not
used, because a file must not contain code.
"""

from __future__ import annotations

import collections
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools._tensorflow import tf_kinds
from keras_ckpt_tools.errors import ArgumentError

_ARRAYS = (np.ndarray, keras.Variable)


def take_arrays(
    item: Any, arrays: dict[str, Any], name: str, above: frozenset[int] = frozenset()
) -> Any:
    """Return the JSON part of a state; move its arrays into `arrays`.

    Args:
        item: The state: dicts, lists, tuples, sets, numbers, strings, bytes, arrays.
        arrays: Takes the arrays, by their path in the file.
        name: Name of the object, for messages.
        above: The IDs of the containers of the item.

    Raises:
        ArgumentError: it contains an unsupported type, or itself.

    >>> take_arrays({"step": 3, "mean": np.zeros(2)}, {}, "scaler")
    {'step': 3, 'mean': {'__array__': 'state/0'}}
    """
    if id(item) in above:
        raise ArgumentError(
            f"The state of {name!r} contains a {type(item).__name__} that contains itself.",
            received=f"{item!r}",
            remedy="Return a tree from `get_state`, without references back to its containers.",
        )
    inside = above | {id(item)} if isinstance(item, (Mapping, list, tuple)) else above

    def take(child: Any) -> Any:
        return take_arrays(child, arrays, name, inside)

    def put(array: Any) -> str:
        path = f"state/{len(arrays)}"
        arrays[path] = array
        return path

    if isinstance(item, np.generic) and item.dtype.kind in "biuf" and item.dtype.itemsize <= 8:
        return {"__scalar__": [item.dtype.name, take(item.item())]}
    if isinstance(item, np.generic) and item.dtype.kind in "cV":
        return {"__scalar__": [item.dtype.name, {"__array__": put(np.asarray(item))}]}
    if isinstance(item, (*_ARRAYS, *tf_kinds("Tensor", "Variable"))) and _is_numeric(item):
        return {"__array__": put(item)}
    if _is_torch(item):
        return {"__torch__": [str(item.dtype), {"__array__": put(_from_torch(item))}]}
    if isinstance(item, collections.Counter):
        return {"__counter__": [[take(key), take(count)] for key, count in item.items()]}
    if isinstance(item, Mapping):
        if (len(item) == 1 and set(item) <= set(_READERS)) or not all(
            isinstance(key, str) for key in item
        ):
            # Keys of JSON objects are strings, and a single reserved key would be read as a mark.
            return {"__items__": [[take(key), take(value)] for key, value in item.items()]}
        return {str(key): take(child) for key, child in item.items()}
    if isinstance(item, (list, tuple)):
        children = [take(child) for child in item]
        return {"__tuple__": children} if isinstance(item, tuple) else children
    if isinstance(item, (set, frozenset)):
        # The order of a set of strings differs between processes, and files must not.
        mark = "__set__" if isinstance(item, set) else "__frozenset__"
        return {mark: [take(child) for child in sorted(item, key=repr)]}
    if isinstance(item, bytes):
        return {"__bytes__": put(np.frombuffer(item, np.uint8))}
    if isinstance(item, complex):
        return {"__complex__": [take(item.real), take(item.imag)]}
    if isinstance(item, bool) or item is None:
        return item
    # With its own type: JSON writes a member of an enumeration by its name, or not at all.
    if isinstance(item, int):
        number = int(item)  # Other JSON readers may not support more than 64 bits.
        return number if -(2**63) <= number < 2**63 else {"__int__": str(number)}
    if isinstance(item, float):
        return float(item) if math.isfinite(item) else {"__float__": str(float(item))}
    if isinstance(item, str):
        return str(item)
    raise ArgumentError(
        f"The state of {name!r} contains a {type(item).__name__}, which is not JSON or an array "
        "of numbers.",
        received=f"{item!r}",
        remedy="Return dicts, lists, numbers, strings and arrays of numbers from `get_state`.",
    )


def _is_torch(item: Any) -> bool:
    return type(item).__module__.partition(".")[0] == "torch" and hasattr(item, "detach")


def _from_torch(tensor: Any) -> np.ndarray[Any, Any]:
    plain = tensor.detach().cpu()
    try:
        return np.asarray(plain.numpy())
    except TypeError:
        return np.asarray(plain.float().numpy())  # NumPy has no bfloat16; this is exact.


def _to_torch(name: str, array: np.ndarray[Any, Any]) -> Any:
    torch = importlib.import_module("torch")  # Its object is tracked, so it is installed.
    dtype = getattr(torch, name.removeprefix("torch."), None)
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(dtype) if isinstance(dtype, torch.dtype) else tensor


def _is_numeric(item: Any) -> bool:
    # All file formats support numbers and booleans, but not arrays of text and dates.
    if isinstance(item, tf_kinds("Tensor", "Variable")):
        return item.dtype.name not in ("string", "resource", "variant")
    return isinstance(item, keras.Variable) or item.dtype.kind in "biufcV"


def give_arrays(item: Any, arrays: Mapping[str, Any]) -> Any:
    """Build a state again; the inverse of `take_arrays`.

    Args:
        item: The result of `take_arrays`.
        arrays: The contents of its `arrays`, as NumPy arrays.
    """

    def give(child: Any) -> Any:
        return give_arrays(child, arrays)

    if isinstance(item, Mapping):
        if len(item) == 1:
            (mark,) = item
            if mark in _READERS:
                return _READERS[mark](item[mark], give, arrays)
        return {key: give(child) for key, child in item.items()}
    if isinstance(item, list):
        return [give(child) for child in item]
    return item


def _scalar(value: Any, give: Callable[[Any], Any]) -> Any:
    name, number = value[0], give(value[1])
    if isinstance(number, np.ndarray):
        return number[()]
    dtype = np.dtype(name)
    # `void` of a number would be that many bytes.
    if dtype.kind not in "biuf" or isinstance(number, (str, bytes, dict, list)):
        raise ValueError(f"{name!r} is not the dtype of a number")
    return dtype.type(number)


# A JSON object with one of these as its only key represents another type.
_READERS: dict[str, Callable[[Any, Callable[[Any], Any], Mapping[str, Any]], Any]] = {
    "__array__": lambda path, give, arrays: arrays[path],
    "__bytes__": lambda path, give, arrays: np.asarray(arrays[path], np.uint8).tobytes(),
    "__counter__": lambda pairs, give, arrays: collections.Counter(dict(give(pairs))),
    "__complex__": lambda pair, give, arrays: complex(give(pair[0]), give(pair[1])),
    "__float__": lambda text, give, arrays: float(text),
    "__frozenset__": lambda children, give, arrays: frozenset(give(children)),
    "__int__": lambda text, give, arrays: int(text),
    "__items__": lambda pairs, give, arrays: dict(give(pairs)),
    "__scalar__": lambda value, give, arrays: _scalar(value, give),
    "__set__": lambda children, give, arrays: set(give(children)),
    "__torch__": lambda value, give, arrays: _to_torch(value[0], give(value[1])),
    "__tuple__": lambda children, give, arrays: tuple(give(children)),
}

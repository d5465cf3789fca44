"""The state of an object of the user's, as JSON and arrays: snapshot -> *tree*, and back.

What `get_state` or `state_dict` returns is a tree of dicts, lists, numbers and arrays. Its arrays
become tensors of the file and the rest becomes JSON, with marks for what JSON cannot say (tuples,
sets, counters, bytes, long integers, infinities, NumPy's own numbers, tensors of PyTorch). A number
comes back as the type it was: a `float32` that returned as a `float` would be rounded differently
from there on. No pickle: a file is data, and never code.
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
        name: What the state is of, for messages.
        above: What the item is in, by `id`.

    Raises:
        ArgumentError: there is something else in it, or it contains itself.

    >>> take_arrays({"step": 3, "mean": np.zeros(2)}, {}, "scaler")
    {'step': 3, 'mean': {'__array__': 'state/0'}}
    """
    if id(item) in above:
        raise ArgumentError(
            f"The state of {name!r} holds a {type(item).__name__} that contains itself.",
            received=f"{item!r}",
            remedy="Let its `get_state` return a tree: each dict and list once on the way down.",
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
            # Keys of JSON objects are strings, and one of ours alone would be taken for a mark.
            return {"__items__": [[take(key), take(value)] for key, value in item.items()]}
        return {str(key): take(child) for key, child in item.items()}
    if isinstance(item, (list, tuple)):
        children = [take(child) for child in item]
        return {"__tuple__": children} if isinstance(item, tuple) else children
    if isinstance(item, (set, frozenset)):
        # The order of a set of strings is another one in each process; files need not be.
        mark = "__set__" if isinstance(item, set) else "__frozenset__"
        return {mark: [take(child) for child in sorted(item, key=repr)]}
    if isinstance(item, bytes):
        return {"__bytes__": put(np.frombuffer(item, np.uint8))}
    if isinstance(item, complex):
        return {"__complex__": [take(item.real), take(item.imag)]}
    if isinstance(item, bool) or item is None:
        return item
    # As its own type: JSON writes a member of an enumeration by its name, or not at all.
    if isinstance(item, int):
        number = int(item)  # Readers of JSON need not have numbers longer than 64 bits.
        return number if -(2**63) <= number < 2**63 else {"__int__": str(number)}
    if isinstance(item, float):
        return float(item) if math.isfinite(item) else {"__float__": str(float(item))}
    if isinstance(item, str):
        return str(item)
    raise ArgumentError(
        f"The state of {name!r} holds a {type(item).__name__}, which is neither JSON nor an array "
        "of numbers.",
        received=f"{item!r}",
        remedy="Let its `get_state` return dicts, lists, numbers, strings and arrays of numbers.",
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
    torch = importlib.import_module("torch")  # Its object is tracked, so it is there.
    dtype = getattr(torch, name.removeprefix("torch."), None)
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(dtype) if isinstance(dtype, torch.dtype) else tensor


def _is_numeric(item: Any) -> bool:
    # Of numbers and truth values each file format knows the bytes; of text and dates none does.
    if isinstance(item, tf_kinds("Tensor", "Variable")):
        return item.dtype.name not in ("string", "resource", "variant")
    return isinstance(item, keras.Variable) or item.dtype.kind in "biufcV"


def give_arrays(item: Any, arrays: Mapping[str, Any]) -> Any:
    """Put a state together again; the inverse of `take_arrays`.

    Args:
        item: What `take_arrays` returned.
        arrays: What it put into `arrays`, as NumPy arrays.
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
    # `void` of a number would be so many bytes.
    if dtype.kind not in "biuf" or isinstance(number, (str, bytes, dict, list)):
        raise ValueError(f"{name!r} is no dtype of a number")
    return dtype.type(number)


# A JSON object with one of these as its only key stands for what JSON cannot say.
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

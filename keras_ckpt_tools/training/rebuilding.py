"""Check at the first save of a model whether it can be created again from its config.

A layer whose `get_config` omits an argument is saved without an error, which is found only when the
file is loaded. So the first save of a callback tries one object of each custom class, as
`check_serializable` does. The model is saved in any case, because its weights are useful. Large
objects are not created again, which would take memory that training needs; only their config is
checked.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import keras

from keras_ckpt_tools.errors import NotSerializableError
from keras_ckpt_tools.registry.serializable import try_round_trip
from keras_ckpt_tools.showing.messages import warn

__all__ = ["warn_of_unbuildable"]

# Maximum number of values in an object that is created a second time.
_MOST = 1_000_000
_COMPILED = ("loss", "metrics", "weighted_metrics")


def warn_of_unbuildable(model: Any, path: str) -> None:
    """Warn about objects that prevent the model from being created from its file.

    Args:
        model: A built model.
        path: Path of the file.
    """
    faults = [fault for obj in _custom_objects(model) if (fault := _fault_of(obj))]
    if not faults:
        return
    lines = "".join(f"\n  {fault}" for fault in faults)
    warn(
        f"The model saved to {path!r} cannot be created again from that file:{lines}\n"
        "Return every argument of __init__ from get_config(); `kct.check_serializable` of an "
        "object shows the method to write. Older files still contain the weights: build the model "
        "in code, and call `kct.load_weights(model, path)`.",
        UserWarning,
        stacklevel=4,
    )


def _fault_of(obj: Any) -> str:
    if isinstance(obj, FunctionType):
        named = obj.__name__ != "<lambda>"
        return "" if named else "a lambda has no name to find it by; define a function (`def`)."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # From the user's constructor, which has run before.
            try_round_trip(obj, rebuild=_size_of(obj) <= _MOST)
    except NotSerializableError as error:
        return error.what
    except Exception:  # noqa: BLE001 - an error in the user's code must not end the training
        return ""
    return ""


def _size_of(obj: Any) -> int:
    weights = getattr(obj, "weights", None) or getattr(obj, "variables", None) or ()
    return sum(math.prod(weight.shape) for weight in weights)


def _custom_objects(model: Any) -> Iterator[Any]:
    """Return one object of each custom class in a model, and its compiled functions."""
    compiled = getattr(getattr(model, "_compile_config", None), "config", None)
    arguments = [compiled[key] for key in _COMPILED if key in compiled] if compiled else []
    found = [*model._flatten_layers(), *keras.tree.flatten(arguments)]
    found.append(getattr(model, "optimizer", None))
    seen: set[Any] = set()
    for obj in found:
        kind = obj if isinstance(obj, FunctionType) else type(obj)
        known = kind in seen or kind.__module__.partition(".")[0] in ("keras", "builtins")
        seen.add(kind)
        if not known and (isinstance(obj, FunctionType) or hasattr(obj, "get_config")):
            yield obj

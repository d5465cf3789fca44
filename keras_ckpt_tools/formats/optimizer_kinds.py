"""Decide whether the state of one optimizer may be loaded into another.

Optimizer state is a list of arrays without a description: Adam's moments have the same shapes as
RMSprop's, and those of two variables can be equal too. So these are compared: the class (from the
record, or from the config of a `.keras`); else the name, which Keras derives from the class
(`adam_w_2`); and the variables that the optimizer was built with, in order (from the record). A
stock `.weights.h5` with a custom optimizer, or with one that the user named, contains none of
these. Then the number and shapes of the arrays are compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from keras_ckpt_tools.metadata import OptimizerState

_OF_KERAS = (
    "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer MultiOptimizer "
    "Muon Nadam RMSprop SGD ScheduleFreeAdamW"
).split()
# Keras 3.10 calls `AdamW` "adamw", and a later one "adam_w".
_BY_NAME = {kind.lower(): kind for kind in _OF_KERAS}


def is_of_keras(class_name: str) -> bool:
    """Return whether Keras has an optimizer of this name."""
    return class_name in _OF_KERAS


def why_not(
    here: OptimizerState,
    there: OptimizerState,
    name_here: str | None,
    name_there: str | None,
    pairs: Mapping[str, str],
    moved: frozenset[str],
    shown: Callable[[str], str] = str,
) -> str | None:
    """Return why the state of one optimizer does not belong to another; `None` where it may.

    Args:
        here: The optimizer in the model. An empty path stands for a variable that is not known.
        there: The one in the checkpoint, likewise.
        name_here: What it is called.
        name_there: What that one was called.
        pairs: The path in the checkpoint of each tensor of the model that has a pair.
        moved: Paths in the model that were paired by the names of layers, at another place.
        shown: Returns what people are shown for a path in the model.

    >>> why_not(OptimizerState("SGD"), OptimizerState("Adam"), None, None, {}, frozenset())
    'it is of Adam, and the model has SGD'
    >>> why_not(OptimizerState("AdamW"), OptimizerState(), "adam_w", "adam_1", {}, frozenset())
    'it is of Adam, and the model has AdamW'
    """
    kind = there.class_name or _kind_by_name(name_here, name_there)
    if kind and here.class_name and kind != here.class_name:
        return f"it is of {kind}, and the model has {here.class_name}"
    if not here.built_on:
        return None
    if there.built_on:
        return _other_variables(here.built_on, there.built_on, pairs, shown)
    doubtful = [p for p in here.built_on if p and (p in moved or p not in pairs)]
    if not doubtful:
        return None
    what = "has another position" if doubtful[0] in moved else "is not in it"
    which = shown(doubtful[0])
    return f"the checkpoint does not contain the variables of the optimizer, and {which} {what}"


def _kind_by_name(here: str | None, there: str | None) -> str | None:
    """Return the class that a name of Keras' making stands for; `None` where it may be the same."""
    plain = _plain(there)
    return None if _plain(here) == plain else _BY_NAME.get(plain)


def _plain(name: str | None) -> str:
    return re.sub(r"_\d+$", "", name or "").replace("_", "").lower()


def _other_variables(
    here: Sequence[str], there: Sequence[str], pairs: Mapping[str, str], shown: Callable[[str], str]
) -> str | None:
    wanted = [pairs.get(path) if path else path for path in here]
    if wanted == list(there):
        return None
    if len(here) != len(there):
        return f"it was built with {len(there)} variables, and the model's with {len(here)}"
    number = next(n for n, both in enumerate(zip(wanted, there, strict=True)) if both[0] != both[1])
    order = "in another order" if set(wanted) == set(there) else "different"
    return (
        f"the variables it was built with are {order}: number {number} was "
        f"{there[number]}, and here it is {shown(here[number])}"
    )

"""The state of an optimizer in a file of Keras 2, given to one of Keras 3: file -> *slots* -> fill.

A whole-model `.h5` has the name of each number (`Adam/m/dense/kernel:0`, or `Adam/dense/kernel/m:0`
of the optimizers of before 2.11); a `.keras` has them by their order alone, which is that of the
newer optimizers. Keras 3 counts the learning rate among them, and Keras 2 kept momentum for SGD
that had none. What is no state of the live optimizer is never given to it: the number of values
and the shape of each have to agree, or none is taken.

Sources: `build` of the optimizers of `tf_keras` 2.18 and Keras 3.15, `_create_slots` of
`optimizers.legacy`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Arranged", "arrange", "momentum_product"]

_ADAM = {"m": "_momentums", "v": "_velocities", "vhat": "_velocity_hats"}
# What Keras 2 calls a slot, and where Keras 3 keeps it; by class, in the order of Keras 2.
_SLOTS: dict[str, dict[str, str]] = {
    "Adadelta": {
        "accumulated_grad": "_accumulated_grads",
        "accumulated_delta_var": "_accumulated_delta_vars",
        "accum_grad": "_accumulated_grads",
        "accum_var": "_accumulated_delta_vars",
    },
    "Adagrad": {"accumulator": "_accumulators"},
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "Adamax": {"m": "_m", "u": "_u", "v": "_u"},
    "Ftrl": {"accumulator": "_accumulators", "linear": "_linears"},
    "Lion": {"m": "_momentums"},
    "Nadam": {"m": "_momentums", "v": "_velocities"},
    "RMSprop": {
        "velocity": "_velocities",
        "rms": "_velocities",
        "momentum": "_momentums",
        "average_gradient": "_average_gradients",
        "mg": "_average_gradients",
    },
    "SGD": {"m": "momentums", "momentum": "momentums"},
}
_AVERAGE = ("average", "_model_variables_moving_average")
# Kept one after the other, each for all variables; all others are kept variable by variable.
_APART = ("_velocity_hats", _AVERAGE[1])
# From here on each step multiplies by the same; how many steps there were is a stranger's number.
_SETTLED = 1000
_ITERATION = ("iteration", "iter", "iterations")


@dataclass(frozen=True)
class Arranged:
    """Where the values of a file belong.

    Attributes:
        places: The index in the file of each live variable's value, by `id` of the variable.
        fits: Whether each value of the file has its place, and each slot its value.
    """

    places: Mapping[int, int]
    fits: bool


def arrange(
    optimizer: Any,
    shapes: Sequence[tuple[int, ...]],
    names: Sequence[str] = (),
    variables: Mapping[str, int] | None = None,
) -> Arranged:
    """Match what a file has of an optimizer with a live one.

    Args:
        optimizer: The live one, built.
        shapes: Of the values in the file, in their order.
        names: Their names, where the file has them.
        variables: The index of each trained variable, by its name in the file.
    """
    kind = _kind_of(optimizer)
    if kind is None:
        return Arranged({}, not shapes)
    parts = list(_by_name(kind, names, variables or {}) if names else _by_order(kind, optimizer))
    trained = list(getattr(optimizer, "_trainable_variables", ()))
    places: dict[int, int] = {}
    fits = len(parts) == len(shapes)
    for position, (attribute, index) in enumerate(parts[: len(shapes)]):
        if attribute == "_iterations":
            places[id(optimizer._iterations)] = position
            continue
        slots = getattr(optimizer, attribute, None) or ()
        if attribute == "momentums" and not slots and 0 <= index < len(trained):
            continue  # SGD without momentum: Keras 2 keeps zeros.
        slot = slots[index] if 0 <= index < len(slots) else None
        if slot is not None and tuple(slot.shape) == shapes[position] and id(slot) not in places:
            places[id(slot)] = position
        else:
            fits = False
    needed = sum(len(getattr(optimizer, slot, None) or ()) for slot in _attributes(kind))
    return Arranged(places, fits and len(places) == needed + 1)


def momentum_product(optimizer: Any, steps: int) -> float:
    """Return the product of momenta that Nadam has after so many steps; Keras 2 does not save it.

    >>> class Nadam:
    ...     beta_1 = 0.9
    >>> round(momentum_product(Nadam, 1), 6)
    0.468
    """
    beta, product = float(optimizer.beta_1), 1.0
    for step in range(1, min(steps, _SETTLED) + 1):
        product *= beta * (1.0 - 0.5 * math.pow(0.96, step))
    with np.errstate(all="ignore"):
        return product * float(np.power(beta, max(steps - _SETTLED, 0)))


def _kind_of(optimizer: Any) -> str | None:
    return next((k.__name__ for k in type(optimizer).__mro__ if k.__name__ in _SLOTS), None)


def _attributes(kind: str) -> list[str]:
    return list(dict.fromkeys([_AVERAGE[1], *_SLOTS[kind].values()]))


def _by_order(kind: str, optimizer: Any) -> Iterator[tuple[str, int]]:
    """Yield the slots in the order in which the newer optimizers of Keras 2 keep them."""
    yield "_iterations", 0
    number = len(getattr(optimizer, "_trainable_variables", ()))
    present = [a for a in _attributes(kind) if getattr(optimizer, a, None)]
    if kind == "SGD" and "momentums" not in present:
        present.append("momentums")
    # RMSprop keeps all of them so.
    together = [] if kind == "RMSprop" else [a for a in present if a not in _APART]
    apart = [a for a in present if a not in together]
    if _AVERAGE[1] in apart:
        apart.remove(_AVERAGE[1])
        yield from ((_AVERAGE[1], index) for index in range(number))
    yield from ((attribute, index) for index in range(number) for attribute in together)
    yield from ((attribute, index) for attribute in apart for index in range(number))


def _by_name(
    kind: str, names: Sequence[str], variables: Mapping[str, int]
) -> Iterator[tuple[str, int]]:
    slots = dict([_AVERAGE]) | _SLOTS[kind]
    known = {_plain(name): index for name, index in variables.items()}
    unique = len(known) == len(variables)
    counts: dict[str, int] = {}
    for name in names:
        parts = _plain(name).split("/")
        if parts[-1] in _ITERATION:
            yield "_iterations", 0
            continue
        if len(parts) > 2 and parts[1] in slots:
            slot, rest = parts[1], parts[2:]
        else:
            slot, rest = parts[-1].rstrip("_0123456789"), parts[:-1]
        if slot not in slots:
            yield "", -1
            continue
        at = counts[slot] = counts.get(slot, -1) + 1
        found = _longest(rest, known) if unique else None
        yield slots[slot], at if found is None else found


def _longest(parts: Sequence[str], known: Mapping[str, int]) -> int | None:
    """Return the variable whose name ends a slot's; the longest such name counts."""
    for start in range(len(parts)):
        if (found := known.get("/".join(parts[start:]))) is not None:
            return found
    return None


def _plain(name: str) -> str:
    return name.partition(":")[0]

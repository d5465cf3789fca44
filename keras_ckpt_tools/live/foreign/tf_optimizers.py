"""Match the state of a Keras 2 optimizer with a Keras 3 optimizer.

Optimizers before Keras 2.11 (`optimizers.legacy`) have a slot for each variable, and the file
contains which; hyperparameters are saved like state. Later ones have lists as in Keras 3
(`_momentums`), and the name of each element ends with the name of its variable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_ckpt_tools.formats.common.limits import number_in
from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint
from keras_ckpt_tools.formats.tensorflow.object_graph import Node

# The slots of `optimizers.legacy`, by the class of the optimizer, and where Keras 3 keeps them.
_SLOTS = {
    "Adadelta": {"accum_grad": "_accumulated_grads", "accum_var": "_accumulated_delta_vars"},
    "Adagrad": {"accumulator": "_accumulators"},
    "Adam": {"m": "_momentums", "v": "_velocities", "vhat": "_velocity_hats"},
    "Adamax": {"m": "_m", "v": "_u"},
    "Ftrl": {"accumulator": "_accumulators", "linear": "_linears"},
    "Nadam": {"m": "_momentums", "v": "_velocities"},
    "RMSprop": {"rms": "_velocities", "momentum": "_momentums", "mg": "_average_gradients"},
    "SGD": {"momentum": "momentums"},
}
_COUNTERS = {"iter": "_iterations", "learning_rate": "_learning_rate"}
_TRAINED = "_trainable_variables"
_BOOKKEEPING = ("_variables", "_index_dict", _TRAINED)

Matched = list[tuple[str, Any]]


def match_optimizer(
    checkpoint: TfCheckpoint, node: Node, optimizer: Any, variables: Sequence[tuple[Node, Any]]
) -> tuple[Matched, set[str]]:
    """Match the state of a saved optimizer with a live one.

    Args:
        checkpoint: The checkpoint.
        node: The optimizer in it.
        optimizer: The live one, built.
        variables: The variables of the model, as saved and as live.

    Returns:
        Pairs of a key and the live variable that it belongs to; and the keys of hyperparameters
        that Keras 3 has no variable for and that are the same here.
    """
    matched: Matched = []
    same: set[str] = set()
    trained = {id(v): index for index, v in enumerate(_trained_by(optimizer))}
    live = {id(saved): value for saved, value in variables}
    owners = _owners(node, live)
    for name, child in node.children.items():
        if name in _BOOKKEEPING or not child.holds_values:
            continue
        if child.key:
            target = _own(optimizer, name)
            if _is_variable(target):
                matched.append((child.key, target))
            elif _is_the_same(checkpoint, child, optimizer, name):
                same.add(child.key)
            continue
        slots = getattr(optimizer, name, None) or getattr(optimizer, f"_{name}", None)
        if isinstance(slots, (list, tuple)):
            matched += _listed(child, slots, trained, variables, owners)
    for original, slot_name, slot in node.slots:
        value = live.get(id(original))
        slots = getattr(optimizer, _attribute_of(optimizer, slot_name), None)
        if value is not None and slots and id(value) in trained:
            matched.append((slot.key, slots[trained[id(value)]]))
    return matched, same


def _attribute_of(optimizer: Any, slot: str) -> str:
    for kind in type(optimizer).__mro__:
        if kind.__name__ in _SLOTS:
            return _SLOTS[kind.__name__].get(slot, "")
    return ""


def _trained_by(optimizer: Any) -> Iterable[Any]:
    return getattr(optimizer, "_trainable_variables", ()) or ()


def _own(optimizer: Any, name: str) -> Any:
    for known in (_COUNTERS.get(name, name), f"_{name}"):
        if (value := vars(optimizer).get(known)) is not None:
            return value
    return None


def _is_variable(value: Any) -> bool:
    return hasattr(value, "assign") and hasattr(value, "shape")


def _is_the_same(checkpoint: TfCheckpoint, child: Node, optimizer: Any, name: str) -> bool:
    """Return whether a hyperparameter that was saved need not be restored."""
    if name in ("_current_learning_rate", "learning_rate", "decay", "_learning_rate"):
        # A schedule says what the learning rate is, from the step alone.
        if not _is_variable(_own(optimizer, "learning_rate")):
            return True
        if name != "decay":
            return False
    value = float(checkpoint.read_all([child.key])[child.key])
    here = 0.0 if name == "decay" else getattr(optimizer, name, None)
    return here is not None and np.float32(here) == np.float32(value)


def _owners(node: Node, live: Mapping[int, Any]) -> dict[int, Any]:
    """Return the live variable at each position of the lists, where the optimizer says."""
    listed = node.children.get(_TRAINED, Node()).children
    return {
        i: live[id(c)]
        for n, c in listed.items()
        if (i := number_in(n)) is not None and id(c) in live
    }


def _listed(
    node: Node,
    slots: Sequence[Any],
    trained: Mapping[int, int],
    variables: Sequence[tuple[Node, Any]],
    owners: Mapping[int, Any],
) -> Matched:
    """Match the elements of a list, by reference or by the variable that each has in its name."""
    by_name: dict[str, list[Any]] = {}
    for saved, value in variables:
        by_name.setdefault(_plain(saved.name), []).append(value)
    matched: Matched = []
    for name, child in node.children.items():
        if (position := number_in(name)) is None:
            continue
        owner = [owners[position]] if position in owners else []
        candidates = owner or _named_in(child.name, by_name)
        # Names need not be unique; then the variable at the same position is used.
        at_place = [v for v in candidates if trained.get(id(v)) == position]
        chosen = candidates if len(candidates) == 1 else at_place
        if chosen and id(chosen[0]) in trained:
            index = trained[id(chosen[0])]
            if index < len(slots) and slots[index] is not None:
                matched.append((child.key, slots[index]))
    return matched


def _named_in(name: str, by_name: Mapping[str, list[Any]]) -> list[Any]:
    """Return the variables whose name ends a slot's name; the longest such name counts."""
    parts = _plain(name).split("/")
    for start in range(1, len(parts)):
        if (found := by_name.get("/".join(parts[start:]))) is not None:
            return found
    return []


def _plain(name: str) -> str:
    return name.partition(":")[0]

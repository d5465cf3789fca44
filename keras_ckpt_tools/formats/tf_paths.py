"""What the variables of a TensorFlow checkpoint are called: graph -> *paths* -> match, export.

TensorFlow names a variable by the first path on which it meets it, and an optimizer that stands
beside its model refers to the model's variables, by a shorter path than the model's own. So its
keys say `optimizer/_trainable_variables/0` of the kernel of a layer. Here a path through an
optimizer counts only where there is no other; what has no other is the optimizer's state.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from keras_ckpt_tools.formats.tf_graph import VALUE, Node

__all__ = ["BOOKKEEPING", "Paths", "paths_of"]

BOOKKEEPING = ("save_counter", "_keras_ckpt_tools")
"""Children of what was saved that count saves or hold the state of the program."""

_COUNTERS = ("_iterations", "iter", "iterations")
_HYPER = ("_learning_rate", "learning_rate", "_variables", "_trainable_variables", "decay")
_SLOT = "/.OPTIMIZER_SLOT/"


@dataclass(frozen=True)
class Paths:
    """The paths of all tensors of a checkpoint.

    Attributes:
        by_key: The path of each, by its key.
        state: Of those that are the state of an optimizer, the path within it, by key.
    """

    by_key: dict[str, str]
    state: dict[str, str]


def paths_of(root: Node, keys: Iterable[str]) -> Paths:
    """Return what the tensors of a checkpoint are called, and which are state of optimizers.

    Args:
        root: The object that was saved.
        keys: The keys of the tensors.
    """
    keys = list(keys)
    found: dict[str, str] = {}
    state: dict[str, str] = {}
    optimizers: list[tuple[str, Node]] = []
    later: list[tuple[str, Node]] = []
    if _is_optimizer("", root) and root.children.keys() >= {"_iterations", "_variables"}:
        optimizers.append(("", root))
    else:
        _walk([("", root)], found, optimizers, later)
    known = set(found)
    _walk(later, found, optimizers, None)
    for prefix, optimizer in optimizers:
        below: dict[str, str] = {}
        _walk([("", optimizer)], below, None, None)
        for key, path in below.items():
            if key not in found:
                found[key] = _joined(prefix, path)
            if key not in known:
                state.setdefault(key, path)
    for key in keys:
        plain = _unescaped(key.removesuffix(f"/.ATTRIBUTES/{VALUE}"))
        found.setdefault(key, plain)
        if _SLOT in plain:
            state.setdefault(key, plain)
    return Paths({key: found[key] for key in keys}, state)


def _walk(
    begin: list[tuple[str, Node]],
    found: dict[str, str],
    optimizers: list[tuple[str, Node]] | None,
    later: list[tuple[str, Node]] | None,
) -> None:
    """Take the shortest paths, as TensorFlow does; optimizers and bookkeeping are put off."""
    queue, seen = deque(begin), {id(node) for _, node in begin}
    while queue:
        path, node = queue.popleft()
        if node.key:
            found.setdefault(node.key, path)
        for name, child in node.children.items():
            below = _joined(path, name)
            if not child.holds_values or id(child) in seen:
                continue
            if later is not None and not path and name in BOOKKEEPING:
                later.append((below, child))
            elif optimizers is not None and _is_optimizer(name, child):
                optimizers.append((below, child))
            else:
                seen.add(id(child))
                queue.append((below, child))


def _is_optimizer(name: str, node: Node) -> bool:
    if node.key:
        return False
    counts = any(counter in node.children for counter in _COUNTERS)
    return bool(node.slots) or (
        counts and (name == "optimizer" or any(one in node.children for one in _HYPER))
    )


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path and name else path or name


def _unescaped(path: str) -> str:
    r"""Return a path with the names that TensorFlow had to escape.

    >>> _unescaped("model/v1..2/.OPTIMIZER_SLOT")
    'model/v1.2/.OPTIMIZER_SLOT'
    """
    return re.sub(r"\.([.S])", lambda found: "/" if found[1] == "S" else ".", path)

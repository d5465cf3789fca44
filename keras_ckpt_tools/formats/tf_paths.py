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
from typing import NamedTuple

from keras_ckpt_tools.formats.tf_graph import VALUE, Node

__all__ = ["BOOKKEEPING", "Paths", "paths_of"]

BOOKKEEPING = ("save_counter", "_keras_ckpt_tools")
"""Children of what was saved that count saves or hold the state of the program."""

_COUNTERS = ("_iterations", "iter", "iterations")
_HYPER = ("_learning_rate", "learning_rate", "_variables", "_trainable_variables", "decay")
_SLOT = "/.OPTIMIZER_SLOT/"
_LONGEST = 1024


@dataclass(frozen=True)
class Paths:
    """The paths of all tensors of a checkpoint.

    Attributes:
        by_key: The path of each, by its key.
        state: Of those that are the state of an optimizer, the path within it, by key.
    """

    by_key: dict[str, str]
    state: dict[str, str]


class _Way(NamedTuple):
    """How a variable is reached: the way to the object that has it, and its name there.

    A path as text repeats all names on its way, so a chain of objects with long names would take
    memory in the square of its length. Text is made of those ways only that lead to a tensor.
    """

    before: _Way | None
    name: str
    length: int

    def to(self, name: str) -> _Way:
        return _Way(self, name, self.length + len(name) + 1)

    def text(self) -> str:
        names = []
        way: _Way | None = self
        while way is not None:
            names.append(way.name)
            way = way.before
        return "/".join(filter(None, reversed(names)))


_START = _Way(None, "", 0)
_Begin = list[tuple[_Way, Node]]


def paths_of(root: Node, keys: Iterable[str]) -> Paths:
    """Return what the tensors of a checkpoint are called, and which are state of optimizers.

    A path that is much longer than the key of its tensor is no path of TensorFlow's, which took the
    shortest for the key; then the key names the tensor.

    Args:
        root: The object that was saved.
        keys: The keys of the tensors.
    """
    keys = list(keys)
    found: dict[str, tuple[_Way, _Way]] = {}
    state: dict[str, _Way] = {}
    optimizers: _Begin = []
    later: _Begin = []
    reached: dict[str, _Way] = {}
    if _is_optimizer("", root) and root.children.keys() >= {"_iterations", "_variables"}:
        optimizers.append((_START, root))
    else:
        _walk([(_START, root)], reached, set(), optimizers, later)
    known = set(reached)
    _walk(later, reached, set(), optimizers, None)
    found |= {key: (_START, way) for key, way in reached.items()}
    # What one optimizer leads to is settled by it, so no further one goes there again.
    seen: set[int] = set()
    for prefix, optimizer in optimizers:
        below: dict[str, _Way] = {}
        _walk([(_START, optimizer)], below, seen, None, None)
        for key, way in below.items():
            found.setdefault(key, (prefix, way))
            if key not in known:
                state.setdefault(key, way)
    by_key: dict[str, str] = {}
    state_by_key: dict[str, str] = {}
    for key in keys:
        plain = _unescaped(key.removesuffix(f"/.ATTRIBUTES/{VALUE}"))
        by_key[key] = _named(found.get(key, ()), key, plain)
        if key in state:
            state_by_key[key] = _named((state[key],), key, plain)
        elif _SLOT in plain:
            state_by_key[key] = plain
    return Paths(by_key, state_by_key)


def _named(ways: tuple[_Way, ...], key: str, plain: str) -> str:
    if not ways or sum(way.length for way in ways) > _LONGEST + 4 * len(key):
        return plain
    return "/".join(filter(None, (way.text() for way in ways)))


def _walk(
    begin: _Begin,
    found: dict[str, _Way],
    seen: set[int],
    optimizers: _Begin | None,
    later: _Begin | None,
) -> None:
    """Take the shortest paths, as TensorFlow does; optimizers and bookkeeping are put off."""
    queue = deque((way, node) for way, node in begin if id(node) not in seen)
    seen |= {id(node) for _, node in queue}
    while queue:
        way, node = queue.popleft()
        if node.key:
            found.setdefault(node.key, way)
        for name, child in node.children.items():
            if not child.holds_values or id(child) in seen:
                continue
            if later is not None and way is _START and name in BOOKKEEPING:
                later.append((way.to(name), child))
            elif optimizers is not None and _is_optimizer(name, child):
                optimizers.append((way.to(name), child))
            else:
                seen.add(id(child))
                queue.append((way.to(name), child))


def _is_optimizer(name: str, node: Node) -> bool:
    if node.key:
        return False
    counts = any(counter in node.children for counter in _COUNTERS)
    return bool(node.slots) or (
        counts and (name == "optimizer" or any(one in node.children for one in _HYPER))
    )


def _unescaped(path: str) -> str:
    r"""Return a path with the names that TensorFlow had to escape.

    >>> _unescaped("model/v1..2/.OPTIMIZER_SLOT")
    'model/v1.2/.OPTIMIZER_SLOT'
    """
    return re.sub(r"\.([.S])", lambda found: "/" if found[1] == "S" else ".", path)

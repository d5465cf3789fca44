"""Read the object graph of a TensorFlow checkpoint.

TensorFlow saves the children of each object by name, the names of variables, and which variable is
an optimizer slot of which (a `TrackableObjectGraph`). `live/foreign/tf_objects.py` compares the
graph with live objects; nothing is deferred.

Source: TensorFlow's `trackable_object_graph.proto`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from keras_ckpt_tools.formats.tensorflow.protobuf import fields, text

VALUE = "VARIABLE_VALUE"


# What most of the objects in a hostile graph have; two bytes of it are an object.
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class Node:
    """One object of the program that wrote a checkpoint.

    Attributes:
        children: The objects that it has, by the name that it has them under.
        key: The key of its value, where it is a variable; else an empty string.
        name: The full name of that variable (`"dense/kernel"`).
        shape: Its dimensions.
        slots: For an optimizer that keeps them so, `(variable, name of the slot, its variable)`.
        holds_values: Whether there is a value in it or below it.
    """

    children: Mapping[str, Node] = field(default_factory=lambda: _NONE)
    key: str = ""
    name: str = ""
    shape: tuple[int, ...] = ()
    slots: tuple[tuple[Node, str, Node], ...] = ()
    holds_values: bool = False


def parse_graph(data: bytes, shapes: Mapping[str, tuple[int, ...]], most_nodes: int) -> Node:
    """Return the object that was saved, with all that it has.

    Raises:
        ValueError: it is none; says how.
    """
    told = [value for number, value in fields(data) if number == 1 and isinstance(value, bytes)]
    if len(told) > most_nodes:
        raise ValueError("its graph has more objects than any program's")
    nodes = [Node() for _ in told]

    def at(index: Any) -> Node:
        if not isinstance(index, int) or index >= len(nodes):
            raise ValueError("its graph names an object that is not in it")
        return nodes[index]

    above: dict[int, list[Node]] = {}
    for node, message in zip(nodes, told, strict=True):
        children: dict[str, Node] = {}
        slots: list[tuple[Node, str, Node]] = []
        for number, value in fields(message):
            if not isinstance(value, bytes):
                continue
            said: dict[int, Any] = dict(fields(value))
            if number == 1:
                child = at(said.get(1, 0))
                children[text(said.get(2, b""))] = child
                above.setdefault(id(child), []).append(node)
            elif number == 2 and said.get(1) == VALUE.encode():
                node.name, node.key = text(said.get(2, b"")), text(said.get(3, b""))
                node.shape = shapes.get(node.key, ())
            elif number == 3:
                slots.append((at(said.get(1, 0)), text(said.get(2, b"")), at(said.get(3, 0))))
        if children:
            node.children = children
        node.slots = tuple(slots)
    _mark(nodes, above)
    return nodes[0] if nodes else Node()


def _mark(nodes: list[Node], above: dict[int, list[Node]]) -> None:
    """Note which objects hold values: those with one, and all above them. There are cycles."""
    stack = [node for node in nodes if node.key]
    while stack:
        node = stack.pop()
        if not node.holds_values:
            node.holds_values = True
            stack += above.get(id(node), [])


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

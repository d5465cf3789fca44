"""The graph of Python objects in a TensorFlow checkpoint: bytes -> *nodes*.

TensorFlow saves which object had which others under which names, the names of the variables, and
which variable is the slot of which (a `TrackableObjectGraph`). Nothing is restored by it later,
when an object happens to be made: `tf_objects` reads it beside live objects.

Source: TensorFlow's `trackable_object_graph.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from keras_ckpt_tools.formats.protobuf import fields, text

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

    Args:
        data: The message.
        shapes: The dimensions of each tensor, by key.
        most_nodes: How many objects there may be.

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

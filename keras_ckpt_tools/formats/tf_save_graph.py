"""The graph of live objects, as TensorFlow's own `Checkpoint` would save it: objects -> *keys*.

TensorFlow says through `tf.train.TrackableView` which objects an object has under which names. That
is all that a stock `restore` goes by, so what is written by it is read back by it, and nothing
private of TensorFlow's is asked.

Under Keras 3 it does not see everything: layers in lists and dicts, seed generators, metrics. Those
are written as well, under keys of their own (`_keras_ckpt_tools/...`), for us.

Source: TensorFlow's `trackable_object_graph.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_ckpt_tools.formats.protobuf import bytes_field, number_field
from keras_ckpt_tools.formats.tf_checkpoint import SUFFIX
from keras_ckpt_tools.formats.tf_graph import VALUE
from keras_ckpt_tools.formats.variable_trees import is_variable

OWN = "_keras_ckpt_tools/"
COUNTER = "save_counter"


@dataclass(frozen=True)
class SavedGraph:
    """What TensorFlow sees of some objects.

    Attributes:
        message: The graph, as it stands in a checkpoint.
        variables: The variables in it, by key.
    """

    message: bytes
    variables: Mapping[str, Any]


def graph_of(objects: Mapping[str, Any]) -> SavedGraph:
    """Return the graph of objects, as `tf.train.Checkpoint(**objects)` has it.

    What TensorFlow cannot track (metrics of Keras 3, generators of NumPy) is not in it.

    Args:
        objects: Them, by name.
    """
    # TensorFlow follows a list that contains itself without end, and has a counter of its own.
    named = {f"{n}_" if n == COUNTER else n: _without_cycles(o) for n, o in objects.items()}
    root = tf.train.Checkpoint(**{name: o for name, o in named.items() if _is_trackable(o)})
    _ = root.save_counter  # Made when it is asked for; a stock `restore` expects it.
    view = tf.train.TrackableView(root)
    nodes = view.descendants()
    numbers = {id(node): number for number, node in enumerate(nodes)}
    paths = {id(root): ""}
    children: list[list[tuple[str, int]]] = []
    above: dict[int, list[int]] = {}
    for number, node in enumerate(nodes):
        own = []
        for name, child in view.children(node).items():
            own.append((name, numbers[id(child)]))
            above.setdefault(numbers[id(child)], []).append(number)
            start = f"{paths[id(node)]}/" if paths[id(node)] else ""
            paths.setdefault(id(child), start + name.replace(".", "..").replace("/", ".S"))
        children.append(own)
    variables = {f"{paths[id(node)]}{SUFFIX}": node for node in nodes if is_variable(node)}
    holding: set[int] = set()
    stack = [numbers[id(variable)] for variable in variables.values()]
    while stack:
        number = stack.pop()
        if number not in holding:
            holding.add(number)
            stack += above.get(number, ())
    message = b"".join(
        bytes_field(1, _node(node, own, f"{paths[id(node)]}{SUFFIX}", number in holding))
        for number, (node, own) in enumerate(zip(nodes, children, strict=True))
    )
    return SavedGraph(message, variables)


def _without_cycles(item: Any, above: frozenset[int] = frozenset()) -> Any:
    """Return a list or dict with an empty dict wherever it contains itself; else the same one."""
    if type(item) not in (list, tuple, dict):
        return item
    if id(item) in above:
        return {}
    above = above | {id(item)}
    children = list(item.values() if isinstance(item, dict) else item)
    found = [_without_cycles(child, above) for child in children]
    if all(one is other for one, other in zip(found, children, strict=True)):
        return item
    return dict(zip(item, found, strict=True)) if isinstance(item, dict) else type(item)(found)


def _is_trackable(target: Any) -> bool:
    try:
        tf.train.Checkpoint(target=target)
    except ValueError:
        return False
    return True


def _node(node: Any, children: list[tuple[str, int]], key: str, holds: bool) -> bytes:
    found = b"".join(
        bytes_field(1, number_field(1, number) + bytes_field(2, name.encode()))
        for name, number in children
    )
    if is_variable(node):
        name = str(node.path if isinstance(node, keras.Variable) else node.name).partition(":")[0]
        told = bytes_field(1, VALUE.encode()) + bytes_field(2, name.encode())
        found += bytes_field(2, told + bytes_field(3, key.encode()))
    return found + bytes_field(5, number_field(1, int(holds)))

"""Write a TensorFlow checkpoint under a prefix.

A checkpoint is two files, and no rename replaces two at once. So an existing prefix is never
overwritten, and the `.index` of a new one is committed last: until it exists, the other file is not
a checkpoint. TensorFlow writes into a temporary folder; the files are then staged like any other.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools._tensorflow import needed_for
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.formats.tensorflow.checkpoint import SUFFIX
from keras_ckpt_tools.formats.tensorflow.object_graph import VALUE
from keras_ckpt_tools.formats.tensorflow.protobuf import bytes_field, number_field
from keras_ckpt_tools.live.variable_trees import is_variable
from keras_ckpt_tools.storage.commit import staged

tf = needed_for("TensorFlow checkpoints", "format tf")


def write_objects(prefix: str, **objects: Any) -> None:
    """Write live objects, as `tf.train.Checkpoint(**objects)` does.

    Raises:
        CommitError: the operating system refused; there is nothing at the prefix.
    """
    checkpoint = tf.train.Checkpoint(**objects)
    # Made when it is asked for. `restore` looks for it, which goes with `save`, and not with the
    # `write` that takes the prefix as it is.
    checkpoint.save_counter.assign(1)
    _write(prefix, checkpoint.write)


def write_arrays(prefix: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write arrays as variables in nested dicts: `"layers/dense/vars/0"` is four levels deep.

    `tf.train.load_checkpoint` has them under their paths.

    Raises:
        ArgumentError: a path is also the beginning of another, or TensorFlow has no such dtype.
        CommitError: the operating system refused; there is nothing at the prefix.
    """
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *groups, name = path.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                break
        if not isinstance(place, dict) or name in place:
            raise _refused(path, "its name begins with the name of another tensor")
        place[name] = _variable(path, array)
    root = tf.Module()
    root.tree = tree
    _write(prefix, tf.train.Checkpoint(root=root.tree).write)


def _variable(path: str, array: np.ndarray[Any, Any]) -> Any:
    try:
        with tf.device("CPU:0"):
            return tf.Variable(array)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise _refused(path, f"TensorFlow has no variables of {array.dtype.name}") from error


def _refused(path: str, why: str) -> ArgumentError:
    return ArgumentError(
        f"{path} cannot be a variable of the checkpoint: {why}.",
        received=f"tensor {path!r}",
        remedy="Leave it out with `--exclude`, or give it another name with `--rename`.",
    )


def _write(prefix: str, write: Callable[[str], Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="kct-") as folder:
        made = os.path.join(folder, "ckpt")
        write(made)
        # The index sorts behind `.data-...`: it comes last.
        for name in sorted(os.listdir(folder)):
            final = prefix + name.removeprefix("ckpt")
            with open(os.path.join(folder, name), "rb") as file, staged(final) as target:
                shutil.copyfileobj(file, target, 1 << 20)


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

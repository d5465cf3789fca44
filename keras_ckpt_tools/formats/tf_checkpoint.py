"""Read a TensorFlow checkpoint without building a graph: artefact -> *source* -> objects.

Tensors come by their key, through `tf.train.load_checkpoint`, which checks the checksum of each.
What a key means is in the file as well: TensorFlow saves the graph of Python objects that it walked
(a `TrackableObjectGraph`), with the name by which each object had its children, the names of the
variables, and which variable is the slot of which. That graph is what `tf_objects` reads, so
nothing is ever restored later, when an object happens to be made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from keras_ckpt_tools.errors import ArtefactNotFoundError, DamagedArtefactError
from keras_ckpt_tools.metadata import TensorInfo

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
_SUFFIX = f"/.ATTRIBUTES/{_VALUE}"


@dataclass
class Node:
    """One object of the program that wrote a checkpoint.

    Attributes:
        children: The objects that it has, by the name that it has them under.
        key: The key of its value, where it is a variable; else an empty string.
        name: The full name of that variable (`"dense/kernel"`).
        slots: For an optimizer that keeps them so, `(variable, name of the slot, its variable)`.
        holds_values: Whether there is a value in it or below it.
    """

    children: dict[str, Node] = field(default_factory=dict)
    key: str = ""
    name: str = ""
    slots: list[tuple[Node, str, Node]] = field(default_factory=list)
    holds_values: bool = False


class TfCheckpoint:
    """The tensors of a TensorFlow checkpoint by key, and the objects that they belong to.

    Args:
        prefix: `"run/ckpt-3"`, of `run/ckpt-3.index` and `run/ckpt-3.data-00000-of-00001`.

    Attributes:
        path: The prefix.
        tensors: Every tensor that is an array, by key.
        root: The object that was saved; one without children where the file does not say
            (a checkpoint of TensorFlow 1).

    Raises:
        DamagedArtefactError: it cannot be read.
    """

    def __init__(self, prefix: str):
        self.path = prefix
        try:
            self._reader = tf.train.load_checkpoint(prefix)
            shapes = self._reader.get_variable_to_shape_map()
            dtypes = self._reader.get_variable_to_dtype_map()
            self.root = _parse(self._reader.get_tensor(GRAPH)) if GRAPH in shapes else Node()
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise _damaged(prefix, error) from error
        self.tensors: Mapping[str, TensorInfo] = {
            key: TensorInfo(key, tuple(shape), dtypes[key].name)
            for key, shape in sorted(shapes.items())
            if dtypes[key] != tf.string
        }

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by key.

        Raises:
            DamagedArtefactError: bytes have changed or are missing.
        """
        arrays = {}
        for key in paths:
            try:
                arrays[key] = np.asarray(self._reader.get_tensor(key))
            except (tf.errors.OpError, ValueError, RuntimeError) as error:
                raise _damaged(self.path, error) from error
        return arrays

    def number(self, name: str) -> int | None:
        """Return a whole number that was saved with the root object, or `None` without it."""
        key = f"{name}{_SUFFIX}"
        return int(self.read_all([key])[key]) if key in self.tensors else None


def plain_key(key: str) -> str:
    """Return the path of an object in the program that saved it.

    >>> plain_key("model/layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE")
    'model/layer_with_weights-0/kernel'
    """
    return key.removesuffix(_SUFFIX)


def _parse(text: bytes) -> Node:
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    try:
        graph.ParseFromString(text)
    except Exception as error:  # protobuf's own class for it differs between its implementations.
        raise ValueError(f"its graph of objects cannot be read ({error})") from error
    nodes = [Node() for _ in graph.nodes]
    for node, told in zip(nodes, graph.nodes, strict=True):
        node.children = {child.local_name: nodes[child.node_id] for child in told.children}
        node.slots = [
            (nodes[s.original_variable_node_id], s.slot_name, nodes[s.slot_variable_node_id])
            for s in told.slot_variables
        ]
        for attribute in told.attributes:
            if attribute.name == _VALUE:
                node.key, node.name = attribute.checkpoint_key, attribute.full_name
    _mark(nodes)
    return nodes[0] if nodes else Node()


def _mark(nodes: list[Node]) -> None:
    """Note which objects hold values; there are cycles, so until nothing is new."""
    changed = True
    while changed:
        changed = False
        for node in reversed(nodes):
            holds = bool(node.key) or any(child.holds_values for child in node.children.values())
            if holds and not node.holds_values:
                node.holds_values = changed = True


def prefix_of(path: str) -> str:
    """Return the prefix of the checkpoint that a path is meant to be.

    Args:
        path: A prefix, one of the files of a checkpoint, or a directory.

    Raises:
        ArtefactNotFoundError: there is none.

    >>> prefix_of("run/cp.ckpt.index")
    'run/cp.ckpt'
    """
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    if not os.path.isdir(path) and os.path.basename(path) != "checkpoint":
        return re.sub(r"\.(index|data-\d+-of-\d+)$", "", path)
    prefix = prefix_in(folder)
    if prefix is None:
        raise ArtefactNotFoundError(
            "There is no TensorFlow checkpoint in the directory.",
            received=f"path={path!r}",
            remedy="Pass the prefix of one: `cp.ckpt` of `cp.ckpt.index`.",
            path=path,
            nearby=tuple(sorted(os.listdir(folder))),
        )
    return prefix


def prefix_in(directory: str) -> str | None:
    """Return the prefix of the newest checkpoint in a directory, or `None`.

    That is the one that the file `checkpoint` names. Where it is gone, or names one that is, it is
    the one with the highest number that is there.

    Raises:
        ArtefactNotFoundError: the file `checkpoint` names one, and there is none at all.
    """
    state = os.path.join(directory, "checkpoint")
    named = tf.train.latest_checkpoint(directory) if os.path.isfile(state) else None
    if named is not None:
        return str(named)
    names = os.listdir(directory) if os.path.isdir(directory) else []
    numbered = {
        int(found[2]): found[1]
        for name in names
        if (found := re.fullmatch(r"((?:.*-)?(\d+))\.index", name))
    }
    if numbered:
        return os.path.join(directory, numbered[max(numbered)])
    if os.path.isfile(state):
        raise ArtefactNotFoundError(
            "The file `checkpoint` is there, and the checkpoint that it names is not.",
            received=f"path={directory!r}",
            remedy="Put its `.index` and `.data-...` files back.",
            path=directory,
            nearby=tuple(sorted(names)),
        )
    return None


def _damaged(prefix: str, error: Exception) -> DamagedArtefactError:
    why = str(getattr(error, "message", None) or error)
    return DamagedArtefactError(
        f"The TensorFlow checkpoint is damaged: {why}.",
        received=f"path={prefix!r}",
        remedy="Restore its files from a copy.",
        path=prefix,
    )

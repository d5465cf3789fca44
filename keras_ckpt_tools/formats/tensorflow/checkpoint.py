"""Read a TensorFlow checkpoint: its tensors and the objects that own them.

Tensors are read by key (`bundle.py`). The object graph in the file (`object_graph.py`) maps keys to
the Python objects that TensorFlow tracked. Checkpoints of TensorFlow 1 have no graph; there, a key
is the name of a variable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Artefact
from keras_ckpt_tools.formats.tensor_source import ModelSource, read_from
from keras_ckpt_tools.formats.tensorflow.bundle import Bundle
from keras_ckpt_tools.formats.tensorflow.object_graph import (
    VALUE,
    Node,
    Paths,
    parse_graph,
    paths_of,
)
from keras_ckpt_tools.formats.tensorflow.prefixes import damaged, prefix_of
from keras_ckpt_tools.formats.tensorflow.recorded import RunSource, is_prefix
from keras_ckpt_tools.metadata import TensorInfo, TrainingProgress

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
SUFFIX = f"/.ATTRIBUTES/{VALUE}"

# Where the count of updates may be: of Keras 3 and 2, and what people call it in loops.
_COUNTS = (
    "optimizer/_iterations",
    "optimizer/iter",
    "model/optimizer/_iterations",
    "model/optimizer/iter",
    "step",
    "global_step",
    "train_counter",
)


class TfCheckpoint:
    """The tensors of a TensorFlow checkpoint by key, and the objects that they belong to.

    Args:
        prefix: `"run/ckpt-3"`, of `run/ckpt-3.index` and `run/ckpt-3.data-00000-of-00001`.
        limits: What it may take. Default: what this machine can hold.

    Attributes:
        path: The prefix.
        tensors: Every tensor that is an array, by key.
        root: The object that was saved; one without children where the file does not say
            (a checkpoint of TensorFlow 1).
        has_graph: Whether the file says which objects there were.

    Raises:
        ArtefactNotFoundError: there is none of that prefix.
        DamagedArtefactError: it is incomplete.
        OverBudgetError: it takes more than it may.
    """

    def __init__(self, prefix: str, limits: Limits | None = None):
        limits = limits or Limits.of()
        self.path = prefix
        self.bundle = Bundle(prefix, limits)
        self.tensors = self.bundle.tensors
        self.has_graph = GRAPH in self.bundle.entries
        self.root = Node()
        if self.has_graph:
            data = self.bundle.read_text(GRAPH)
            try:
                shapes = {key: info.shape for key, info in self.tensors.items()}
                self.root = parse_graph(data, shapes, limits.objects)
            except CkptError:
                raise
            except ValueError as error:
                how = f"its graph of objects cannot be read ({error})"
                raise damaged(prefix, how) from error

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by key.

        Raises:
            DamagedArtefactError: bytes have changed or are missing.
        """
        return self.bundle.read_all(paths)

    @cached_property
    def paths(self) -> Paths:
        """What its tensors are called, and which of them are the state of an optimizer."""
        return paths_of(self.root, self.tensors)

    def number(self, name: str) -> int | None:
        """Return a whole number that was saved with the root object, or `None` without it."""
        key, node = name, self.root
        if self.has_graph:
            # The key may be another one: that by which TensorFlow met the variable first.
            for part in name.split("/"):
                node = node.children.get(part, Node())
            key = node.key
        info = self.tensors.get(key)
        if info is None or info.shape or "int" not in info.dtype:
            return None
        return int(self.read_all([key])[key])

    def step(self) -> int:
        """Return the updates that had been made, as far as the checkpoint says; else 0."""
        counts = (self.number(name) for name in _COUNTS)
        return max(next((count for count in counts if count is not None), 0), 0)


class TfSource(ModelSource):
    """A TensorFlow checkpoint of others; its tensors have the paths of the objects that were saved.

    Attributes:
        checkpoint: The same by key, and with the objects.
        state_of_optimizers: Paths of what is the state of an optimizer.
    """

    covered = True  # TensorFlow writes checksums.

    def __init__(self, artefact: Artefact, limits: Limits):
        super().__init__(artefact, limits)
        self.checkpoint = TfCheckpoint(self.path, limits)
        paths = self.checkpoint.paths
        self._keys = {name: key for key, name in paths.by_key.items()}
        self.state_of_optimizers = frozenset(paths.by_key[key] for key in paths.state)

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        known = self.checkpoint.tensors
        return {name: replace(known[key], path=name) for name, key in self._keys.items()}

    @property
    def progress(self) -> TrainingProgress:
        return TrainingProgress(step=self.checkpoint.step())

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        return read_from(self.checkpoint, {path: self._keys[path] for path in paths})

    def verify(self) -> tuple[str, ...]:
        return tuple(self.checkpoint.bundle.problems())


def open_tensorflow(artefact: Artefact, limits: Limits) -> ModelSource:
    """Open a TensorFlow checkpoint: one of a run through its record, others by their objects."""
    prefix = prefix_of(artefact.path)
    if is_prefix(prefix):
        return RunSource(prefix, limits)
    return TfSource(replace(artefact, path=prefix), limits)


def plain_key(key: str) -> str:
    """Return the path of an object in the program that saved it.

    >>> plain_key("model/layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE")
    'model/layer_with_weights-0/kernel'
    """
    return key.removesuffix(SUFFIX)

"""The content of a file as plain values, which the writers take.

The values come from a live model or from another file. They are in a module of their own so that
converting a file needs neither Keras nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools.metadata import OptimizerState

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Snapshot:
    """The tensors of one moment, ready to be written.

    Attributes:
        arrays: Tensors by HDF5 path. They may share memory with the variables' old values.
        names: Names of objects by the path of their group (HDF5 attributes, as Keras sets them).
        links: Second paths of groups: `(path, target)`.
        called: What layers and optimizers are called, by group, where there are tensors below.
        optimizers: What optimizers they are, and of which variables, by group.
    """

    arrays: Mapping[str, np.ndarray[Any, Any]]
    names: Mapping[str, str] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()
    called: Mapping[str, str] = field(default_factory=dict)
    optimizers: Mapping[str, OptimizerState] = field(default_factory=dict)


@dataclass(frozen=True)
class Documents:
    """The members of a `.keras` other than its weights.

    Attributes:
        config: `config.json`, as Keras writes it.
        metadata: `metadata.json`, likewise.
        assets: Files that layers saved (vocabularies), by their name in the archive.
    """

    config: str
    metadata: str
    assets: Mapping[str, bytes]

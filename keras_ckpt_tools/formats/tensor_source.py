"""What a restore reads from: source -> *named tensors* -> compare, fill.

A file is one such source; a group of it, or the same tensors under other names, are views of it.
All of them read in bulk, so that neighbours in a file are read together whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.limits import Limits
from keras_ckpt_tools.metadata import Record, TensorInfo

if TYPE_CHECKING:
    import numpy as np


class TensorSource(Protocol):
    """Named tensors.

    Attributes:
        path: Where they come from, for messages.
        tensors: What there is.
    """

    @property
    def path(self) -> str: ...
    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...
    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]: ...


class ModelSource(TensorSource, Protocol):
    """What a model is built and filled from; see `source.Source` for what each of these is."""

    @property
    def kind(self) -> Kind: ...
    @property
    def record(self) -> Record | None: ...
    @property
    def config(self) -> dict[str, Any] | None: ...
    @property
    def training_config(self) -> dict[str, Any] | None: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def not_finite(self) -> Sequence[str]: ...
    def check(self) -> None: ...
    def check_unchanged(self) -> None: ...
    def extract_assets(self, directory: str) -> str | None: ...


def read_from(source: TensorSource, places: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return tensors of a source under other names.

    Args:
        source: Where they are.
        places: Where each stands there, by the name that it is to have.
    """
    arrays = source.read_all(places.values())
    return {name: arrays[place] for name, place in places.items()}


class SourceView:
    """The tensors of one group of a source, as a source of their own."""

    def __init__(self, source: TensorSource, group: str):
        self.path = source.path
        self._source = source
        self._prefix = f"{group}/"
        start = len(self._prefix)
        self.tensors = {
            path[start:]: info
            for path, info in source.tensors.items()
            if path.startswith(self._prefix)
        }

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by path."""
        return read_from(self._source, {path: self._prefix + path for path in paths})

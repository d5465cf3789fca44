"""Read a TensorFlow checkpoint of a run through its record: artefact -> *source* -> restore.

The record says where each tensor is in the data file and what its digest is, under the same paths
as in our other files; neither TensorFlow's index nor its graph of objects is needed to resume.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from keras_ckpt_tools.errors import DamagedArtefactError
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.common.safe_open import identity_of, open_regular
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.layer_names import optimizers_from_record
from keras_ckpt_tools.formats.record.reader import RecordReader
from keras_ckpt_tools.formats.record.userblock import digest_of
from keras_ckpt_tools.formats.record.validation import check_record
from keras_ckpt_tools.formats.tensorflow.bundle import damaged
from keras_ckpt_tools.metadata import OptimizerState, Record, TensorInfo
from keras_ckpt_tools.runs.tensorflow import DATA, INDEX, STATE, record_of


class RunSource:
    """The tensors of such a checkpoint, by path.

    Attributes:
        path: Its prefix.
        kind: What it is.
        record: Its record.
        tensors: What there is.
        not_finite: Paths of the tensors with NaN or infinity among those that were read.
        config: A checkpoint has none.
        metadata: Nor what Keras notes beside it.
        names: What its layers and optimizers were called, by group.
        optimizers: Its optimizers by group.
    """

    kind = Kind.TF_CHECKPOINT
    config = None
    metadata: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, prefix: str, record: Record, descriptor: int):
        self.path = prefix
        self.record = record
        self.tensors: Mapping[str, TensorInfo] = {info.path: info for info in record.tensors}
        self.names: Mapping[str, str] = record.names
        self.optimizers: Mapping[str, OptimizerState] = optimizers_from_record(record)
        self._descriptor = descriptor
        self._identity = identity_of(descriptor)
        self._reader = RecordReader(descriptor, 0, self._identity.size, record, 0)
        self._checked = False

    @property
    def not_finite(self) -> list[str]:
        return self._reader.not_finite

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by path.

        Raises:
            DamagedArtefactError: bytes have changed since it was written.
        """
        self.check()
        found = self._reader.read([self.tensors[path] for path in paths])
        arrays = {path: array for path, array in found.items() if array is not None}
        if changed := [path for path in found if path not in arrays]:
            raise damaged(self.path, f"the bytes of {', '.join(changed)} have changed")
        return arrays

    def check_others(self, paths: Iterable[str]) -> None:
        """Check what a load of these tensors leaves unread."""
        self.read_all(self.tensors.keys() - set(paths))

    def check(self) -> None:
        """Check all bytes that belong to no tensor, once.

        Raises:
            DamagedArtefactError: they have changed.
        """
        if not self._checked and (wrong := next(self._problems(), None)):
            raise damaged(self.path, wrong)
        self._checked = True

    def problems(self) -> list[str]:
        """Check every byte; return what is wrong, as sentences."""
        changed = self._reader.changed_tensors()
        told = [f"the bytes of {', '.join(changed)} have changed"] if changed else []
        return [*self._problems(), *told]

    def _problems(self) -> Iterator[str]:
        yield from self._reader.check()
        said = self.record.state.get(STATE)
        wanted = said.get("index") if isinstance(said, Mapping) else None
        try:
            with open(f"{self.path}{INDEX}", "rb") as file:
                if digest_of(file.read(1 << 30)) != wanted:
                    yield "the bytes of its index have changed"
        except OSError as error:
            yield f"its index cannot be read: {error.strerror}"

    def check_unchanged(self) -> None:
        """Refuse a file that was written to since it was opened."""
        if identity_of(self._descriptor) != self._identity:
            raise damaged(self.path, "it was written to while it was being read")


@contextmanager
def open_run(prefix: str, limits: Limits | None = None) -> Iterator[RunSource]:
    """Open a TensorFlow checkpoint of a run.

    Args:
        prefix: `"run/ckpt-00000003"`.
        limits: What it may take.

    Raises:
        DamagedArtefactError: it is not whole.
        OverBudgetError: it takes more than it may.
    """
    limits = limits or Limits.of()
    try:
        record, _ = record_of(prefix)
        descriptor = open_regular(f"{prefix}{DATA}")
    except OSError as error:
        if isinstance(error, DamagedArtefactError):
            raise
        raise damaged(prefix, f"one of its files cannot be read: {error.strerror}") from error
    if descriptor is None:
        raise damaged(prefix, "its data is no regular file")
    try:
        check_record(record, 0, os.fstat(descriptor).st_size, prefix)
        total = sum(info.nbytes for info in record.tensors)
        if total > limits.max_bytes:
            raise over_budget(prefix, "its tensors take", "max_bytes", total, limits.max_bytes)
        yield RunSource(prefix, record, descriptor)
    finally:
        os.close(descriptor)

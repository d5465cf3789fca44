"""Read a TensorFlow checkpoint of a run through its record: artefact -> *source* -> restore.

The record says where each tensor is in the data file and what its digest is, under the same paths
as in our other files; neither TensorFlow's index nor its graph of objects is needed to resume.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools.errors import DamagedArtefactError
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.common.safe_open import identity_of, open_regular
from keras_ckpt_tools.formats.kinds import TENSORFLOW, Artefact, Kind
from keras_ckpt_tools.formats.layer_names import optimizers_from_record
from keras_ckpt_tools.formats.record.userblock import MAGIC, decode, digest_of
from keras_ckpt_tools.formats.record.validation import check_record
from keras_ckpt_tools.formats.tensor_source import ModelSource
from keras_ckpt_tools.formats.tensorflow.prefixes import damaged
from keras_ckpt_tools.metadata import OptimizerState, Record, TensorInfo

if TYPE_CHECKING:
    import numpy as np

DATA, INDEX, RECORD = ".data-00000-of-00001", ".index", ".record"
SUFFIXES = (DATA, INDEX, RECORD)


def is_prefix(path: str | os.PathLike[str]) -> bool:
    """Return whether there is a TensorFlow checkpoint of a run under a prefix."""
    try:
        with open(f"{os.fspath(path)}{RECORD}", "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def record_of(prefix: str) -> tuple[Record, int]:
    """Return the record of a checkpoint, and the bytes of its file.

    Raises:
        FileNotFoundError: there is none.
        DamagedArtefactError: it has changed.
    """
    with open(f"{prefix}{RECORD}", "rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = decode(lambda offset, length: os.pread(file.fileno(), length, offset), prefix)
    if found is None:
        raise FileNotFoundError(f"{prefix}{RECORD}")
    return found[0], size


class RunSource(ModelSource):
    """The tensors of such a checkpoint, by path.

    Raises:
        DamagedArtefactError: it is not whole.
        OverBudgetError: it takes more than it may.
    """

    record: Record

    def __init__(self, prefix: str, limits: Limits):
        from keras_ckpt_tools.formats.record.reader import RecordReader

        super().__init__(Artefact(prefix, Kind.TF_CHECKPOINT, 0), limits)
        try:
            self.record, size = record_of(prefix)
            descriptor = open_regular(f"{prefix}{DATA}")
        except OSError as error:
            if isinstance(error, DamagedArtefactError):
                raise
            raise damaged(prefix, f"one of its files cannot be read: {error.strerror}") from error
        if descriptor is None:
            raise damaged(prefix, "its data is no regular file")
        self._fd = descriptor
        self._stack.callback(os.close, descriptor)
        self._identity = identity_of(descriptor)
        self.size = size + self._identity.size
        self._reader = RecordReader(descriptor, 0, self._identity.size, self.record, 0)
        self.not_finite = self._reader.not_finite
        self._checked = False
        try:
            check_record(self.record, 0, self._identity.size, prefix)
            if (total := sum(info.nbytes for info in self.record.tensors)) > limits.max_bytes:
                raise over_budget(prefix, "its tensors take", "max_bytes", total, limits.max_bytes)
        except BaseException:
            self.close()
            raise

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return {info.path: info for info in self.record.tensors}

    @property
    def names(self) -> Mapping[str, str]:
        """What its layers and optimizers were called, by group."""
        return self.record.names

    @cached_property
    def optimizers(self) -> Mapping[str, OptimizerState]:
        """Its optimizers by group."""
        return optimizers_from_record(self.record)

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        self.check()
        found = self._reader.read([self.tensors[path] for path in paths])
        arrays = {path: array for path, array in found.items() if array is not None}
        if changed := [path for path in found if path not in arrays]:
            raise damaged(self.path, f"the bytes of {', '.join(changed)} have changed")
        return arrays

    def check(self) -> None:
        if not self._checked and (wrong := next(self._problems(), None)):
            raise damaged(self.path, wrong)
        self._checked = True

    def verify(self) -> tuple[str, ...]:
        changed = self._reader.changed_tensors()
        told = [f"the bytes of {', '.join(changed)} have changed"] if changed else []
        return (*self._problems(), *told)

    def _problems(self) -> Iterator[str]:
        yield from self._reader.check()
        said = self.record.state.get(TENSORFLOW)
        wanted = said.get("index") if isinstance(said, Mapping) else None
        try:
            with open(f"{self.path}{INDEX}", "rb") as file:
                if digest_of(file.read(1 << 30)) != wanted:
                    yield "the bytes of its index have changed"
        except OSError as error:
            yield f"its index cannot be read: {error.strerror}"

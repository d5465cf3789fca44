"""Open whatever has tensors: path -> *opened* -> diff, export, compare.

One shape for files of Keras', of ours, of safetensors and of TensorFlow, and for the folders of a
run, which stand for one of their files. TensorFlow is imported for its own checkpoints and for
nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.source import READABLE, Source, open_source
from keras_ckpt_tools.formats.tensor_source import TensorSource, read_from
from keras_ckpt_tools.formats.tensorflow.prefixes import prefix_of
from keras_ckpt_tools.inspection.inspect import versions_of
from keras_ckpt_tools.inspection.wrong_kind import damaged, wrong_kind
from keras_ckpt_tools.metadata import Record, TensorInfo, TrainingProgress
from keras_ckpt_tools.runs import choose as directories
from keras_ckpt_tools.runs.tensorflow import is_prefix
from keras_ckpt_tools.runs.tensorflow_source import open_run

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Opened", "chosen", "open_artefact", "open_tensors"]

_FOLDERS = (Kind.CHECKPOINT_DIR, Kind.DIRECTORY)


@dataclass(frozen=True)
class Opened:
    """An artefact whose tensors can be read.

    Attributes:
        path: Where it is; of a folder, the file that was chosen.
        kind: What it is.
        size: Bytes.
        weights: Its tensors.
        source: It as a `Source`; `None` for a TensorFlow checkpoint.
    """

    path: str
    kind: Kind
    size: int
    weights: TensorSource
    source: Source | None

    @property
    def record(self) -> Record | None:
        """What it says about itself, where we wrote it."""
        record: Record | None = getattr(self.source or self.weights, "record", None)
        return record

    @property
    def progress(self) -> TrainingProgress:
        """Where training was; the zero record where it does not say."""
        return self.record.progress if self.record else TrainingProgress()

    @property
    def versions(self) -> dict[str, str]:
        """Versions that wrote it, as far as it says."""
        if self.source is None:
            return dict(self.record.versions) if self.record else {}
        return versions_of(self.source)


def chosen(path: str | os.PathLike[str], which: str | int, limits: Limits) -> Artefact:
    """Return what is at a path; of a folder, the file that is meant.

    Args:
        path: A file, a folder, or the prefix of a TensorFlow checkpoint.
        which: Of a folder: `"latest"`, `"best"` or a zero-based epoch. One file has to be of the
            epoch that is asked for.
        limits: What reading it may take.

    Raises:
        ArtefactNotFoundError: nothing is there.
        ArtefactKindError: a folder without such files.
        DamagedArtefactError: a folder in which all are damaged.
        ArgumentError: no file of the folder answers to `which`.
    """
    directories.check_which(which)
    artefact = tell(path, limits)
    entries = directories.entries_of(artefact)
    if not entries and artefact.kind not in _FOLDERS:
        return artefact
    if (index := directories.only_index(entries)) is not None:
        return tell(index, limits)
    candidates = directories.choose(entries, which, artefact.path)
    if not candidates:
        broken = [one.path for one in entries if one.problem and not os.path.islink(one.path)]
        raise damaged(tell(broken[0], limits)) if broken else wrong_kind(artefact, "weights")
    return tell(candidates[0].path, limits)


@contextmanager
def open_tensors(
    path: str | os.PathLike[str], which: str | int = "latest", limits: Limits | None = None
) -> Iterator[Opened]:
    """Open what has tensors.

    Args:
        path: A file, a folder, or the prefix of a TensorFlow checkpoint.
        which: See `chosen`.
        limits: What reading it may take. Default: what this machine can hold.

    Raises:
        ArtefactError: there is nothing, or nothing that could be read; says what it is.
    """
    limits = limits or Limits.of()
    with open_artefact(chosen(path, which, limits), limits) as opened:
        directories.require_epoch(which, opened.record, opened.path)
        yield opened


@contextmanager
def open_artefact(artefact: Artefact, limits: Limits) -> Iterator[Opened]:
    """Open what has tensors; it is one file or one prefix. See `open_tensors`."""
    if artefact.kind is Kind.TF_CHECKPOINT:
        if is_prefix(prefix := prefix_of(artefact.path)):
            with open_run(prefix, limits) as run:
                yield Opened(run.path, artefact.kind, artefact.size, run, None)
            return
        plain = _PlainNames(prefix, limits)
        yield Opened(plain.path, artefact.kind, artefact.size, plain, None)
        return
    if artefact.refusal is None and not artefact.damage and artefact.kind not in READABLE:
        raise wrong_kind(artefact, "weights")
    with open_source(artefact.path, artefact, limits) as source:
        yield Opened(artefact.path, artefact.kind, artefact.size, source, source)


class _PlainNames:
    """The tensors of a TensorFlow checkpoint under the paths of the objects that were saved."""

    def __init__(self, prefix: str, limits: Limits):
        from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint

        self._checkpoint = TfCheckpoint(prefix, limits)
        self.path = self._checkpoint.path
        paths = self._checkpoint.paths
        self._keys = {name: key for key, name in paths.by_key.items()}
        self.state_of_optimizers = frozenset(paths.by_key[key] for key in paths.state)
        self.tensors: Mapping[str, TensorInfo] = {
            name: replace(self._checkpoint.tensors[key], path=name)
            for name, key in self._keys.items()
        }

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        return read_from(self._checkpoint, {path: self._keys[path] for path in paths})

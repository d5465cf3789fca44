"""Open the file of a path, or the chosen file of a folder, for `diff` and `export`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.tensor_source import ModelSource
from keras_ckpt_tools.inspection.orbax_steps import steps_at
from keras_ckpt_tools.inspection.wrong_kind import require, visibly_damaged, wrong_kind
from keras_ckpt_tools.runs import choose as directories

_FOLDERS = (Kind.CHECKPOINT_DIR, Kind.DIRECTORY)


def chosen(path: str | os.PathLike[str], which: str | int, limits: Limits) -> Artefact:
    """Return the file at a path; for a folder, the chosen file.

    Args:
        path: A file, a folder, or the prefix of a TensorFlow checkpoint.
        which: For a folder: `"latest"`, `"best"` or a zero-based epoch (for Orbax, a step). A
            single file must be of that epoch.
        limits: Limits for reading it.

    Raises:
        ArtefactNotFoundError: there is nothing at the path.
        ArtefactKindError: a folder without such files.
        DamagedArtefactError: a folder in which all are damaged.
        ArgumentError: no file of the folder matches `which`.
    """
    directories.check_which(which)
    artefact = tell(path, limits)
    entries = directories.entries_of(artefact)
    if not entries and artefact.kind is Kind.ORBAX:
        return steps_at(artefact, which)[0]
    if not entries and artefact.kind not in _FOLDERS:
        return artefact
    if (index := directories.only_index(entries)) is not None:
        return tell(index, limits)
    candidates = directories.choose(entries, which, artefact.path)
    if not candidates:
        broken = [one.path for one in entries if one.problem and not os.path.islink(one.path)]
        raise visibly_damaged(tell(broken[0], limits)) if broken else wrong_kind(artefact)
    return tell(candidates[0].path, limits)


@contextmanager
def open_tensors(
    path: str | os.PathLike[str], which: str | int = "latest", limits: Limits | None = None
) -> Iterator[ModelSource]:
    """Open a file with tensors.

    Args:
        path: A file, a folder, or the prefix of a TensorFlow checkpoint.
        which: See `chosen`.
        limits: Limits for reading it. Default: the memory of this machine.

    Raises:
        ArtefactError: there is no file, or it cannot be read.
    """
    limits = limits or Limits.of()
    artefact = chosen(path, which, limits)
    require(artefact)
    with open_source(artefact.path, artefact, limits) as source:
        if artefact.kind is not Kind.ORBAX:
            directories.require_epoch(which, source.record, source.path)
        yield source

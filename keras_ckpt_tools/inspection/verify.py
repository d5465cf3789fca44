"""Verify files by reading every byte: `kct.verify`.

Files of this package have digests of all bytes. In third-party files, every tensor is read, and a
zip's own checksums are checked. Neither Keras nor TensorFlow is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from keras_ckpt_tools.errors import ArtefactError
from keras_ckpt_tools.formats.common.safe_open import NOT_FOLLOWED, is_alias
from keras_ckpt_tools.formats.hdf5.shard_index import ENDING, shards_named_by
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.open_source import READABLE, open_source
from keras_ckpt_tools.formats.tensorflow.prefixes import prefix_of, prefixes_in, state_of_directory
from keras_ckpt_tools.formats.tensorflow.recorded import INDEX, RECORD
from keras_ckpt_tools.inspection.orbax_steps import steps_at
from keras_ckpt_tools.inspection.wrong_kind import require, wrong_kind
from keras_ckpt_tools.runs.tensorflow import records_in
from keras_ckpt_tools.showing.bars import bar_for_file
from keras_ckpt_tools.showing.messages import harmless
from keras_ckpt_tools.showing.tables import as_html, as_text

# In a directory, files with these endings are always checked: an empty `.keras` is a problem.
_SUFFIXES = (".keras", ".h5", ".hdf5", ".safetensors", ENDING)


@dataclass(frozen=True)
class FileCheck:
    """The result of verifying one file.

    Attributes:
        path: Its path.
        kind: Its kind.
        size: Bytes.
        problems: Its problems, as sentences.
        covered: Whether it has digests or checksums. Third-party HDF5 files have none: they are
            read, but changed numbers cannot be detected.
    """

    path: str
    kind: Kind
    size: int
    problems: tuple[str, ...] = ()
    covered: bool = True

    def __bool__(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class VerifyReport:
    """The result of verifying a path; true if there are no problems.

    Attributes:
        path: The path.
        files: One for each file that was read.
    """

    path: str
    files: tuple[FileCheck, ...]

    def __bool__(self) -> bool:
        return all(self.files)

    @property
    def problems(self) -> tuple[str, ...]:
        """All problems, each with the name of its file."""
        return tuple(
            harmless(f"{os.path.basename(check.path)}: {problem}")
            for check in self.files
            for problem in check.problems
        )

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return `(verdict, file, kind, problems)` for each file."""
        return [
            (
                _verdict(check),
                os.path.basename(check.path),
                f"{check.kind}, {check.size:,} bytes",
                "; ".join(check.problems)
                or ("" if check.covered else "it has no digests: read, but not verified"),
            )
            for check in self.files
        ]

    def _caption(self) -> str:
        whole = sum(map(bool, self.files))
        return f"{self.path}: {whole} of {len(self.files)} without problems"

    def __str__(self) -> str:
        return as_text(self._caption(), self.rows())

    def _repr_html_(self) -> str:
        return as_html(self._caption(), ("verdict", "file", "kind", "problems"), self.rows())


def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Read every byte of a file, or of each file in a directory, and check it.

    Args:
        path: A `.keras`, `.weights.h5` or `.h5` file, the `.weights.json` of sharded weights, an
            unzipped Keras directory, the prefix of a TensorFlow checkpoint, what
            `keras.callbacks.OrbaxCheckpoint` wrote, or a directory of such.

    Returns:
        The report; it is true if there are no problems. It prints as a table.

    Raises:
        ArtefactNotFoundError: there is nothing at the path.
        ArtefactKindError: a directory without any such file.
        ArgumentError: `path` is not a path.

    Example:

    >>> import pathlib, tempfile
    >>> import keras_ckpt_tools as kct
    >>> path = pathlib.Path(tempfile.mkdtemp(), "model.keras")
    >>> _ = path.write_bytes(b"")
    >>> report = kct.verify(path)
    >>> bool(report), report.problems
    (False, ('model.keras: empty: it has no bytes',))
    """
    with bar_for_file("Verifying", path):
        return _verify(path)


def _verify(path: str | os.PathLike[str]) -> VerifyReport:
    artefact = tell(path)
    if artefact.kind is Kind.TF_CHECKPOINT:
        return VerifyReport(artefact.path, tuple(_check_tensorflow(artefact)))
    if artefact.kind is Kind.ORBAX:
        return VerifyReport(artefact.path, tuple(map(_check, steps_at(artefact))))
    if artefact.kind not in (Kind.DIRECTORY, Kind.CHECKPOINT_DIR):
        return VerifyReport(artefact.path, (_check(artefact),))
    names = os.listdir(artefact.path)
    # Checked with their index.
    shards = shards_named_by(artefact.path, names)
    checks = tuple(
        _check(inner)
        for name in sorted(set(names) - shards)
        if (inner := _tell_member(os.path.join(artefact.path, name))) is not None
    )
    if any(name.endswith((INDEX, RECORD)) for name in names):
        checks += tuple(_check_tensorflow(artefact))
    if not checks:
        raise wrong_kind(artefact)
    return VerifyReport(artefact.path, checks)


def _tell_member(path: str) -> Artefact | None:
    name = os.path.basename(path)
    if name.startswith(".") or name.endswith(RECORD) or not os.path.isfile(path):
        return None
    if os.path.islink(path):
        called = name.endswith(_SUFFIXES) and not is_alias(path)
        return Artefact(path, Kind.UNKNOWN, 0, damage=NOT_FOLLOWED) if called else None
    artefact = tell(path)
    if artefact.kind is Kind.TF_CHECKPOINT:
        return None  # One of several files.
    return artefact if artefact.kind in READABLE or name.endswith(_SUFFIXES) else None


def _check_tensorflow(artefact: Artefact) -> Iterator[FileCheck]:
    """Check a TensorFlow checkpoint; in a directory all, and the ones in its file `checkpoint`."""
    path = artefact.path
    if not os.path.isdir(path):
        try:
            yield _check(tell(prefix_of(path)))
        except ArtefactError as error:
            yield FileCheck(path, artefact.kind, artefact.size, (error.what,))
        return
    ours = [os.path.join(path, name) for name in records_in(path)]
    for prefix in sorted({*ours, *prefixes_in(path)}):
        yield _check(tell(prefix))
    named = state_of_directory(path)[:1]
    if named and not os.path.isfile(os.path.join(path, f"{named[0]}{INDEX}")):
        state = os.path.join(path, "checkpoint")
        problem = f"it names {named[0]!r}, but that checkpoint does not exist"
        yield FileCheck(state, Kind.TF_CHECKPOINT, os.path.getsize(state), (problem,))


def _verdict(check: FileCheck) -> str:
    if not check:
        return "damaged"
    return "whole" if check.covered else "readable"


def _check(artefact: Artefact) -> FileCheck:
    problems: tuple[str, ...] = (artefact.damage,) if artefact.damage else ()
    covered, size = True, artefact.size
    try:
        if artefact.refusal is not None or not problems:
            require(artefact)
            with open_source(artefact.path, artefact) as source:
                problems, covered, size = source.verify(), source.covered, source.size
    except ArtefactError as error:
        problems = (error.what,)
    said = tuple(map(harmless, problems))
    return FileCheck(artefact.path, artefact.kind, size, said, covered)

"""Detect what a file or directory is, from its content.

Users rename files, and a failed download is an HTML page called `model.keras`. So the name is never
used, only the first bytes, the directory of a zip, the superblock of an HDF5 file, and the members
of a directory. Only regular files and plain directories are opened, because a pipe or a device
could block.

Damage that is visible from the first bytes and the sizes is detected here (a truncated or empty
file), because later readers could only raise a less helpful error. Third-party HDF5 files without
such damage are scanned in a child process; the result stays with the `Artefact`, so that the scan
runs once for each file.

Sources: the HDF5 File Format Specification (section II.A), the ZIP APPNOTE (4.3), `pickle`'s PROTO
opcode, TensorFlow's `table_builder` magic, the safetensors format, Git LFS pointer files.
"""

from __future__ import annotations

import enum
import os
import stat
from dataclasses import dataclass, field
from typing import BinaryIO

from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactError,
    CkptError,
    DamagedArtefactError,
    NewerFormatError,
)
from keras_ckpt_tools.formats import containers
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.common.path_hints import not_found
from keras_ckpt_tools.formats.common.safe_open import Identity, identity_of, open_regular
from keras_ckpt_tools.formats.hdf5.scan import Look, Survey, survey
from keras_ckpt_tools.formats.hdf5.shard_index import INDEX_MEMBER
from keras_ckpt_tools.formats.keras_zip.records import END_MARK, LOCAL_MARK
from keras_ckpt_tools.formats.record.userblock import MAGIC, decode
from keras_ckpt_tools.storage.local_paths import local_path

_HEAD = 4096
# Of bytes that were passed as a path; they may be the content of a file.
_SHOWN = 100
# In the state of a record: it describes the files of a TensorFlow checkpoint.
TENSORFLOW = "tensorflow"
# What has one of these in its name is no prefix of a TensorFlow checkpoint.
_SUFFIXES = (".keras", ".h5", ".hdf5", ".index", ".safetensors", ".pkl", ".zip")


class Kind(enum.StrEnum):
    """What a file or directory is."""

    KERAS = "keras"
    KERAS_DIR = "keras directory"
    H5_MODEL = "whole-model HDF5"
    H5_WEIGHTS = "weights HDF5"
    H5_WEIGHTS_LEGACY = "weights HDF5, Keras 2 layout"
    SHARDED_WEIGHTS = "sharded weights HDF5"
    CHECKPOINT = "checkpoint"
    CHECKPOINT_DIR = "directory of checkpoints"
    TF_CHECKPOINT = "TensorFlow checkpoint"
    SAVED_MODEL = "SavedModel"
    PICKLE = "pickle"
    ORBAX = "Orbax checkpoint"
    SAFETENSORS = "safetensors"
    NPZ = "NumPy arrays"
    MODEL_CONFIG = "model config"
    JSON = "JSON"
    GIT_LFS = "Git LFS pointer"
    HTML = "web page"
    EMPTY = "empty file"
    DIRECTORY = "directory"
    SPECIAL = "special file"
    UNKNOWN = "unknown"

    @property
    def is_hdf5(self) -> bool:
        """Whether it is one HDF5 file."""
        legacy = (Kind.H5_MODEL, Kind.H5_WEIGHTS_LEGACY)
        return self in (Kind.H5_WEIGHTS, Kind.CHECKPOINT, *legacy)


@dataclass(frozen=True)
class Artefact:
    """What was found at a path.

    Attributes:
        path: The path, as given.
        kind: What it is.
        size: Bytes; for a directory, of all files in it.
        damage: What is visibly wrong with it (`"truncated at 1,024 of 20,480 bytes"`), or `None`.
        refusal: The error for what must not be opened (links, too much of something), or `None`.
        identity: Which file it was that was looked at.
        survey: What is in an HDF5 file that we did not write.
    """

    path: str
    kind: Kind
    size: int
    damage: str | None = None
    refusal: CkptError | None = field(default=None, compare=False)
    identity: Identity | None = field(default=None, compare=False, repr=False)
    survey: Survey | None = field(default=None, compare=False, repr=False)

    def open(self) -> BinaryIO:
        """Open the file that was looked at.

        Raises:
            ReplacedError: another one is there now.
        """
        descriptor = open_regular(self.path)
        if descriptor is None:
            raise ReplacedError
        file = open(descriptor, "rb")
        if self.identity not in (None, identity_of(descriptor)):
            file.close()
            raise ReplacedError
        return file


class ReplacedError(Exception):
    """The file is not the one that was looked at."""


def plain_path(path: str | os.PathLike[str]) -> str:
    """Return a path as a string, with the home directory for `~`.

    Raises:
        ArgumentError: it is neither a string nor path-like, it is empty, or it is an address.

    >>> plain_path("model.keras")
    'model.keras'
    """
    if isinstance(path, os.PathLike):
        path = local_path(path)
    if isinstance(path, (bytes, bytearray, memoryview)):
        shown = bytes(path[:_SHOWN])
        more = f"... ({len(path):,} bytes)" if len(path) > _SHOWN else ""
        raise ArgumentError(
            "A path is a non-empty string or a `pathlib.Path`, and these are bytes.",
            received=f"path={shown!r}{more}",
            remedy="Pass `os.fsdecode(path)` if they are a path, or `io.BytesIO(data)` if they are "
            "the content of a file.",
        )
    name = path
    if not isinstance(name, str) or not name or "\0" in name:
        raise ArgumentError(
            "A path is a non-empty string or a `pathlib.Path`.",
            received=f"path={path!r}",
            remedy="Pass the path of one file or directory.",
        )
    return local_path(path)


def tell(path: str | os.PathLike[str], limits: Limits | None = None) -> Artefact:
    """Tell what is at a path, by its content.

    Args:
        path: A file, a directory, or the prefix of a TensorFlow checkpoint.
        limits: What it may take. Default: what this machine can hold.

    Returns:
        What it is, how large, and what is visibly wrong with it. Kinds that the package cannot
        open are detected too; the caller refuses them.

    Raises:
        ArtefactNotFoundError: nothing is there; names what is nearby.
        ArtefactError: it may not be read.
        ArgumentError: `path` is no path.

    Example:

    >>> import pathlib, tempfile
    >>> page = pathlib.Path(tempfile.mkdtemp(), "model.keras")
    >>> _ = page.write_text("<!DOCTYPE html><html>404</html>")
    >>> tell(page).kind
    <Kind.HTML: 'web page'>
    """
    name = plain_path(path)
    try:
        status = os.stat(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        if any(os.path.isfile(f"{name}{ending}") for ending in (".index", ".record")):
            return Artefact(name, Kind.TF_CHECKPOINT, _size_of_prefix(name))
        # Rarely needed, and inspecting a file of this package should start at once.
        from keras_ckpt_tools.formats.tensorflow.prefixes import has_prefixes, missing

        if not name.endswith(_SUFFIXES) and has_prefixes(os.path.dirname(name)):
            raise missing(name) from error
        raise not_found(name) from error
    except OSError as error:
        raise _unreadable(name, error) from error
    try:
        if stat.S_ISDIR(status.st_mode):
            return _tell_directory(name)
        descriptor = open_regular(name)
        if descriptor is None:
            return Artefact(name, Kind.SPECIAL, 0)
        with open(descriptor, "rb") as file:
            return tell_open(name, file, limits or Limits.of())
    except OSError as error:
        if isinstance(error, CkptError):
            raise
        raise _unreadable(name, error) from error


def tell_open(path: str, file: BinaryIO, limits: Limits, look: Look = survey) -> Artefact:
    """Tell what an open file is, by its content. See `tell`; `look` says what is in HDF5."""
    identity = identity_of(file.fileno())
    size = identity.size
    if size == 0:
        return Artefact(path, Kind.EMPTY, 0, "empty: it has no bytes")
    head = file.read(_HEAD)
    if head.startswith(MAGIC):
        return _tell_ours(path, file, identity)
    if head.startswith((LOCAL_MARK, END_MARK)):
        found = containers.tell_zip(file, size, path, limits)
    else:
        base = containers.superblock_at(file, size)
        if base is None:
            kind = _tell_by_head(path, file, head, size)
            if kind is not Kind.UNKNOWN or not head.lstrip().startswith(b"{"):
                return Artefact(path, kind, size, identity=identity)
            found = containers.tell_json(file, path, limits)
        else:
            found = containers.tell_hdf5(file, base, size, path, limits, look)
    size += found.beside
    return Artefact(
        path, Kind[found.kind], size, found.damage, found.refusal, identity, found.survey
    )


def _tell_by_head(path: str, file: BinaryIO, head: bytes, size: int) -> Kind:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return Kind.GIT_LFS
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head", b"<!--")):
        return Kind.HTML
    if head.startswith(b"\x93NUMPY"):
        return Kind.NPZ
    if head.startswith(b"model_checkpoint_path:") or containers.is_tensorflow_index(file, size):
        return Kind.TF_CHECKPOINT
    if os.path.isfile(f"{path.rpartition('.data-')[0]}.index"):
        return Kind.TF_CHECKPOINT
    if containers.is_safetensors(head, size):
        return Kind.SAFETENSORS
    if containers.is_pickle(file, head, size):
        return Kind.PICKLE
    folder, name = os.path.split(os.path.abspath(path))
    if name in ("saved_model.pb", "keras_metadata.pb") and "variables" in os.listdir(folder):
        return Kind.SAVED_MODEL
    return Kind.UNKNOWN


def _tell_ours(path: str, file: BinaryIO, identity: Identity) -> Artefact:
    size = identity.size

    def read_at(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    try:
        found = decode(read_at, path)
    except NewerFormatError:
        # It may be intact; the error when opening it names the version to install.
        return Artefact(path, Kind.CHECKPOINT, size)
    except DamagedArtefactError as error:
        return Artefact(path, Kind.CHECKPOINT, size, error.how)
    assert found is not None  # The magic is there.
    record, _ = found
    if TENSORFLOW in record.state:
        # It is in the directory of the files that it describes.
        prefix = path.removesuffix(".record")
        return Artefact(prefix, Kind.TF_CHECKPOINT, _size_of_prefix(prefix))
    kinds = {"model": Kind.H5_MODEL, "weights": Kind.H5_WEIGHTS}
    damage = None
    if record.size > size:
        damage = f"truncated at {size:,} of {record.size:,} bytes"
    elif record.size < size:
        damage = f"{size - record.size:,} bytes too long: it should have {record.size:,}"
    kind = kinds.get(record.kind, Kind.CHECKPOINT)
    return Artefact(path, kind, size, damage, identity=identity)


def _tell_directory(path: str) -> Artefact:
    names = set(os.listdir(path))
    size = sum(
        entry.stat(follow_symlinks=False).st_size
        for entry in os.scandir(path)
        if entry.is_file(follow_symlinks=False)
    )
    if names & {"saved_model.pb", "saved_model.pbtxt"}:
        return Artefact(path, Kind.SAVED_MODEL, size)
    if "config.json" in names and names & {"metadata.json", "model.weights.h5", INDEX_MEMBER}:
        weights = names & {"model.weights.h5", INDEX_MEMBER}
        lacks = None if weights else "model.weights.h5 is not in it"
        return Artefact(path, Kind.KERAS_DIR, size, lacks)
    if _holds_checkpoints(path, names):
        return Artefact(path, Kind.CHECKPOINT_DIR, size)
    if "checkpoint" in names and os.path.isfile(os.path.join(path, "checkpoint")):
        return Artefact(path, Kind.TF_CHECKPOINT, size)
    if any(name.endswith(".index") and f"{name[:-6]}.data-" in " ".join(names) for name in names):
        return Artefact(path, Kind.TF_CHECKPOINT, size)
    if _is_orbax(path, names):
        return Artefact(path, Kind.ORBAX, size)
    return Artefact(path, Kind.DIRECTORY, size)


def _holds_checkpoints(path: str, names: set[str]) -> bool:
    for name in names:
        if name.startswith("ckpt-") and name.endswith(".weights.h5"):
            try:
                descriptor = open_regular(os.path.join(path, name))
            except OSError:
                continue
            if descriptor is not None:
                with open(descriptor, "rb") as file:
                    if file.read(len(MAGIC)) == MAGIC:
                        return True
    return False


def _is_orbax(path: str, names: set[str]) -> bool:
    marks = {"_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "orbax.checkpoint"}
    if names & marks:
        return True
    steps = [os.path.join(path, name) for name in names if name.isdigit()]
    return any(os.path.isdir(step) and set(os.listdir(step)) & marks for step in steps)


def _size_of_prefix(prefix: str) -> int:
    folder, name = os.path.split(os.path.abspath(prefix))
    return sum(
        entry.stat().st_size
        for entry in os.scandir(folder)
        if entry.name in (f"{name}.index", f"{name}.record")
        or entry.name.startswith(f"{name}.data-")
    )


def _unreadable(path: str, error: OSError) -> ArtefactError:
    reason = error.strerror or str(error)
    remedy = "Check the path and the disk."
    if isinstance(error, PermissionError):
        remedy = f"Give the user of this process the right to read it: `chmod u+r {path}`."
    return ArtefactError(
        f"The path cannot be read: {reason}.",
        received=f"path={path!r}",
        remedy=remedy,
        path=path,
    )

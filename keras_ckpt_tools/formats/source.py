"""Read an artefact: kind -> *source* -> inspect, load, compare, verify.

A `Source` gives config, record and tensors of whatever holds a Keras model or its weights, in one
shape. It keeps one descriptor open from the first look to the last tensor, so what was inspected is
what is loaded, even if the file is replaced in between.

A file of ours is read through its record: tensors by `pread`, each checked against its digest, and
everything between them checked before the first tensor is handed out. What others wrote, and the
attributes of a whole-model `.h5`, which has its config there, is read as `foreign_hdf5` does it:
after another process has looked through it.

NumPy is imported where tensors are read: to inspect a file of ours it is not needed.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from keras_ckpt_tools.errors import (
    ArtefactError,
    ArtefactKindError,
    CkptError,
    DamagedArtefactError,
)
from keras_ckpt_tools.formats import archive
from keras_ckpt_tools.formats.container_seal import (
    BAD_ZIP,
    CONFIG_MEMBER,
    METADATA_MEMBER,
    WEIGHTS_MEMBER,
    container_digest,
    member_range,
    sealed_digest,
)
from keras_ckpt_tools.formats.containers import HDF5_MAGIC, end_of_hdf5
from keras_ckpt_tools.formats.foreign_hdf5 import ForeignHdf5, Place, unpacked
from keras_ckpt_tools.formats.handles import (
    copy_tree,
    identity_of,
    open_member,
    open_regular,
    regular_members,
)
from keras_ckpt_tools.formats.keras_2 import Untranslated, is_keras_2, translate
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.limits import Limits, over_budget
from keras_ckpt_tools.formats.quarantine import Survey
from keras_ckpt_tools.formats.record_check import check_record
from keras_ckpt_tools.formats.strict_json import parse_object
from keras_ckpt_tools.formats.userblock import decode
from keras_ckpt_tools.metadata import Record, TensorInfo

if TYPE_CHECKING:
    import h5py
    import numpy as np

    from keras_ckpt_tools.formats.record_reader import RecordReader

READABLE = frozenset(
    {
        Kind.KERAS,
        Kind.KERAS_DIR,
        Kind.H5_MODEL,
        Kind.H5_WEIGHTS,
        Kind.H5_WEIGHTS_LEGACY,
        Kind.CHECKPOINT,
    }
)

_ATTEMPTS = 5
_HEAD = 4096


class Source:
    """One open artefact that holds a model or weights. Use it in a `with` block.

    Attributes:
        path: Where it is.
        kind: What it is.
        record: What it says about itself, where we wrote it.
        config: The model's config, or `None` where there is none.
        training_config: The compile arguments of a whole-model `.h5`, or `None`.
        metadata: What else the writer noted: `keras_version`, `date_saved`.
        untranslated: What a config of Keras 2 says that Keras 3 cannot.
        tensors: Every tensor, by HDF5 path.
        limits: What reading it may take.
        not_finite: Paths of tensors in which NaN or infinity was found, as far as they were read.
    """

    def __init__(self, artefact: Artefact, limits: Limits):
        self.path = artefact.path
        self.kind = artefact.kind
        self.limits = limits
        self.not_finite: list[str] = []
        self._stack = ExitStack()
        self._foreign = ForeignHdf5(
            self._find_hdf5, self.path, limits, self._stack, artefact.survey
        )
        self._checked = False
        self._base = 0
        self._folder: int | None = None
        self._block = 0
        self._archive: zipfile.ZipFile | None = None
        self.record: Record | None = None
        self.config: dict[str, Any] | None = None
        self.training_config: dict[str, Any] | None = None
        self.metadata: dict[str, Any] = {}
        self.untranslated: tuple[Untranslated, ...] = ()
        try:
            self._open(artefact)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _open(self, artefact: Artefact) -> None:
        file = self._open_directory() if self.kind is Kind.KERAS_DIR else self._open_file(artefact)
        if file is None:
            self._fd, self._end = -1, 0
            return
        self._file = file
        self._fd = file.fileno()
        self._identity = identity_of(self._fd)
        self._end = self._identity.size
        if self.kind is Kind.KERAS:
            self._open_archive()
        if self._archive is None or self._end > self._base:
            self._read_record()
        if self._archive is not None and not self.record and sealed_digest(self._archive.comment):
            # Taking a file of ours for somebody else's would switch every check off.
            raise self._damaged("its record is not where it was")
        if self.record is not None:
            total = sum(info.nbytes for info in self.record.tensors)
            if total > self.limits.max_bytes:
                what = "its tensors take"
                raise over_budget(self.path, what, "max_bytes", total, self.limits.max_bytes)
        if self.kind is Kind.H5_MODEL:
            self.check()  # libhdf5 gets to see what is as it was written.
            self._read_attributes()

    def _open_file(self, artefact: Artefact) -> BinaryIO:
        descriptor = open_regular(self.path)
        if descriptor is None or artefact.identity not in (None, identity_of(descriptor)):
            if descriptor is not None:
                os.close(descriptor)
            raise ReplacedError
        return self._stack.enter_context(open(descriptor, "rb"))

    def _open_directory(self) -> BinaryIO | None:
        folder = self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stack.callback(os.close, folder)
        regular_members(folder, self.path)
        self._read_documents(self._document_of_directory)
        descriptor = open_member(folder, WEIGHTS_MEMBER, self.path)
        if descriptor is None:
            return None
        return self._stack.enter_context(open(descriptor, "rb"))

    def _read_record(self) -> None:
        length = self._end - self._base

        def read_at(offset: int, wanted: int) -> bytes:
            return os.pread(self._fd, min(wanted, max(length - offset, 0)), self._base + offset)

        found = decode(read_at, self.path)
        if found is not None:
            self.record, self._block = found
            check_record(self.record, self._block, length, self.path)

    @cached_property
    def _reader(self) -> RecordReader | None:
        from keras_ckpt_tools.formats.record_reader import RecordReader

        if self.record is None:
            return None
        return RecordReader(self._fd, self._base, self._end, self.record, self._block)

    def _open_archive(self) -> None:
        try:
            opened = archive.open_archive(self._file, self.path, self.limits)
            self._archive = self._stack.enter_context(opened)
            names = self._archive.namelist()
            self._base = self._end = 0
            if WEIGHTS_MEMBER in names:
                info = self._archive.getinfo(WEIGHTS_MEMBER)
                if info.compress_type == zipfile.ZIP_STORED:
                    self._base, self._end = member_range(self._fd, info)
                else:
                    with self._archive.open(info) as member:
                        self._hold_weights(member.read(_HEAD), info.file_size)
            self._read_documents(lambda name: self._member(name) if name in names else None)
        except CkptError:
            raise
        except BAD_ZIP as error:
            raise self._damaged(f"its zip structure cannot be read ({error})") from error

    def _member(self, name: str) -> bytes:
        assert self._archive is not None
        try:
            return archive.read_member(self._archive, name, self.limits.json_bytes)
        except BAD_ZIP as error:
            raise self._damaged(f"its member {name} cannot be read ({error})") from error

    def _document_of_directory(self, name: str) -> bytes | None:
        assert self._folder is not None
        descriptor = open_member(self._folder, name, self.path)
        if descriptor is None:
            return None
        with open(descriptor, "rb") as file:
            return file.read(self.limits.json_bytes + 1)

    def _read_documents(self, read: Any) -> None:
        config, metadata = read(CONFIG_MEMBER), read(METADATA_MEMBER)
        self.config = None if config is None else self._parse(CONFIG_MEMBER, config)
        self.metadata = {} if metadata is None else self._parse(METADATA_MEMBER, metadata)
        self._translate()

    def _read_attributes(self) -> None:
        attributes = self.survey.attributes
        for name in ("model_config", "training_config"):
            text = attributes.get(name)
            if text is not None:
                setattr(self, name.replace("model_", ""), self._parse(name, text))
        for name in ("keras_version", "backend"):
            value = attributes.get(name)
            if value is not None:
                self.metadata[name] = value
        self._translate()

    def _translate(self) -> None:
        """Put what Keras 2 wrote into Keras 3's words."""
        if not is_keras_2(self.metadata.get("keras_version")):
            return
        for name, part in (("config", "model"), ("training_config", "compile")):
            config = getattr(self, name)
            if config is not None:
                translated, left = translate(config, "model" if part == "model" else "compile")
                setattr(self, name, translated)
                self.untranslated += left

    def _parse(self, name: str, text: str | bytes) -> dict[str, Any]:
        return parse_object(text, name, self.path, self.limits)

    @property
    def foreign_weights(self) -> bool:
        """Whether it has tensors that somebody else's program wrote."""
        return self.record is None and bool(self.tensors)

    @property
    def survey(self) -> Survey:
        """What a process of its own found in the HDF5 file behind it."""
        return self._foreign.survey

    def _find_hdf5(self) -> Place:
        if self._archive is None or self._end > self._base:
            return self._fd, self._base, self._end
        try:
            return unpacked(self._archive, WEIGHTS_MEMBER, self.path, self._stack)
        except BAD_ZIP as error:
            raise self._damaged(f"its member {WEIGHTS_MEMBER} cannot be read ({error})") from error

    def _hold_weights(self, head: bytes, size: int) -> None:
        """Refuse weights that are to unpack to more than they say that they are."""
        end = end_of_hdf5(io.BytesIO(head), 0) if head.startswith(HDF5_MAGIC) else None
        if end is not None and end < size:
            raise self._damaged(f"its weights end after {end:,} bytes, and unpack to {size:,}")

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor, by HDF5 path."""
        if self.record is not None:
            return {info.path: info for info in self.record.tensors}
        if self._fd < 0 or (self._archive and WEIGHTS_MEMBER not in self._archive.namelist()):
            return {}
        return self.survey.tensors

    def read(self, path: str) -> np.ndarray[Any, Any]:
        """Return one tensor; see `read_all`."""
        return self.read_all([path])[path]

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return tensors by path.

        Raises:
            KeyError: there is none of a path.
            DamagedArtefactError: bytes of the file have changed since it was written.
        """
        infos = [self.tensors[path] for path in paths]
        self.check()
        if self._reader is not None:
            found = self._reader.read(infos)
            self.not_finite = list(self._reader.not_finite)
        else:
            self.check_unchanged()
            with self._told_by_libhdf5():
                found = {info.path: self._foreign.read(info) for info in infos}
            self.not_finite += [p for p, a in found.items() if a is not None and not _is_finite(a)]
        arrays = {path: array for path, array in found.items() if array is not None}
        if changed := [path for path in found if path not in arrays]:
            raise self._damaged(f"the bytes of {', '.join(changed)} have changed")
        return arrays

    def check_others(self, paths: Iterable[str]) -> None:
        """Check what a load of these tensors leaves unread: a changed byte is found all the same.

        Raises:
            DamagedArtefactError: bytes have changed since it was written.
        """
        if self.record is not None:
            self.read_all(self.tensors.keys() - set(paths))

    def check_unchanged(self) -> None:
        """Refuse a file that was written to since it was opened.

        Raises:
            DamagedArtefactError: it was.
        """
        if self._fd >= 0 and identity_of(self._fd) != self._identity:
            raise self._damaged("it was written to while it was being read")

    def check(self) -> None:
        """Check what surrounds the tensors, once; in a zip that others wrote, all its checksums.

        Tensors of a file of ours are checked as they are read, so what has passed here and is read
        is whole.

        Raises:
            DamagedArtefactError: bytes have changed since it was written.
        """
        if self._checked:
            return
        ours = self.record is not None
        problems = self._check_around() if ours else self._check_checksums()
        if problems:
            raise self._damaged("; ".join(problems))
        self._checked = True

    def _check_checksums(self) -> list[str]:
        if self._archive is None:
            return []
        if WEIGHTS_MEMBER in self._archive.namelist():
            self._foreign.begin()
        try:
            bad = self._archive.testzip()
        except (*BAD_ZIP, OSError) as error:
            return [f"its zip structure cannot be read ({error})"]
        return [f"the checksum of its member {bad} is wrong"] if bad else []

    @contextlib.contextmanager
    def _told_by_libhdf5(self) -> Iterator[None]:
        """Say of a file that libhdf5 cannot make sense of that it is damaged."""
        try:
            yield
        except CkptError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise self._damaged(f"libhdf5 cannot read it ({error})") from error

    @property
    def covered(self) -> bool:
        """Whether the file has digests or checksums, so that changed bytes can be found at all."""
        return self.record is not None or self._archive is not None

    def verify(self) -> tuple[str, ...]:
        """Read and check every byte; return what is wrong, as sentences.

        A file that we did not write has no digests; a process of its own reads every tensor, and
        a zip's own checksums are checked.
        """
        if self._reader is None:
            return self._verify_foreign()
        changed = self._reader.changed_tensors()
        return (*self._check_around(), *(f"the bytes of {path} have changed" for path in changed))

    def _check_around(self) -> list[str]:
        assert self._reader is not None
        problems = self._reader.check()
        if self._archive is not None and not problems:
            sealed = sealed_digest(self._archive.comment)
            if sealed != container_digest(self._fd, self._base, self._end):
                problems.append("the bytes of its archive around the weights have changed")
        return problems

    def _verify_foreign(self) -> tuple[str, ...]:
        problems = self._check_checksums()
        if not problems:
            try:
                if self.foreign_weights:
                    self._foreign.require_survey()  # It reads every byte.
            except ArtefactError as error:
                problems.append(error.what)
        return tuple(problems)

    def extract_assets(self, directory: str) -> str | None:
        """Write the files that layers saved (vocabularies) into a directory.

        Returns:
            The folder with the assets, or `None` where the artefact has none.
        """
        folder = os.path.join(directory, "assets")
        if self._folder is not None:
            copy_tree(self._folder, "assets", directory, self.path, self.limits)
        elif self._archive is not None:
            names = [name for name in self._archive.namelist() if name.startswith("assets/")]
            try:
                archive.extract(self._archive, names, directory)
            except (*BAD_ZIP, OSError) as error:
                raise self._damaged(f"its assets cannot be read ({error})") from error
        return folder if os.path.isdir(folder) else None

    @property
    def hdf5(self) -> h5py.File:
        """The HDF5 file behind it, for readers of Keras that ask for one."""
        self.check_unchanged()
        with self._told_by_libhdf5():
            return self._foreign.file

    def _damaged(self, how: str) -> DamagedArtefactError:
        return DamagedArtefactError(
            f"The file is damaged: {how}.",
            received=f"path={self.path!r}",
            remedy="Restore it from a copy, or load an earlier checkpoint of the run.",
            path=self.path,
        )


def _is_finite(array: np.ndarray[Any, Any]) -> bool:
    from keras_ckpt_tools.formats.finite import is_finite

    return is_finite(array)


class ReplacedError(Exception):
    """The file is not the one that was looked at."""


def open_source(
    path: str | os.PathLike[str], artefact: Artefact | None = None, limits: Limits | None = None
) -> Source:
    """Open a file or directory that holds a model or weights.

    Args:
        path: Where it is.
        artefact: What `tell` said about it, where it was asked already.
        limits: What reading it may take. Default: what this machine can hold.

    Raises:
        ArtefactNotFoundError: nothing is there.
        DamagedArtefactError: it is visibly damaged.
        UnsafeArtefactError: it has what would lead out of it.
        OverBudgetError: it would take more than it may.
        ArtefactKindError: it holds neither a model nor weights in a form of Keras.
    """
    limits = limits or Limits.of()
    for _ in range(_ATTEMPTS):
        artefact = artefact or tell(path, limits)
        _require_readable(artefact)
        try:
            return Source(artefact, limits)
        except ReplacedError:
            artefact = None  # Somebody put another file in its place; that one is looked at.
        except OSError as error:
            if isinstance(error, CkptError):
                raise
            raise DamagedArtefactError(
                f"The file cannot be read: {error}.",
                received=f"path={artefact.path!r}",
                remedy="Check that it is whole and that you may read it.",
                path=artefact.path,
            ) from error
    raise ArtefactError(
        "The file was replaced again and again while it was being opened.",
        received=f"path={os.fspath(path)!r}",
        remedy="Open a copy of it, which nobody writes to.",
        path=os.fspath(path),
    )


def _require_readable(artefact: Artefact) -> None:
    if artefact.refusal is not None:
        raise artefact.refusal
    if artefact.damage:
        raise DamagedArtefactError(
            f"The file is damaged: {artefact.damage}.",
            received=f"path={artefact.path!r}",
            remedy="Fetch or copy it again, or load an earlier checkpoint of the run.",
            path=artefact.path,
        )
    if artefact.kind not in READABLE:
        raise ArtefactKindError(
            f"This is a {artefact.kind}; it holds no Keras model or weights that could be read.",
            received=f"path={artefact.path!r}",
            remedy="Pass a `.keras`, `.weights.h5` or `.h5` file.",
            path=artefact.path,
            kind=str(artefact.kind),
        )

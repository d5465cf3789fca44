"""Read an artefact: kind -> *source* -> inspect, load, compare, verify.

A `Source` gives config, record and tensors of whatever holds a Keras model or its weights, in one
shape. It keeps one descriptor open from the first look to the last tensor, so what was inspected is
what is loaded, even if the file is replaced in between.

A file of ours is read through its record: tensors by `pread`, each checked against its digest, and
everything between them checked before the first tensor is handed out. libhdf5 sees only files that
others wrote, and the attributes of whole-model `.h5` files, which have their config there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import Any, Self

import h5py
import numpy as np

from keras_ckpt_tools.errors import ArtefactKindError, CkptError, DamagedArtefactError
from keras_ckpt_tools.formats import hdf5_tensors
from keras_ckpt_tools.formats.container_seal import (
    BAD_ZIP,
    CONFIG_MEMBER,
    METADATA_MEMBER,
    WEIGHTS_MEMBER,
    container_digest,
    member_range,
    sealed_digest,
)
from keras_ckpt_tools.formats.dtypes import numpy_dtype
from keras_ckpt_tools.formats.kinds import Artefact, Kind, tell
from keras_ckpt_tools.formats.record_reader import RecordReader, open_record
from keras_ckpt_tools.formats.window import Window
from keras_ckpt_tools.metadata import Record, TensorInfo

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


class Source:
    """One open artefact that holds a model or weights. Use it in a `with` block.

    Attributes:
        path: Where it is.
        kind: What it is.
        record: What it says about itself, where we wrote it.
        config: The model's config, or `None` where there is none.
        training_config: The compile arguments of a whole-model `.h5`, or `None`.
        metadata: What else the writer noted: `keras_version`, `date_saved`.
        tensors: Every tensor, by HDF5 path.
    """

    def __init__(self, artefact: Artefact):
        self.path = artefact.path
        self.kind = artefact.kind
        self._stack = ExitStack()
        self._checked = False
        self._base = 0
        self._reader: RecordReader | None = None
        self._archive: zipfile.ZipFile | None = None
        self.record: Record | None = None
        self.config: dict[str, Any] | None = None
        self.training_config: dict[str, Any] | None = None
        self.metadata: dict[str, Any] = {}
        try:
            self._open()
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

    def _open(self) -> None:
        directory = self.kind is Kind.KERAS_DIR
        weights = os.path.join(self.path, WEIGHTS_MEMBER) if directory else self.path
        if directory:
            self._read_documents(self._document_of_directory)
        if directory and not os.path.isfile(weights):
            self._fd, self._end = -1, 0
            return
        self._file = self._stack.enter_context(open(weights, "rb"))
        self._fd = self._file.fileno()
        self._end = os.fstat(self._fd).st_size
        if self.kind is Kind.KERAS:
            self._open_archive()
        if self._archive is None or self._end > self._base:
            self._reader = open_record(self._fd, self._base, self._end, self.path)
            self.record = self._reader.record if self._reader else None
        if self._archive is not None and not self._reader and sealed_digest(self._archive.comment):
            # Taking a file of ours for somebody else's would switch every check off.
            raise self._damaged("its record is not where it was")
        if self.kind is Kind.H5_MODEL:
            self.check()  # libhdf5 gets to see what is as it was written.
            self._read_attributes()

    def _open_archive(self) -> None:
        try:
            self._archive = self._stack.enter_context(zipfile.ZipFile(self._file))
            names = self._archive.namelist()
            self._base = self._end = 0
            if WEIGHTS_MEMBER in names:
                info = self._archive.getinfo(WEIGHTS_MEMBER)
                if info.compress_type == zipfile.ZIP_STORED:
                    self._base, self._end = member_range(self._fd, info)
            self._read_documents(lambda name: self._member(name) if name in names else None)
        except CkptError:
            raise
        except BAD_ZIP as error:
            raise self._damaged(f"its zip structure cannot be read ({error})") from error

    def _member(self, name: str) -> bytes:
        assert self._archive is not None
        try:
            return self._archive.read(name)
        except BAD_ZIP as error:
            raise self._damaged(f"its member {name} cannot be read ({error})") from error

    def _document_of_directory(self, name: str) -> bytes | None:
        path = os.path.join(self.path, name)
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            return file.read()

    def _read_documents(self, read: Any) -> None:
        config, metadata = read(CONFIG_MEMBER), read(METADATA_MEMBER)
        self.config = None if config is None else self._parse(CONFIG_MEMBER, config)
        self.metadata = {} if metadata is None else self._parse(METADATA_MEMBER, metadata)

    def _read_attributes(self) -> None:
        with self._told_by_libhdf5():
            attributes = {name: self._hdf5.attrs[name] for name in self._hdf5.attrs}
        for name in ("model_config", "training_config"):
            text = attributes.get(name)
            if text is not None:
                setattr(self, name.replace("model_", ""), self._parse(name, text))
        for name in ("keras_version", "backend"):
            value = attributes.get(name)
            if value is not None:
                self.metadata[name] = value.decode() if isinstance(value, bytes) else str(value)

    def _parse(self, name: str, text: Any) -> dict[str, Any]:
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its {name} is not JSON ({error})") from error
        if not isinstance(data, dict):
            raise self._damaged(f"its {name} is not a JSON object")
        return data

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor, by HDF5 path."""
        if self.record is not None:
            return {info.path: info for info in self.record.tensors}
        if self._fd < 0 or (self._archive and WEIGHTS_MEMBER not in self._archive.namelist()):
            return {}
        with self._told_by_libhdf5():
            return hdf5_tensors.read_table(self._hdf5)

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
        if self._reader is None:
            with self._told_by_libhdf5():
                return {
                    info.path: hdf5_tensors.read_tensor(self._hdf5, info, _dtype_in_file(info))
                    for info in infos
                }
        found = self._reader.read(infos)
        arrays = {path: array for path, array in found.items() if array is not None}
        if changed := [path for path in found if path not in arrays]:
            raise self._damaged(f"the bytes of {', '.join(changed)} have changed")
        return arrays

    def check(self) -> None:
        """Check what surrounds the tensors, once; in a zip that others wrote, all its checksums.

        Tensors of a file of ours are checked as they are read, so what has passed here and is read
        is whole.

        Raises:
            DamagedArtefactError: bytes have changed since it was written.
        """
        if self._checked:
            return
        ours = self._reader is not None
        problems = self._check_around() if ours else self._check_checksums()
        if problems:
            raise self._damaged("; ".join(problems))
        self._checked = True

    def _check_checksums(self) -> list[str]:
        if self._archive is None:
            return []
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
        return self._reader is not None or self._archive is not None

    def verify(self) -> tuple[str, ...]:
        """Read and check every byte; return what is wrong, as sentences.

        A file that we did not write has no digests; for it, every tensor is read, and a zip's own
        checksums are checked.
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
        try:
            paths = list(self.tensors)
        except DamagedArtefactError as error:
            return (*problems, error.what)
        if not problems:
            for path in paths:
                try:
                    self.read(path)
                except DamagedArtefactError as error:
                    problems.append(f"{path}: {error.what}")
        return tuple(problems)

    def extract_assets(self, directory: str) -> str | None:
        """Write the files that layers saved (vocabularies) into a directory.

        Returns:
            The folder with the assets, or `None` where the artefact has none.
        """
        folder = os.path.join(directory, "assets")
        if self.kind is Kind.KERAS_DIR:
            folder = os.path.join(self.path, "assets")
        elif self._archive is not None:
            names = [name for name in self._archive.namelist() if name.startswith("assets/")]
            try:
                self._archive.extractall(directory, names)
            except BAD_ZIP as error:
                raise self._damaged(f"its assets cannot be read ({error})") from error
        return folder if os.path.isdir(folder) else None

    @cached_property
    def hdf5(self) -> h5py.File:
        """The HDF5 file behind it, for readers of Keras that ask for one."""
        return self._hdf5

    @cached_property
    def _hdf5(self) -> h5py.File:
        if self._archive is None:
            stream: io.IOBase = self._file
        elif self._end > self._base:
            stream = io.BufferedReader(Window(self._fd, self._base, self._end))
        else:
            stream = io.BytesIO(self._member(WEIGHTS_MEMBER))
        try:
            return self._stack.enter_context(h5py.File(stream, "r"))
        except OSError as error:
            raise self._damaged(f"libhdf5 cannot read it ({error})") from error

    def _damaged(self, how: str) -> DamagedArtefactError:
        return DamagedArtefactError(
            f"The file is damaged: {how}.",
            received=f"path={self.path!r}",
            remedy="Restore it from a copy, or load an earlier checkpoint of the run.",
            path=self.path,
        )


def _dtype_in_file(info: TensorInfo) -> np.dtype[Any]:
    return np.dtype("O") if info.dtype == "object" else numpy_dtype(info.dtype)


def open_source(path: str | os.PathLike[str], artefact: Artefact | None = None) -> Source:
    """Open a file or directory that holds a model or weights.

    Args:
        path: Where it is.
        artefact: What `tell` said about it, where it was asked already.

    Raises:
        ArtefactNotFoundError: nothing is there.
        DamagedArtefactError: it is visibly damaged.
        ArtefactKindError: it holds neither a model nor weights in a form of Keras.
    """
    artefact = artefact or tell(path)
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
    try:
        return Source(artefact)
    except OSError as error:
        if isinstance(error, CkptError):
            raise
        raise DamagedArtefactError(
            f"The file cannot be read: {error}.",
            received=f"path={artefact.path!r}",
            remedy="Check that it is whole and that you may read it.",
            path=artefact.path,
        ) from error

"""Read models and weights in the layouts of Keras: `Source`.

A `Source` gives config, record and tensors of each layout in the same way. It keeps one descriptor
open, so the file that was inspected is the file that is loaded, even if it is replaced in between.

A file written by this package is read through its record: tensors with `pread`, each with its
digest, and everything between them is checked before the first tensor is returned. Third-party
files, and the attributes of a whole-model `.h5`, which contain its config, are read by
`hdf5/foreign.py`, after a scan in a child process.

NumPy is imported only to read tensors; inspecting a file of this package does not need it.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from keras_ckpt_tools.errors import ArtefactError, CkptError, damaged
from keras_ckpt_tools.formats.common.bounded_json import parse_object
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.common.safe_open import (
    copy_tree,
    identity_of,
    open_member,
    read_all,
    regular_members,
)
from keras_ckpt_tools.formats.containers import HDF5_MAGIC, end_of_hdf5
from keras_ckpt_tools.formats.hdf5.foreign import ForeignHdf5, Place, unpacked
from keras_ckpt_tools.formats.hdf5.scan import Survey
from keras_ckpt_tools.formats.hdf5.shard_index import INDEX_MEMBER, ShardIndex, is_index
from keras_ckpt_tools.formats.hdf5.sharded import ShardedHdf5
from keras_ckpt_tools.formats.keras2.translate import is_keras_2, translate
from keras_ckpt_tools.formats.keras_zip import reader
from keras_ckpt_tools.formats.keras_zip.seal import (
    BAD_ZIP,
    CONFIG_MEMBER,
    METADATA_MEMBER,
    WEIGHTS_MEMBER,
    container_digest,
    member_range,
    sealed_digest,
)
from keras_ckpt_tools.formats.kinds import Artefact, Kind
from keras_ckpt_tools.formats.layer_names import (
    names_from_config,
    optimizers_from_config,
    optimizers_from_record,
    with_public_optimizers,
)
from keras_ckpt_tools.formats.record.userblock import decode
from keras_ckpt_tools.formats.record.validation import check_record
from keras_ckpt_tools.formats.tensor_source import ModelSource
from keras_ckpt_tools.metadata import OptimizerState, TensorInfo

if TYPE_CHECKING:
    import h5py
    import numpy as np

    from keras_ckpt_tools.formats.record.reader import RecordReader


_HEAD = 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LISTED = 20


class Source(ModelSource):
    """A model or weights in a layout of Keras.

    Attributes:
        index: The files that its weights are in, where that are several.
    """

    def __init__(self, artefact: Artefact, limits: Limits):
        super().__init__(artefact, limits)
        self.index: ShardIndex | None = None
        self._checked = False
        self._asked: set[str] = set()
        self._base, self._end, self._block = 0, 0, 0
        self._folder: int | None = None
        self._archive: zipfile.ZipFile | None = None
        self._foreign: ForeignHdf5 | ShardedHdf5 = ForeignHdf5(
            self._weights_place, self.path, self.limits, self._stack, artefact.survey
        )
        try:
            self._open(artefact)
            if self.index is not None and self._folder is not None:
                self._foreign = ShardedHdf5(
                    self.index, self._folder, self._path_of_index(), self.limits, self._stack
                )
            if self.kind is Kind.H5_MODEL:
                self.check()  # libhdf5 gets to see what is as it was written.
                self._read_attributes()
            self._translate()
        except BaseException:
            self.close()
            raise

    def _open(self, artefact: Artefact) -> None:
        if self.kind is Kind.KERAS_DIR:
            file = self._open_directory()
        else:
            file = self._stack.enter_context(artefact.open())
        if file is None:
            return
        if self.kind is Kind.SHARDED_WEIGHTS:
            folder = self._folder = os.open(os.path.dirname(self.path) or ".", _DIRECTORY)
            self._stack.callback(os.close, folder)
            self._read_index(file)
        self._file = file
        self._fd = file.fileno()
        self._identity = identity_of(self._fd)
        self._end = self._identity.size
        if self.kind is Kind.KERAS:
            self._open_archive()
        if self._archive is None or self._end > self._base:
            self._read_record()
        if self._archive is not None and not self.record and sealed_digest(self._archive.comment):
            # Treating a file of this package as third-party would skip every check.
            raise damaged(self.path, "its record is not where it was")
        if self.record is not None:
            total = sum(info.nbytes for info in self.record.tensors)
            if total > self.limits.max_bytes:
                what = "its tensors take"
                raise over_budget(self.path, what, "max_bytes", total, self.limits.max_bytes)

    def _open_directory(self) -> BinaryIO | None:
        folder = self._folder = os.open(self.path, _DIRECTORY)
        self._stack.callback(os.close, folder)
        regular_members(folder, self.path)
        self._read_documents(self._document_of_directory)
        descriptor = open_member(folder, WEIGHTS_MEMBER, self.path)
        if descriptor is not None:
            return self._stack.enter_context(open(descriptor, "rb"))
        descriptor = open_member(folder, INDEX_MEMBER, self.path)
        if descriptor is None:
            return None
        file = self._stack.enter_context(open(descriptor, "rb"))
        self._read_index(file)
        return file

    def _read_index(self, file: BinaryIO) -> None:
        data = parse_object(file.read(self.limits.json_bytes + 1), "index", self.path, self.limits)
        if not is_index(data):
            raise damaged(self.path, f"its {INDEX_MEMBER} names no shards")
        self.index = ShardIndex.of(data, self.path, self.limits)

    def _read_record(self) -> None:
        length = self._end - self._base

        def read_at(offset: int, wanted: int) -> bytes:
            return os.pread(self._fd, min(wanted, max(length - offset, 0)), self._base + offset)

        found = decode(read_at, self.path)
        if found is not None:
            self.record, self._block = found
            check_record(self.record, self._block, length, self.path)

    def _open_archive(self) -> None:
        try:
            opened = reader.open_archive(self._file, self.path, self.limits)
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
            raise damaged(self.path, f"its zip structure cannot be read ({error})") from error

    def _member(self, name: str) -> bytes:
        assert self._archive is not None
        try:
            return reader.read_member(self._archive, name, self.limits.json_bytes)
        except BAD_ZIP as error:
            raise damaged(self.path, f"its member {name} cannot be read ({error})") from error

    def _document_of_directory(self, name: str) -> bytes | None:
        assert self._folder is not None
        descriptor = open_member(self._folder, name, self.path)
        return None if descriptor is None else read_all(descriptor, self.limits.json_bytes)

    def _read_documents(self, read: Callable[[str], bytes | None]) -> None:
        config, metadata = read(CONFIG_MEMBER), read(METADATA_MEMBER)
        self.config = None if config is None else self._parse(CONFIG_MEMBER, config)
        self.lacks_metadata = metadata is None
        self.metadata = {} if metadata is None else self._parse(METADATA_MEMBER, metadata)

    def _hold_weights(self, head: bytes, size: int) -> None:
        """Refuse weights that are to unpack to more than they say that they are."""
        end = end_of_hdf5(io.BytesIO(head), 0) if head.startswith(HDF5_MAGIC) else None
        if end is not None and end < size:
            raise damaged(self.path, f"its weights end after {end:,} bytes, and unpack to {size:,}")

    def _parse(self, name: str, text: str | bytes) -> dict[str, Any]:
        data = parse_object(text, name, self.path, self.limits)
        # Few files name a backend, and a config has tens of thousands of values.
        place: Any = "keras.src.backend"
        named = (place.encode() if isinstance(text, bytes) else place) in text
        return with_public_optimizers(data) if named else data

    def _weights_place(self) -> Place:
        if self._archive is None or self._end > self._base:
            return self._fd, self._base, self._end
        try:
            return unpacked(self._archive, WEIGHTS_MEMBER, self.path, self._stack)
        except CkptError:
            raise
        except BAD_ZIP as error:
            raise damaged(
                self.path, f"its member {WEIGHTS_MEMBER} cannot be read ({error})"
            ) from error

    @property
    def _has_weights(self) -> bool:
        inside = self._archive is None or WEIGHTS_MEMBER in self._archive.namelist()
        return self._fd >= 0 and inside

    @property
    def passed_over(self) -> list[str]:
        """Members of an archive or a directory that are no part of a model, by name.

        Of assets, once a model was built: those that none of its layers has asked for.
        """
        known = {CONFIG_MEMBER, METADATA_MEMBER, WEIGHTS_MEMBER, "assets"}
        if self.kind is Kind.SHARDED_WEIGHTS:
            return []  # Other files next to the shards are third-party.
        if self._folder is not None:
            there = os.listdir(self._folder)
            if self.index is not None:
                index = WEIGHTS_MEMBER.replace(".h5", ".json")
                known |= {index, *self.index.shards, *self.index.unnamed(there)}
            return sorted(name for name in there if name not in known)
        names = self._archive.namelist() if self._archive is not None else []
        found = [n for n in names if n not in known and not n.endswith("/")]
        asked = tuple(f"{inside}/" if inside else "" for inside in self._asked)
        return sorted(
            name
            for name in found
            if not name.startswith("assets/")
            or (asked and not name.removeprefix("assets/").startswith(asked))
        )

    @property
    def has_assets(self) -> bool:
        if self.kind is Kind.KERAS_DIR and self._folder is not None:
            return "assets" in os.listdir(self._folder)
        names = self._archive.namelist() if self._archive is not None else []
        return any(name.startswith("assets/") for name in names)

    def extract_assets(self, directory: str, inside: str = "") -> str | None:
        self._asked.add(inside)
        folder = os.path.join(directory, "assets")
        if self.kind is Kind.KERAS_DIR and self._folder is not None:
            if not os.path.isdir(folder):
                copy_tree(self._folder, "assets", directory, self.path, self.limits)
        elif self._archive is not None:
            prefix = f"assets/{inside}/" if inside else "assets/"
            names = [
                name
                for name in self._archive.namelist()
                if name.startswith(prefix) and not os.path.lexists(os.path.join(directory, name))
            ]
            try:
                reader.extract(self._archive, names, directory)
            except (*BAD_ZIP, OSError) as error:
                raise damaged(self.path, f"its assets cannot be read ({error})") from error
        return folder if os.path.isdir(folder) else None

    def _path_of_index(self) -> str:
        inside = self.kind is Kind.KERAS_DIR
        return os.path.join(self.path, INDEX_MEMBER) if inside else self.path

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

    @cached_property
    def _reader(self) -> RecordReader | None:
        from keras_ckpt_tools.formats.record.reader import RecordReader

        if self.record is None:
            return None
        return RecordReader(self._fd, self._base, self._end, self.record, self._block)

    @property
    def foreign_weights(self) -> bool:
        """Whether it has tensors written by another program."""
        return self.record is None and bool(self.tensors)

    @property
    def spoiled(self) -> Sequence[str]:
        return self.survey.not_finite if self.foreign_weights else ()

    @property
    def survey(self) -> Survey:
        """What a process of its own found in the HDF5 file behind it."""
        return self._foreign.survey

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        if self.record is not None:
            return {info.path: info for info in self.record.tensors}
        return self.survey.tensors if self._has_weights else {}

    @cached_property
    def names(self) -> Mapping[str, str]:
        """What its layers and optimizers were called, by group, as far as it says."""
        if self.record is not None:
            return self.record.names
        found = self.survey.names if self.foreign_weights else {}
        return {**names_from_config(self.config), **found}

    @cached_property
    def optimizers(self) -> Mapping[str, OptimizerState]:
        """Its optimizers by group, as far as it says."""
        if self.record is not None:
            return optimizers_from_record(self.record)
        return optimizers_from_config(self.config, self.tensors)

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        infos = [self.tensors[path] for path in paths]
        self.check()
        if self._reader is not None:
            found = self._reader.read(infos)
            self.not_finite = list(self._reader.not_finite)
        else:
            self.check_unchanged()
            with self._told_by_libhdf5():
                found = {info.path: self._foreign.read(info) for info in infos}
            self.not_finite += _not_finite_in(found)
        arrays = {path: array for path, array in found.items() if array is not None}
        if changed := [path for path in found if path not in arrays]:
            raise damaged(self.path, f"the bytes of {', '.join(changed)} have changed")
        return arrays

    def place_of(self, path: str) -> tuple[int, int, str] | None:
        info = self.tensors[path]
        self.check()
        if self.record is not None:
            from keras_ckpt_tools.formats.common.dtypes import hdf5_dtype, numpy_dtype

            layout = hdf5_dtype(numpy_dtype(info.dtype)).str
            return None if info.offset is None else (self._fd, self._base + info.offset, layout)
        self.check_unchanged()
        return self._foreign.place_of(info)

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
            raise damaged(self.path, "; ".join(problems))
        self._checked = True

    def _check_checksums(self) -> list[str]:
        if self._archive is None:
            return []
        if self._has_weights:
            self._foreign.begin()
        try:
            bad = reader.first_bad_member(self._archive)
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
            raise damaged(self.path, f"libhdf5 cannot read it ({error})") from error

    @property
    def covered(self) -> bool:
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
        problems = self._reader.check() or self._check_structure()
        if self._archive is not None and not problems:
            sealed = sealed_digest(self._archive.comment)
            if sealed != container_digest(self._fd, self._base, self._end):
                problems.append("the bytes of its archive around the weights have changed")
        return problems

    def _check_structure(self) -> list[str]:
        """Compare the record with the HDF5 structure, by which stock Keras finds the tensors."""
        from keras_ckpt_tools.formats.hdf5.structure import UnfamiliarError, differences

        assert self._reader is not None
        infos = self._reader.record.tensors
        try:
            found = self._reader.structure()
        except UnfamiliarError:
            found = self.survey.as_found(infos)
        # A whole-model `.h5` has text of varying length, which has no place of its own.
        return differences(found, infos, self.kind is Kind.H5_MODEL)[:_LISTED]

    def _verify_foreign(self) -> tuple[str, ...]:
        problems = self._check_checksums()
        if not problems:
            try:
                if self.foreign_weights:
                    self._foreign.require_survey()  # It reads every byte.
                if isinstance(self._foreign, ShardedHdf5):
                    problems += self._foreign.problems()
            except ArtefactError as error:
                problems.append(error.what)
        return tuple(problems)

    @property
    def hdf5(self) -> h5py.File:
        """The HDF5 file behind it, for readers of Keras that ask for one."""
        self.check_unchanged()
        assert isinstance(self._foreign, ForeignHdf5)  # Keras writes no old layout in shards.
        with self._told_by_libhdf5():
            return self._foreign.file

    def check_unchanged(self) -> None:
        super().check_unchanged()
        if self.index is not None and isinstance(self._foreign, ShardedHdf5):
            self._foreign.check_unchanged()


def _not_finite_in(found: Mapping[str, np.ndarray[Any, Any] | None]) -> list[str]:
    from keras_ckpt_tools.formats.common.finite import not_finite_in

    return not_finite_in(found.items())

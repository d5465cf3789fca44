"""Open an artefact and read what is in front of its tensors: kind -> *opened* -> source.

One descriptor is opened and kept, so what is looked at here is what is read later, even if the file
is replaced in between. Of a zip or a directory the documents of Keras are read, and where in it the
weights begin and end; of all, the record, where it is ours.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, BinaryIO, Self

from keras_ckpt_tools.errors import CkptError, DamagedArtefactError
from keras_ckpt_tools.formats import archive
from keras_ckpt_tools.formats.container_seal import (
    BAD_ZIP,
    CONFIG_MEMBER,
    METADATA_MEMBER,
    WEIGHTS_MEMBER,
    member_range,
    sealed_digest,
)
from keras_ckpt_tools.formats.containers import HDF5_MAGIC, end_of_hdf5
from keras_ckpt_tools.formats.foreign_hdf5 import Place, unpacked
from keras_ckpt_tools.formats.handles import (
    copy_tree,
    identity_of,
    open_member,
    open_regular,
    read_all,
    regular_members,
)
from keras_ckpt_tools.formats.kinds import Artefact, Kind
from keras_ckpt_tools.formats.limits import Limits, over_budget
from keras_ckpt_tools.formats.naming import with_public_optimizers
from keras_ckpt_tools.formats.record_check import check_record
from keras_ckpt_tools.formats.shard_index import INDEX_MEMBER, ShardIndex, is_index
from keras_ckpt_tools.formats.strict_json import parse_object
from keras_ckpt_tools.formats.userblock import decode
from keras_ckpt_tools.metadata import Record

_HEAD = 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Opened:
    """One open artefact. Use it in a `with` block.

    Attributes:
        path: Where it is.
        kind: What it is.
        limits: What reading it may take.
        record: What it says about itself, where we wrote it.
        config: The model's config, or `None` where there is none.
        metadata: What else the writer noted: `keras_version`, `date_saved`.
        index: The files that its weights are in, where that are several.
        lacks_metadata: Whether an archive or a directory has no file for that.
    """

    def __init__(self, artefact: Artefact, limits: Limits):
        self.path = artefact.path
        self.kind = artefact.kind
        self.limits = limits
        self.record: Record | None = None
        self.config: dict[str, Any] | None = None
        self.metadata: dict[str, Any] = {}
        self.index: ShardIndex | None = None
        self.lacks_metadata = False
        self._asked: set[str] = set()
        self._stack = ExitStack()
        self._fd, self._base, self._end, self._block = -1, 0, 0, 0
        self._folder: int | None = None
        self._archive: zipfile.ZipFile | None = None
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
            # Taking a file of ours for somebody else's would switch every check off.
            raise self._damaged("its record is not where it was")
        if self.record is not None:
            total = sum(info.nbytes for info in self.record.tensors)
            if total > self.limits.max_bytes:
                what = "its tensors take"
                raise over_budget(self.path, what, "max_bytes", total, self.limits.max_bytes)

    def _open_file(self, artefact: Artefact) -> BinaryIO:
        descriptor = open_regular(self.path)
        if descriptor is None or artefact.identity not in (None, identity_of(descriptor)):
            if descriptor is not None:
                os.close(descriptor)
            raise ReplacedError
        return self._stack.enter_context(open(descriptor, "rb"))

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
            raise self._damaged(f"its {INDEX_MEMBER} names no shards")
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
            raise self._damaged(f"its weights end after {end:,} bytes, and unpack to {size:,}")

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
            raise self._damaged(f"its member {WEIGHTS_MEMBER} cannot be read ({error})") from error

    @property
    def _has_weights(self) -> bool:
        inside = self._archive is None or WEIGHTS_MEMBER in self._archive.namelist()
        return self._fd >= 0 and inside

    def check_unchanged(self) -> None:
        """Refuse a file that was written to since it was opened.

        Raises:
            DamagedArtefactError: it was.
        """
        if self._fd >= 0 and identity_of(self._fd) != self._identity:
            raise self._damaged("it was written to while it was being read")

    @property
    def passed_over(self) -> list[str]:
        """Members of an archive or a directory that are no part of a model, by name.

        Of assets, once a model was built: those that none of its layers has asked for.
        """
        known = (CONFIG_MEMBER, METADATA_MEMBER, WEIGHTS_MEMBER, "assets")
        if self._folder is not None:
            return sorted(name for name in os.listdir(self._folder) if name not in known)
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
        """Whether there are files that layers saved (vocabularies)."""
        if self.kind is Kind.KERAS_DIR and self._folder is not None:
            return "assets" in os.listdir(self._folder)
        names = self._archive.namelist() if self._archive is not None else []
        return any(name.startswith("assets/") for name in names)

    def extract_assets(self, directory: str, inside: str = "") -> str | None:
        """Write the files that layers saved (vocabularies) into a directory.

        Args:
            directory: Where to. May be given again, for those of another object.
            inside: The path of the object whose files are meant. Default: all files.

        Returns:
            The folder with the assets, or `None` where the artefact has none.
        """
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
                archive.extract(self._archive, names, directory)
            except (*BAD_ZIP, OSError) as error:
                raise self._damaged(f"its assets cannot be read ({error})") from error
        return folder if os.path.isdir(folder) else None

    def _damaged(self, how: str) -> DamagedArtefactError:
        return DamagedArtefactError(
            f"The file is damaged: {how}.",
            received=f"path={self.path!r}",
            remedy="Restore it from a copy, or load an earlier checkpoint of the run.",
            path=self.path,
        )


class ReplacedError(Exception):
    """The file is not the one that was looked at."""

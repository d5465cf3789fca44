"""Read the shards of sharded weights as one file.

Each shard is opened with the checks of a single weights file: a regular file in the directory of
the index, detected by content, and scanned in a child process, together with as many others as may
be open. The results are merged into one `Survey`, so code that reads third-party HDF5 files
reads these too.

One shard is open at a time, because there may be more shards than a process may open. So when a
shard is opened again, it is checked that it is the same file.

Links in the directory are not followed, with one exception: if the caller's own path is a link,
links to files in the directory of its target are. Download caches consist of such links.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools.errors import ArtefactKindError, CkptError, DamagedArtefactError, damaged
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.common.safe_open import Identity, identity_of, open_member
from keras_ckpt_tools.formats.hdf5.foreign import ForeignHdf5
from keras_ckpt_tools.formats.hdf5.scan import Survey, surveys
from keras_ckpt_tools.formats.hdf5.shard_index import ShardIndex
from keras_ckpt_tools.formats.kinds import tell_open
from keras_ckpt_tools.metadata import TensorInfo

if TYPE_CHECKING:
    import numpy as np

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LISTED = 20
_damaged = functools.partial(
    damaged, remedy="Fetch or copy all files of these weights again, into one directory."
)
# A process may have a thousand files open, or 256.
_TOGETHER = 100


@dataclass(frozen=True)
class _Shard:
    """One of the files: what it is called, which file it was, and what is in it."""

    name: str
    identity: Identity
    survey: Survey


class ShardedHdf5:
    """The tensors of all shards. See `ForeignHdf5`, in whose place it stands."""

    def __init__(self, index: ShardIndex, folder: int, path: str, limits: Limits, stack: ExitStack):
        self._index, self._folder, self._path, self._limits = index, folder, path, limits
        self._stack = stack
        self._reading: tuple[_Shard, ForeignHdf5] | None = None
        self._open_now = stack.enter_context(ExitStack())
        self._shards: dict[str, _Shard] = {}
        self._where: dict[str, _Shard] = {}
        # What the other process has said of files, by which files they were.
        self._looked: dict[Identity, Survey | CkptError] = {}
        self._order: Sequence[str] = index.shards
        # By Keras' count, eight truth values take one byte.
        self._bytes, self._counted = 0, 0.0

    def begin(self) -> None:
        """Do nothing: the shards are looked through one after the other."""

    @property
    def survey(self) -> Survey:
        """What is in all shards together.

        Raises:
            CkptError: some of them cannot be used; names each, and says why.
        """
        if isinstance(self._found, CkptError):
            raise self._found
        return self._found

    @cached_property
    def _found(self) -> Survey | CkptError:
        try:
            return self._look()
        except CkptError as error:
            return error  # The shards are not looked through once more to say it again.

    def _look(self) -> Survey:
        problems: dict[str, CkptError] = {}
        for name in self._index.shards:
            try:
                self._add(name)
            except CkptError as error:
                problems[name] = error
                if len(problems) > _LISTED:
                    break
        if problems:
            raise self._error(problems)
        if self._lacks_bytes:
            self._order = self._index.unnamed(os.listdir(self._folder))
        for name in self._order if self._lacks_bytes else ():
            try:
                self._add(name)
            except CkptError as error:
                raise self._error({name: error}) from error
            if not self._lacks_bytes:
                break
        self._require_named()
        found = [shard.survey for shard in self._shards.values()]
        return Survey(
            attributes={},
            members=frozenset().union(*(one.members for one in found)),
            with_vars=frozenset().union(*(one.with_vars for one in found)),
            tensors={
                path: _without_place(s.survey.tensors[path]) for path, s in self._where.items()
            },
            not_finite=tuple(path for one in found for path in one.not_finite),
            # A group that goes on in another shard has its name in the first.
            names={group: name for one in reversed(found) for group, name in one.names.items()},
        )

    def require_survey(self) -> None:
        """Raise the error of a shard that cannot be used, if there is one."""
        _ = self.survey

    def read(self, info: TensorInfo) -> np.ndarray[Any, Any] | None:
        """Return a tensor, or `None` if its file ends before it does."""
        shard = self._where[info.path]
        return self._opened(shard).read(shard.survey.tensors[info.path])

    def place_of(self, info: TensorInfo) -> None:
        """Return `None`: no shard stays open."""

    @property
    def _lacks_bytes(self) -> bool:
        """Whether the tensors that were found take less than all of them did when saved."""
        return self._counted < (self._index.total_bytes or 0)

    def problems(self) -> list[str]:
        """Return missing parts and reasons why they cannot be read, as sentences."""
        self.require_survey()
        if not self._lacks_bytes:
            return []
        total = self._index.total_bytes or 0
        return [f"its shards hold {self._counted:,.0f} bytes of {total:,.0f} that were saved"]

    def check_unchanged(self) -> None:
        """Refuse shards that were replaced or written to since they were looked through.

        Raises:
            DamagedArtefactError: one was.
        """
        for shard in self._shards.values():
            try:
                status = os.stat(shard.name, dir_fd=self._folder)
            except OSError as error:
                raise self._replaced(shard.name) from error
            now = Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if now != shard.identity:
                raise self._replaced(shard.name)

    def _look_at(self, descriptor: int, start: int, end: int, path: str, limits: Limits) -> Survey:
        """Return what is in a shard; it and those behind it are looked through together."""
        identity = identity_of(descriptor)
        if identity not in self._looked:
            name = os.path.basename(path)
            place = self._order.index(name) + 1
            behind = self._order[place : place + _TOGETHER - 1]
            files, places = [identity], [(descriptor, start, end)]
            with ExitStack() as opened:
                for other in behind:
                    try:
                        file = self._open(other)
                    except CkptError:
                        continue  # It is an error when it is its turn.
                    opened.callback(os.close, file)
                    files.append(identity_of(file))
                    places.append((file, 0, files[-1].size))
                # The list may end before its time, with the error of one of them.
                self._looked |= zip(files, surveys(places, self._path, limits), strict=False)
        found = self._looked[identity]
        if isinstance(found, CkptError):
            raise found
        return found

    def _add(self, name: str) -> None:
        """Look a shard through, and take its tensors."""
        with open(self._open(name), "rb") as file:
            place = os.path.join(os.path.dirname(self._path), name)
            artefact = tell_open(place, file, self._limits, self._look_at)
            if artefact.refusal is not None:
                raise artefact.refusal
            if artefact.damage:
                raise _damaged(self._path, artefact.damage)
            found = artefact.survey
            if found is None and artefact.kind.is_hdf5:
                # A file of this package in place of a shard; its record is not used.
                found = self._look_at(file.fileno(), 0, artefact.size, place, self._limits)
            if found is None:
                raise ArtefactKindError(
                    f"it is not an HDF5 file, but of the kind {str(artefact.kind)!r}",
                    received=f"path={place!r}",
                    remedy="Fetch the files of the weights again, all of them.",
                    path=self._path,
                    kind=str(artefact.kind),
                )
            shard = self._shards[name] = _Shard(name, identity_of(file.fileno()), found)
        if twice := sorted(self._where.keys() & found.tensors.keys()):
            other = self._where[twice[0]].name
            raise _damaged(self._path, f"it has {twice[0]!r}, which {other} has as well")
        self._where |= dict.fromkeys(found.tensors, shard)
        for info in found.tensors.values():
            self._bytes += info.nbytes
            self._counted += info.nbytes / 8 if info.dtype == "bool" else info.nbytes
        if self._bytes > (most := self._limits.max_bytes):
            raise over_budget(self._path, "its tensors take", "max_bytes", self._bytes, most)
        if len(self._where) > self._limits.objects:
            number, most = len(self._where), self._limits.objects
            raise over_budget(self._path, "it has", "objects", number, most)

    def _open(self, name: str) -> int:
        folder, real = self._folder, name
        if self._cache is not None and _is_link(name, folder):
            place = os.path.realpath(os.path.join(os.path.dirname(self._path), name))
            if os.path.dirname(place) == self._cache[0]:
                folder, real = self._cache[1], os.path.basename(place)
        descriptor = open_member(folder, real, self._path)
        if descriptor is None:
            raise _damaged(self._path, "it is not there")
        return descriptor

    @cached_property
    def _cache(self) -> tuple[str, int] | None:
        """Where the index really is, if the caller's path is a link: the folder, open."""
        if not os.path.islink(self._path):
            return None
        folder = os.path.dirname(os.path.realpath(self._path))
        descriptor = os.open(folder, _DIRECTORY)
        self._stack.callback(os.close, descriptor)
        return folder, descriptor

    def _opened(self, shard: _Shard) -> ForeignHdf5:
        if self._reading is not None and self._reading[0] is shard:
            return self._reading[1]
        self._open_now.close()
        descriptor = self._open(shard.name)
        self._open_now.callback(os.close, descriptor)
        if identity_of(descriptor) != shard.identity:
            raise self._replaced(shard.name)
        size = shard.identity.size
        part = ForeignHdf5(
            lambda: (descriptor, 0, size), self._path, self._limits, self._open_now, shard.survey
        )
        self._reading = shard, part
        return part

    def _require_named(self) -> None:
        """Refuse an index whose shards do not have what it says is in them."""
        groups = {name: _groups(shard.survey.tensors) for name, shard in self._shards.items()}
        lacking = [
            f"{name} has no {group}"
            for group, names in self._index.groups.items()
            for name in names
            if group not in groups[name]
        ]
        if lacking:
            more = f"; and {len(lacking) - _LISTED} more" if len(lacking) > _LISTED else ""
            how = "its shards do not match its index: " + "; ".join(lacking[:_LISTED]) + more
            raise _damaged(self._path, how)

    def _error(self, problems: Mapping[str, CkptError]) -> CkptError:
        """Return one error for all shards that cannot be used, of the gravest kind among them."""
        errors = list(problems.values())
        kind = next((e for e in errors if not isinstance(e, DamagedArtefactError)), errors[0])
        said = "; ".join(
            f"{name}: {getattr(error, 'how', error.what.rstrip('.'))}"
            for name, error in problems.items()
        )
        return type(kind)(
            f"The shards of the weights cannot be used: {said}.",
            received=f"path={self._path!r}",
            remedy=kind.remedy,
            **{**kind.facts, "path": self._path, "how": said},
        )

    def _replaced(self, name: str) -> DamagedArtefactError:
        return _damaged(self._path, f"its shard {name} was written to while it was being read")


def _without_place(info: TensorInfo) -> TensorInfo:
    return TensorInfo(info.path, info.shape, info.dtype, None, info.nbytes)


def _groups(paths: Mapping[str, Any]) -> set[str]:
    """Return all groups in which there is a tensor."""
    found: set[str] = set()
    for path in paths:
        group = path.rpartition("/")[0]
        while group and group not in found:
            found.add(group)
            group = group.rpartition("/")[0]
    return found


def _is_link(name: str, folder: int) -> bool:
    try:
        os.readlink(name, dir_fd=folder)
    except OSError:
        return False
    return True

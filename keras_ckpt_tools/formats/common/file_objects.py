"""Accept an open file instead of a path, by copying it.

Keras reads and writes `.keras` archives in open binary files (`io.BytesIO`), and whole-model `.h5`
files in an open `h5py.File`. A file is checked before it is read, through one descriptor and partly
in another process, but the caller may still write to an open file. So its bytes are copied to a
temporary file, which is opened like any other.

h5py is not imported here: a caller with an `h5py.File` has imported it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from keras_ckpt_tools.errors import ArgumentError, CkptError
from keras_ckpt_tools.formats.common.limits import Limits, over_budget

PathOrFile = str | os.PathLike[str] | IO[bytes]

_CHUNK = 1 << 20


class _Copy(str):
    """The path of a copy. Messages show what was passed, not where the copy was."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "file"


class _FolderOfCopy(str):
    """Where a copy is; messages show a name that stands for where the file came from."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "directory"


def folder_of(path: str) -> str:
    """Return the directory that a file is in, to be shown in a message."""
    folder = os.path.dirname(path) or "."
    return _FolderOfCopy(folder) if isinstance(path, _Copy) else folder


@contextmanager
def on_disk(path: Any, limits: Limits) -> Iterator[Any]:
    """Yield a path: what was passed if it is one, or that of a copy of an open file.

    Args:
        path: A path, a file that is open for reading in binary mode, or an open `h5py.File`. What
            is neither is passed on, to be refused as a path.
        limits: What the tensors in it may take, and the JSON beside them. More is not copied.

    Raises:
        ArgumentError: the file is not open for reading in binary mode.
        OverBudgetError: it is larger, or there is no space for the copy.
    """
    h5py = sys.modules.get("h5py")
    hdf5 = h5py is not None and isinstance(path, h5py.File)
    if isinstance(path, (str, bytes, os.PathLike)) or not (hdf5 or hasattr(path, "read")):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix=".kct-file-") as folder:
        copy = os.path.join(folder, "file")
        try:
            room = _Room(limits)
            if hdf5:
                _copy_hdf5(path, copy, room)
            else:
                with open(copy, "xb") as file:
                    _copy(path, file, room)
        except CkptError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            # As of closed files, of files that are open for writing, and of text.
            raise ArgumentError(
                f"The file cannot be read: {str(error).rstrip('.')}.",
                received=f"path={path!r}",
                remedy='Open it for reading, in binary mode: `open(path, "rb")`; or pass its path.',
            ) from error
        yield _Copy(copy)


class _Room:
    """What a copy may take: what is allowed, and what is free."""

    def __init__(self, limits: Limits):
        # A file is not much larger than what it holds: tensors, and the JSON that describes them.
        self._allowed = limits.max_bytes + limits.json_bytes
        self._max_bytes = limits.max_bytes
        self._free = shutil.disk_usage(tempfile.gettempdir()).free

    def require(self, size: int, *, more: bool = False) -> None:
        """Refuse a copy of so many bytes, or, with `more`, of so many at least."""
        if size > self._allowed:
            what = "it holds at least" if more else "it holds"
            remedy = "If you know the file, allow more: pass a larger `max_bytes=`." if more else ""
            raise over_budget("file", what, "max_bytes", size, self._max_bytes, remedy)
        if size > self._free:
            what = "copying it into the temporary directory takes"
            remedy = "Free some space there, or set TMPDIR to a directory with more."
            raise over_budget("file", what, "bytes", size, self._free, remedy)


def _copy_hdf5(source: Any, path: str, room: _Room) -> None:
    """Copy an open HDF5 file as it is; one that only h5py can read, by its contents."""
    source.flush()
    room.require(source.id.get_filesize())
    if source.driver == "sec2" and source.mode == "r":
        descriptor, position = source.id.get_vfd_handle(), 0
        with open(path, "xb") as file:
            while data := os.pread(descriptor, _CHUNK, position):
                position += file.write(data)
    elif not source.userblock_size:
        with open(path, "xb") as file:
            file.write(source.id.get_file_image())
    else:
        # HDF5 leaves the end out of such an image, and writes marks into a file that it may change.
        h5py = sys.modules["h5py"]
        with type(source)(path, "w") as copy:
            copy.attrs.update(source.attrs)
            for name in source:
                link = source.get(name, getlink=True)
                if isinstance(link, (h5py.SoftLink, h5py.ExternalLink)):
                    copy[name] = link  # As it is, so that it is refused as in any file.
                else:
                    source.copy(name, copy)


def _copy(source: Any, target: IO[bytes], room: _Room) -> None:
    """Copy a file from its beginning; where it cannot go back, from where it is."""
    position = source.tell() if _can_seek(source) else None
    try:
        if position is not None:
            room.require(source.seek(0, os.SEEK_END) or 0)
            source.seek(0)
        written = 0
        while data := source.read(_CHUNK):
            written += len(data)
            room.require(written, more=True)
            target.write(data)
    finally:
        if position is not None:
            source.seek(position)


def _can_seek(source: Any) -> bool:
    seekable = getattr(source, "seekable", None)
    return bool(seekable()) if seekable is not None else hasattr(source, "seek")

"""Write a file completely or not at all: staging file, sync, rename.

A save never writes onto its target. It writes a staging file in the same directory, syncs it,
renames it over the target and syncs the directory. Until the rename, the old file is unchanged;
afterwards, the new one is complete. Keras and most other libraries overwrite in place, and leave
half a file when they are killed.

The writer holds a lock on its staging file; the kernel releases it when the process dies. So
leftovers of killed processes can be distinguished from files of running ones, and only these
leftovers are removed. On a file system without locks, the name of a staging file says so, and it
counts as a leftover a day after its last change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from keras_ckpt_tools.errors import CommitError
from keras_ckpt_tools.storage.file_systems import is_old, lock, sync_directory, sync_file
from keras_ckpt_tools.storage.local_paths import local_path

STAGED_SUFFIX = ".kct-staged"
UNLOCKED = "-unlocked"
STAGED_NAME = re.compile(
    rf"\.(.+)\.[0-9a-f]{{8}}({UNLOCKED})?{re.escape(STAGED_SUFFIX)}", re.DOTALL
)


@contextlib.contextmanager
def staged(target: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a staging file in the directory of `target`, and commit it at the end of the block.

    A target that is a symlink stays one: the file that it points to is replaced. Directories that
    are missing are made. The new file's permissions follow the umask.

    Args:
        target: Path of the file to write.

    Yields:
        A binary file, open for writing and reading. It is visible under `target` after the block.

    Raises:
        ArgumentError: the target is an address.
        CommitError: the operating system refused (no space, no permission, ...). The target is as
            it was before, and no staging file is left.

    Example:

    >>> import os, pathlib, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "a.bin")
    >>> with staged(path) as file:
    ...     _ = file.write(b"whole")
    ...     print(os.path.exists(path))
    False
    >>> pathlib.Path(path).read_bytes()
    b'whole'
    """
    final = Path(os.path.realpath(local_path(target)))
    committed = False
    temporary: Path | None = None
    try:
        make_directory(final.parent)
        remove_leftovers(final)
        temporary, descriptor = _stage(final)
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            sync_file(file.fileno(), final)
            _replace(temporary, final, file.fileno())
            committed = True
        sync_directory(final.parent)
    except BaseException as error:
        if temporary is not None and not committed:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, CommitError):
            raise refused(final, error, committed) from error
        raise


def also_under(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Make a file visible under a second name, too, in place of what is there.

    It is a hard link, which takes no space; where a file system has none, a copy.

    Args:
        source: The file.
        target: The second name, in a directory that is there.

    Raises:
        CommitError: the operating system refused. What was under the name is unchanged.
    """
    final = Path(os.path.realpath(local_path(target)))
    try:
        temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}{STAGED_SUFFIX}")
        os.link(source, temporary)
        try:
            os.replace(temporary, final)
        finally:
            # A link is not renamed over another one of the same file.
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    except OSError:
        try:
            with open(source, "rb") as file, staged(final) as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
        except CommitError:
            raise
        except OSError as error:
            raise refused(final, error) from error
        return
    try:
        sync_directory(final.parent)
    except OSError as error:
        raise refused(final, error, committed=True) from error


def _stage(final: Path) -> tuple[Path, int]:
    marker = ""
    while True:
        name = f".{final.name}.{secrets.token_hex(4)}{marker}{STAGED_SUFFIX}"
        temporary = final.with_name(name)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666)
        try:
            if marker or lock(descriptor, fcntl.LOCK_EX, final):
                # A neighbour may have taken it for a leftover before it was locked.
                if _is_there(temporary, descriptor):
                    return temporary, descriptor
            else:
                marker = UNLOCKED
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _is_there(path: Path, descriptor: int) -> bool:
    # Some file systems know no number of links: then the name has to do.
    return bool(os.fstat(descriptor).st_nlink) or os.path.lexists(path)


def _replace(temporary: Path, final: Path, descriptor: int) -> None:
    try:
        os.replace(temporary, final)
    except FileNotFoundError:
        # A server whose answer was lost is asked again, and then says that there is no such file.
        try:
            done = os.path.samestat(os.fstat(descriptor), os.stat(final))
        except OSError:
            done = False
        if not done:
            raise


def remove_leftovers(target: Path) -> tuple[Path, ...]:
    """Remove what killed runs left of staging `target`; return what was removed.

    Only files with our staging name for this very target are looked at, and of those only the
    ones whose writer is dead.
    """
    return remove_leftovers_of(target.parent, lambda name: name == target.name)


def remove_leftovers_of(directory: Path, is_target: Callable[[str], object]) -> tuple[Path, ...]:
    """Remove what killed runs left of staging files in a directory; see `remove_leftovers`.

    Args:
        directory: The directory.
        is_target: Whether a file of that name is one of those that are meant.
    """
    try:
        with os.scandir(directory) as entries:
            found = [match for entry in entries if (match := STAGED_NAME.fullmatch(entry.name))]
    except OSError:
        return ()  # A directory that cannot be listed can be written to all the same.
    paths = (directory / match[0] for match in found if is_target(match[1]))
    return tuple(path for path in paths if _remove_if_abandoned(path))


def target_of_staged(name: str) -> str | None:
    """Return the final name of a staging file; `None` if it was not written by this package.

    >>> target_of_staged(".a.keras.0123abcd.kct-staged"), target_of_staged("a.keras")
    ('a.keras', None)
    """
    match = STAGED_NAME.fullmatch(name)
    return match[1] if match else None


def is_abandoned(path: str | os.PathLike[str]) -> bool:
    """Return whether the writer of a staged file is dead; where that is unknown, it is not."""
    return _if_abandoned(path, fcntl.LOCK_SH, lambda: None)


def _remove_if_abandoned(path: Path) -> bool:
    return _if_abandoned(path, fcntl.LOCK_EX, path.unlink)


def _if_abandoned(path: str | os.PathLike[str], how: int, act: Callable[[], object]) -> bool:
    """Do something with a staged file whose writer is dead; return whether that was done."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        match = STAGED_NAME.fullmatch(os.path.basename(path))
        unlocked = match is not None and match[2]
        locked = not unlocked and lock(descriptor, how | fcntl.LOCK_NB, path)
        if not locked and not is_old(descriptor):
            return False
        act()
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make a directory, and those above it that are missing, durably.

    A file is as lost as the directory that it is in, and syncing that says nothing about its name
    in the one above.
    """
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def remove_files(paths: Iterable[str], is_ours: Callable[[str], bool] = lambda path: True) -> None:
    """Remove files that a new one has replaced, durably; those that are gone already are no matter.

    Args:
        paths: The files.
        is_ours: Whether a file may be removed; the others are left alone.

    Raises:
        CommitError: the operating system refused. The others are removed all the same.
    """
    stays: dict[str, OSError] = {}
    folders: dict[Path, str] = {}
    for path in paths:
        folders[Path(path).parent] = path
        try:
            if is_ours(path):
                os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            stays[path] = error
    for folder, path in folders.items():
        try:
            sync_directory(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            stays.setdefault(path, error)
    for path, reason in stays.items():
        raise CommitError(
            f"{', '.join(stays)} could not be deleted: {reason.strerror or reason}. The newer "
            "checkpoint is in place.",
            received=f"path={path!r}",
            remedy=_REMEDIES.get(reason.errno or 0, "Delete these files yourself."),
            path=path,
            errno=reason.errno,
        ) from reason


_REMEDIES = {
    errno.ENOSPC: "Free space on that disk, or keep fewer checkpoints (`max_to_keep=`).",
    errno.EDQUOT: "Free some of your quota, or keep fewer checkpoints (`max_to_keep=`).",
    errno.EFBIG: "Raise the limit on file sizes (`ulimit -f`), or save weights only.",
    errno.EACCES: "Choose a directory that you may write to.",
    errno.EPERM: "Choose a directory that you may write to.",
    errno.EROFS: "Choose a directory on a file system that is not read-only.",
    errno.EISDIR: "Choose the path of a file; this is a directory.",
    errno.ENOTDIR: "Choose another directory; a part of that path is a file.",
    errno.EEXIST: "Choose another directory; a part of that path is a file.",
    **dict.fromkeys(
        (errno.ENOSYS, errno.ENOTSUP, errno.EXDEV, errno.EBUSY),
        "This file system cannot replace a file by a rename. Save to a local directory, and copy "
        "the files from there.",
    ),
}


def refused(target: Path, error: OSError, committed: bool = False) -> CommitError:
    """Return what a save raises where the operating system refused it."""
    reason = error.strerror or str(error)
    state = (
        "The new file is in place, but may not survive a power failure."
        if committed
        else "An existing file at the path is unchanged."
    )
    return CommitError(
        f"The save failed: {reason}. {state}",
        received=f"path={str(target)!r}",
        remedy=_REMEDIES.get(error.errno or 0, "Solve this problem, and save again."),
        path=str(target),
        errno=error.errno,
    )


_EVERY = 8 << 20
_BEGIN_WRITING = 2


def synced_early(file: BinaryIO, write: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    """Return a `write` that lets the disk begin every few megabytes.

    Args:
        file: The file that is written.
        write: What writes to it; `None` for its own `write`.
    """
    write = write or file.write
    pending = 0

    def write_and_begin(data: Any) -> Any:
        nonlocal pending
        written = write(data)
        pending += memoryview(data).nbytes
        if pending >= _EVERY:
            pending = 0
            _begin()(file.fileno())
        return written

    return write_and_begin


@functools.cache
def _begin() -> Callable[[int], object]:
    """Return what has the system begin to write a file out, by its descriptor."""
    if sys.platform != "linux":
        return lambda descriptor: None
    import ctypes

    try:
        call = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return lambda descriptor: None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda descriptor: call(descriptor, 0, 0, _BEGIN_WRITING)

"""Write several files so that they become visible together: the last one commits.

Some formats need several files, which one rename cannot commit. So the files are written to a
staging directory and moved out of it one after another; the last one makes them a checkpoint. A
deletion first moves this last file into a staging directory; then the checkpoint no longer exists.

So a process that dies at any instant leaves the old state or the new one, and in the second case a
staging directory that contains the last file as long as other files of that name are in place.
This shows which of these files may be removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from keras_ckpt_tools.errors import CommitError
from keras_ckpt_tools.storage.commit import (
    STAGED_NAME,
    STAGED_SUFFIX,
    UNLOCKED,
    make_directory,
    refused,
)
from keras_ckpt_tools.storage.file_systems import is_old, lock, sync_directory, sync_file


@contextlib.contextmanager
def staged_set(prefix: str, suffixes: Sequence[str]) -> Iterator[dict[str, BinaryIO]]:
    """Stage the files of one prefix, and commit them at the end of the block.

    Args:
        prefix: What their paths begin with.
        suffixes: How they end, in the order in which they become visible; the last one commits.

    Yields:
        The files by suffix, open for writing and reading.

    Raises:
        CommitError: the operating system refused. Nothing is left of them.

    Example:

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with staged_set(os.path.join(folder, "run-1"), [".data", ".record"]) as files:
    ...     _ = files[".data"].write(b"a"), files[".record"].write(b"b")
    >>> sorted(os.listdir(folder))
    ['run-1.data', 'run-1.record']
    """
    final = Path(os.path.abspath(prefix))
    committed = False
    moved: list[Path] = []
    folder: Path | None = None
    try:
        make_directory(final.parent)
        with contextlib.ExitStack() as stack:
            folder, held = _stage(final)
            stack.enter_context(held)
            files: dict[str, BinaryIO] = {}
            for suffix in suffixes:
                file: BinaryIO = open(folder / _plain(suffix), "w+b")
                files[suffix] = stack.enter_context(file)
            yield files
            for file in files.values():
                file.flush()
                sync_file(file.fileno(), final)
            for suffix in suffixes:
                target = final.with_name(final.name + suffix)
                if suffix == suffixes[-1]:
                    sync_directory(final.parent)
                os.rename(folder / _plain(suffix), target)
                moved.append(target)
            committed = True
            with contextlib.suppress(OSError):  # It is cleared away later, with what is in it.
                folder.rmdir()
        sync_directory(final.parent)
    except BaseException as error:
        if not committed and folder is not None:
            for path in [*moved, *(folder / _plain(suffix) for suffix in suffixes)]:
                with contextlib.suppress(OSError):
                    path.unlink()
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and not isinstance(error, CommitError):
            raise refused(final, error, committed) from error
        raise


def remove_set(prefix: str, suffixes: Sequence[str]) -> None:
    """Remove the files of one prefix, the one that commits them first.

    Raises:
        CommitError: the operating system refused.
    """
    final = Path(os.path.abspath(prefix))
    last = final.with_name(final.name + suffixes[-1])
    try:
        folder, held = _stage(final)
        with held:
            os.rename(last, folder / _plain(suffixes[-1]))
            sync_directory(final.parent)
            _clear(folder, final, suffixes)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            folder.rmdir()
    except OSError as error:
        raise refused(final, error, committed=True) from error


def remove_abandoned(
    directory: str | os.PathLike[str], is_target: Callable[[str], object], suffixes: Sequence[str]
) -> None:
    """Remove what killed processes left of committing or deleting such files.

    Args:
        directory: Where to look.
        is_target: Whether a file name, without suffix, is one of those that are meant.
        suffixes: As for `staged_set`.
    """
    try:
        names = os.listdir(directory)
    except OSError:
        return  # A directory that cannot be listed can be written to all the same.
    for name in names:
        found = STAGED_NAME.fullmatch(name)
        folder = Path(directory, name)
        if not found or not is_target(found[1]) or not folder.is_dir() or folder.is_symlink():
            continue
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(folder, flags)
            try:
                locked = not found[2] and lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, folder)
                if locked or is_old(descriptor):
                    _clear(folder, Path(directory, found[1]), suffixes)
            finally:
                os.close(descriptor)


def _clear(folder: Path, final: Path, suffixes: Sequence[str]) -> None:
    last = folder / _plain(suffixes[-1])
    if last.exists() and not final.with_name(final.name + suffixes[-1]).exists():
        for suffix in reversed(suffixes[:-1]):
            if not (folder / _plain(suffix)).exists():
                final.with_name(final.name + suffix).unlink(missing_ok=True)
        sync_directory(final.parent)
    for suffix in suffixes:
        (folder / _plain(suffix)).unlink(missing_ok=True)
    folder.rmdir()


def _stage(final: Path) -> tuple[Path, contextlib.ExitStack]:
    """Make a staging directory; return what gives its lock back as well."""
    stem = f".{final.name}.{secrets.token_hex(4)}"
    folder = final.with_name(f"{stem}{STAGED_SUFFIX}")
    folder.mkdir()
    held = contextlib.ExitStack()
    locked = False
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, descriptor)
        locked = lock(descriptor, fcntl.LOCK_EX, final)
    if not locked:
        folder = folder.rename(folder.with_name(f"{stem}{UNLOCKED}{STAGED_SUFFIX}"))
    return folder, held


def _plain(suffix: str) -> str:
    return suffix.lstrip(".")

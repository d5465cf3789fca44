"""Write down every call that a save makes to the file system, and fail one of them if asked to.

What is recorded is what the operating system is told, no more: files that are made, bytes that are
written and where, syncs, renames, removals. The calls are caught where Python makes them: at the
functions of `os` and `fcntl`, and at the raw file below every buffered one. That the record is
complete shows when it is replayed: see `test_crash_states`, which compares the result with the real
directory, and where `strace` is there, with what the kernel saw.
"""

from __future__ import annotations

import builtins
import fcntl
import functools
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Operation:
    """One change of the file system.

    Attributes:
        kind: `create`, `write`, `truncate`, `sync`, `sync_directory`, `rename`, `unlink`, `mkdir`,
            or `returned`: the save has told its caller that it is done.
        path: Where, or from where.
        target: Where to, of a rename.
        inode: Which file, whatever its name is by then.
        offset: Where the bytes begin, or the new length.
        data: The bytes.
    """

    kind: str
    path: str = ""
    target: str = ""
    inode: int = 0
    offset: int = 0
    data: bytes = b""


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        at: The number of the call that fails, from 0.
        errno: With which error.
        lasting: Whether all calls after it fail too.
        half: Whether half of the bytes are still written, if it is a write.
    """

    at: int
    errno: int
    lasting: bool = False
    half: bool = False


class Recorder:
    """Knows what was done below one directory.

    Attributes:
        trace: The changes, in order.
        calls: The names of all calls, those that only look included, in order.
    """

    def __init__(self, root: str, fault: Fault | None = None):
        self.root = os.path.realpath(root)
        self.trace: list[Operation] = []
        self.calls: list[str] = []
        self._fault = fault
        self._lock = threading.RLock()
        self._inodes: dict[tuple[int, int], int] = {}
        self._stat = os.stat
        self._fstat = os.fstat

    def returned(self) -> None:
        """Note that a save has told its caller that it is done."""
        self.trace.append(Operation("returned"))

    def concerns(self, path: Any) -> bool:
        """Return whether a path or a descriptor belongs to the directory."""
        return self.path_of(path) is not None

    def path_of(self, path: Any) -> str | None:
        """Return the absolute path of a path or descriptor, if it is below the directory."""
        if hasattr(path, "fileno"):
            path = path.fileno()
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return None
        path = os.path.abspath(os.fspath(path))
        parent = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        below = parent == self.root or parent.startswith(self.root + os.sep)
        return parent if below else None

    def made(self, path: str, descriptor: int) -> None:
        """Note a new file."""
        state = self._fstat(descriptor)
        inode = self._inodes[state.st_dev, state.st_ino] = len(self._inodes) + 1_000_000
        # A file without a name is gone with its descriptor: no crash leaves any of it.
        if state.st_nlink:
            self.note("create", path, inode=inode)

    def inode(self, path: Any) -> int:
        """Return the number of a file; the same under whatever name."""
        state = self._fstat(path) if isinstance(path, int) else self._stat(path)
        return self._inodes.get((state.st_dev, state.st_ino), state.st_ino)

    def named(self, descriptor: int) -> bool:
        """Return whether a file has a name."""
        return self._fstat(descriptor).st_nlink > 0

    def note(self, kind: str, path: str = "", **facts: Any) -> None:
        """Note a change."""
        with self._lock:
            self.trace.append(Operation(kind, path, **facts))

    def call(self, name: str, path: Any, fail_half: Callable[[], Any] | None = None) -> None:
        """Count a call; fail it if its turn has come."""
        with self._lock:
            number = len(self.calls)
            self.calls.append(name)
        fault = self._fault
        if fault is None or number < fault.at or (number > fault.at and not fault.lasting):
            return
        if fault.half and fail_half is not None:
            fail_half()
        raise OSError(fault.errno, os.strerror(fault.errno), str(path))

    def existed(self, path: Any) -> bool:
        """Return whether something is at a path."""
        try:
            self._stat(path, follow_symlinks=False)
        except OSError:
            return False
        return True


class _RawFile(io.FileIO):
    """The file at the bottom of Python's buffers, telling what is done to it."""

    recorder: Recorder

    def write(self, data: Any) -> int:
        data = bytes(data)
        offset = self.tell()

        def put(part: bytes) -> int:
            written = super(_RawFile, self).write(part) or 0
            if self.recorder.named(self.fileno()):
                self.recorder.note(
                    "write",
                    inode=self.recorder.inode(self.fileno()),
                    offset=offset,
                    data=part[:written],
                )
            return written

        self.recorder.call("write", self.name, lambda: put(data[: len(data) // 2]))
        return put(data)

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        self.recorder.call("truncate", self.name)
        super().truncate(size)
        if self.recorder.named(self.fileno()):
            inode = self.recorder.inode(self.fileno())
            self.recorder.note("truncate", inode=inode, offset=size)
        return size

    def readinto(self, buffer: Any) -> int | None:
        self.recorder.call("read", self.name)
        return super().readinto(buffer)


@contextmanager
def recording(root: str | os.PathLike[str], fault: Fault | None = None) -> Iterator[Recorder]:
    """Record what the block does below a directory; one of its calls may fail."""
    recorder = Recorder(os.fspath(root), fault)
    with pytest.MonkeyPatch.context() as patch:
        _record_os(recorder, patch)
        _record_files(recorder, patch)
        yield recorder


class _System:
    """The functions of `os`, each telling what it did."""

    def __init__(self, recorder: Recorder, patch: pytest.MonkeyPatch):
        self._recorder = recorder
        self._patch = patch

    def wrap(
        self,
        name: str,
        after: Callable[..., None],
        before: Callable[..., Any] = lambda *_: None,
        module: Any = os,
    ) -> None:
        """Let a function whose first argument is a path or a descriptor be recorded."""
        original = getattr(module, name)

        def recorded(*arguments: Any, **options: Any) -> Any:
            path = self._recorder.path_of(arguments[0] if arguments else ".")
            if path is None:
                return original(*arguments, **options)
            known = before(path, *arguments)
            self._recorder.call(name, path)
            result = original(*arguments, **options)
            after(path, known, result, *arguments)
            return result

        self._patch.setattr(module, name, recorded)

    def opened(self, path: str, was: bool, descriptor: int, _: Any, flags: int, *__: Any) -> None:
        if flags & os.O_TMPFILE == os.O_TMPFILE or (flags & os.O_CREAT and not was):
            self._recorder.made(path, descriptor)
        elif flags & os.O_TRUNC:
            self._recorder.note("truncate", path, inode=self._recorder.inode(descriptor))

    def synced(self, path: str, _: Any, __: Any, file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if os.path.isdir(path):
            self._recorder.note("sync_directory", path)
        elif self._recorder.named(descriptor):
            self._recorder.note("sync", inode=self._recorder.inode(descriptor))

    def renamed(self, path: str, inode: int, _: Any, __: Any, target: Any, *___: Any) -> None:
        target = self._recorder.path_of(target) or ""
        self._recorder.note("rename", path, target=target, inode=inode)

    def wrote(self, path: str, _: Any, n: int, descriptor: int, data: Any, *place: Any) -> None:
        if not self._recorder.named(descriptor):
            return
        parts = data if isinstance(data, (list, tuple)) else [data]
        whole = b"".join(bytes(memoryview(part).cast("B")) for part in parts)[:n]
        offset = place[0] if place else os.lseek(descriptor, 0, os.SEEK_CUR) - n
        inode = self._recorder.inode(descriptor)
        self._recorder.note("write", inode=inode, offset=offset, data=whole)

    def truncated(self, path: str, _: Any, __: Any, file: Any, length: int) -> None:
        self._recorder.note("truncate", inode=self._recorder.inode(file), offset=length)

    def allocated(
        self, path: str, size: int, _: Any, descriptor: int, start: int, length: int
    ) -> None:
        # It lets a file grow and changes nothing else.
        if self._recorder.named(descriptor) and start + length > size:
            inode = self._recorder.inode(descriptor)
            self._recorder.note("truncate", inode=inode, offset=start + length)

    def noted(self, kind: str) -> Callable[..., None]:
        return lambda path, *_: self._recorder.note(kind, path)


def _record_os(recorder: Recorder, patch: pytest.MonkeyPatch) -> None:
    system = _System(recorder, patch)
    system.wrap("open", system.opened, lambda path, *_: recorder.existed(path))
    for name in ("fsync", "fdatasync"):
        system.wrap(name, system.synced)
    for name in ("replace", "rename"):
        system.wrap(name, system.renamed, lambda path, *_: recorder.inode(path))
    for name in ("unlink", "remove"):
        system.wrap(name, system.noted("unlink"))
    system.wrap("mkdir", system.noted("mkdir"))
    for name in ("write", "pwrite", "writev", "pwritev"):
        system.wrap(name, system.wrote)
    for name in ("truncate", "ftruncate"):
        system.wrap(name, system.truncated)
    system.wrap("posix_fallocate", system.allocated, lambda _, file, *__: os.stat(file).st_size)
    for name in ("scandir", "listdir", "read", "pread", "preadv", "readv"):
        system.wrap(name, lambda *_: None)
    system.wrap("flock", lambda *_: None, module=fcntl)
    for name in ("link", "symlink", "sendfile", "copy_file_range", "rmdir"):
        system.wrap(name, _unforeseen(name))


def _unforeseen(name: str) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise AssertionError(f"os.{name} is not recorded: teach the recorder what it does")

    return fail


def _open(recorded: Callable[..., int], path: str, flags: int) -> int:
    return recorded(path, flags, 0o666)


def _record_files(recorder: Recorder, patch: pytest.MonkeyPatch) -> None:
    original = io.open

    def opened(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        path = recorder.path_of(file)
        if path is None or "b" not in mode:
            assert path is None or set(mode) <= set("rt"), "text is not recorded"
            return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not isinstance(file, int) and opener is None:
            # Recorded above, and with the permissions that Python asks for.
            opener = functools.partial(_open, os.open)
        bare = mode.replace("b", "")
        raw = _RawFile(file, bare, closefd, opener)
        raw.recorder = recorder
        if buffering == 0:
            return raw
        size = io.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering
        if "+" in bare:
            return io.BufferedRandom(raw, size)
        return (io.BufferedReader if bare == "r" else io.BufferedWriter)(raw, size)

    patch.setattr(io, "open", opened)
    patch.setattr(builtins, "open", opened)

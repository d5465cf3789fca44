"""What may be on a disk after the power went, in the middle of a trace of file system calls.

The disk may do all that POSIX lets it do, which is more than any real one does:

* What a file was told to hold since its last sync is there, or is not, or is there in part, in any
  order, sector by sector; where a file has grown, zeros or rubbish may stand instead.
* What was done to names since the last sync of their directory is there, or is not, one by one, in
  any order. Making a directory is such a change too, so whatever is in it may go with it. Syncing a
  file says nothing about its name.

A process that is killed while the machine lives on is one of these states: all is there.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torture.recorder import Operation

# Above so many pending changes of names, their orders are drawn instead of all tried.
_ALL_ORDERS_UP_TO = 4
_SECTORS = (512, 4096)


@dataclass(frozen=True)
class State:
    """One state of a directory after a crash.

    Attributes:
        files: What files hold, by path.
        folders: The directories that are there.
        operations: How many operations had been told to the system.
        returned: How many saves had told their caller that they were done.
    """

    files: Mapping[str, bytes]
    folders: frozenset[str]
    operations: int
    returned: int

    def materialise(self, before: str, after: str | os.PathLike[str]) -> None:
        """Put the state on disk, with another directory in place of the recorded one."""
        for folder in sorted(self.folders):
            Path(after, os.path.relpath(folder, before)).mkdir(parents=True, exist_ok=True)
        for path, data in self.files.items():
            Path(after, os.path.relpath(path, before)).write_bytes(data)


@dataclass
class _Inode:
    synced: bytes = b""
    pending: list[Operation] = field(default_factory=list)

    def now(self) -> bytes:
        return _applied(self.synced, self.pending)


@dataclass
class _Disk:
    root: str
    names: dict[str, int]
    inodes: dict[int, _Inode]
    folders: set[str]
    pending: list[Operation] = field(default_factory=list)

    def tell(self, told: Operation) -> None:
        if told.kind in ("create", "rename", "unlink", "mkdir"):
            if told.kind == "create":
                self.inodes[told.inode] = _Inode()
            self.pending.append(told)
        elif told.kind in ("write", "truncate"):
            self.inodes[told.inode].pending.append(told)
        elif told.kind == "sync":
            inode = self.inodes[told.inode]
            inode.synced, inode.pending = inode.now(), []
        elif told.kind == "sync_directory":
            done = [o for o in self.pending if told.path in _parents(o)]
            self.pending = [o for o in self.pending if o not in done]
            for operation in done:
                _rename(operation, self.names, self.folders)


def folder_content(root: str | os.PathLike[str]) -> dict[str, bytes]:
    """Return what all files below a directory hold, by absolute path."""
    return {str(p): p.read_bytes() for p in sorted(Path(root).rglob("*")) if p.is_file()}


def numbered(root: str | os.PathLike[str]) -> dict[str, tuple[int, bytes]]:
    """Return inode and content of all files below a directory: where a trace begins."""
    return {
        str(path): (path.stat().st_ino, path.read_bytes())
        for path in sorted(Path(os.path.realpath(root)).rglob("*"))
        if path.is_file()
    }


def crash_states(
    root: str,
    before: Mapping[str, tuple[int, bytes]],
    trace: list[Operation],
    seed: int,
    draws: int,
) -> Iterator[State]:
    """Yield what may be there after a crash, for every instant of a trace.

    Args:
        root: The directory.
        before: What was there, durably, when the trace began; see `numbered`.
        trace: What was done.
        seed: For what is drawn.
        draws: How many ways of losing sectors are drawn for each instant and set of names, beside
            the four extreme ones.
    """
    chosen, disk = random.Random(seed), _disk(root, before)
    returned = count = 0
    for told in [None, *trace]:
        if told is not None:
            disk.tell(told)
            returned += told.kind == "returned"
            count += 1
        for names, folders in _namings(disk, chosen):
            for contents in _contents(disk, names, chosen, draws):
                files = {path: contents[inode] for path, inode in names.items()}
                yield State(files, frozenset(folders), count, returned)


def replayed(
    root: str, before: Mapping[str, tuple[int, bytes]], trace: list[Operation]
) -> dict[str, bytes]:
    """Return what the files of a directory hold after a whole trace, without any crash."""
    disk = _disk(root, before)
    for told in trace:
        disk.tell(told)
    for operation in disk.pending:
        _rename(operation, disk.names, disk.folders)
    return {path: disk.inodes[inode].now() for path, inode in disk.names.items()}


def _disk(root: str, before: Mapping[str, tuple[int, bytes]]) -> _Disk:
    parents = {str(folder) for path in before for folder in Path(path).parents}
    return _Disk(
        root,
        {path: inode for path, (inode, _) in before.items()},
        {inode: _Inode(data) for inode, data in before.values()},
        {root, *(folder for folder in parents if folder.startswith(root + os.sep))},
    )


def _parents(operation: Operation) -> set[str]:
    return {os.path.dirname(path) for path in (operation.path, operation.target) if path}


def _rename(operation: Operation, names: dict[str, int], folders: set[str]) -> None:
    """Do to names what an operation does, wherever it comes in the order."""
    if operation.kind == "create":
        names[operation.path] = operation.inode
    elif operation.kind == "unlink":
        names.pop(operation.path, None)
    elif operation.kind == "mkdir":
        folders.add(operation.path)
    elif operation.kind == "rename":
        names.pop(operation.path, None)
        names[operation.target] = operation.inode


def _namings(disk: _Disk, chosen: random.Random) -> Iterator[tuple[dict[str, int], set[str]]]:
    seen = set()
    for done in _orders(disk.pending, chosen):
        names, folders = dict(disk.names), set(disk.folders)
        for operation in done:
            _rename(operation, names, folders)
        _drop_what_has_no_folder(disk.root, names, folders)
        key = (frozenset(names.items()), frozenset(folders))
        if key not in seen:
            seen.add(key)
            yield names, folders


def _orders(pending: list[Operation], chosen: random.Random) -> Iterator[tuple[Operation, ...]]:
    if len(pending) <= _ALL_ORDERS_UP_TO:
        for length in range(len(pending) + 1):
            yield from itertools.permutations(pending, length)
        return
    yield ()
    yield tuple(pending)
    for _ in range(60):
        yield tuple(chosen.sample(pending, chosen.randrange(len(pending) + 1)))


def _drop_what_has_no_folder(root: str, names: dict[str, int], folders: set[str]) -> None:
    for folder in sorted(folders):
        if folder != root and os.path.dirname(folder) not in folders:
            folders.discard(folder)
    for path in [path for path in names if os.path.dirname(path) not in folders]:
        del names[path]


def _contents(
    disk: _Disk, names: Mapping[str, int], chosen: random.Random, draws: int
) -> Iterator[dict[int, bytes]]:
    visible = {inode: disk.inodes[inode] for inode in names.values()}
    settled = {number: inode.synced for number, inode in visible.items()}
    yield settled
    unsettled = {number: inode for number, inode in visible.items() if inode.pending}
    if not unsettled:
        return
    yield settled | {number: inode.now() for number, inode in unsettled.items()}
    for filling in (b"\0", b"\xa5"):
        yield settled | {
            number: inode.synced.ljust(len(inode.now()), filling)
            for number, inode in unsettled.items()
        }
    for _ in range(draws):
        yield settled | {number: _torn(inode, chosen) for number, inode in unsettled.items()}


def _applied(data: bytes, operations: list[Operation]) -> bytes:
    content = bytearray(data)
    for operation in operations:
        end = operation.offset + len(operation.data)
        content.extend(bytes(max(end - len(content), 0)))
        if operation.kind == "truncate":
            del content[operation.offset :]
        content[operation.offset : end] = operation.data
    return bytes(content)


def _torn(inode: _Inode, chosen: random.Random) -> bytes:
    """Return a file in which some of what was not synced is there, sector by sector."""
    if chosen.random() < 0.5:
        # The writes came in order, and the last of them was cut off.
        count = chosen.randrange(len(inode.pending))
        last = inode.pending[count]
        cut = chosen.randrange(len(last.data) + 1) // 512 * 512
        part = Operation("write", inode=last.inode, offset=last.offset, data=last.data[:cut])
        return _applied(inode.synced, [*inode.pending[:count], part])
    sector, now = chosen.choice(_SECTORS), inode.now()
    filling = chosen.choice((b"\0", b"\xa5"))
    old = inode.synced.ljust(len(now), filling)[: len(now)]
    share = chosen.random()
    pieces = []
    for start in range(0, len(now), sector):
        source = now if chosen.random() < share else old
        pieces.append(source[start : start + sector])
    content = b"".join(pieces)
    return content[: chosen.randrange(len(content) + 1)] if chosen.random() < 0.3 else content

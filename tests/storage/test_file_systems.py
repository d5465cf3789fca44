"""Each system call of a save and a load, with each errno that file systems answer with.

`ANSWERS` names every call of `os`, `fcntl` and `shutil` in `storage/` and `formats/`. One that is
not in it has to be added, with what happens when a file system refuses it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_ckpt_tools
from keras_ckpt_tools.errors import CommitError, PathInUseError
from keras_ckpt_tools.formats.common.safe_open import open_regular
from keras_ckpt_tools.formats.hdf5.layout import Dataset, Structure, lay_out
from keras_ckpt_tools.formats.hdf5.window import Window, pread_into
from keras_ckpt_tools.runs import checkpoints
from keras_ckpt_tools.storage import file_systems
from keras_ckpt_tools.storage.commit import STAGED_SUFFIX, remove_leftovers, staged
from keras_ckpt_tools.storage.commit_set import remove_abandoned, remove_set, staged_set
from keras_ckpt_tools.storage.directory_lock import Occupancy, is_occupied

ENOTSUPP = 524
ERRNOS = (
    errno.EACCES,
    errno.EAGAIN,
    errno.EBADF,
    errno.EBUSY,
    errno.EDQUOT,
    errno.EINVAL,
    errno.EIO,
    errno.EISDIR,
    errno.ENOLCK,
    errno.ENOSPC,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
    errno.EXDEV,
    ENOTSUPP,
)
NOT_SUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, ENOTSUPP}
NO_DIRECTORY_SYNC = NOT_SUPPORTED | {
    errno.EBADF,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
}

# What happens to a save: the errnos with which it is made and warned of once; those with which it
# is made without a word; with all others it raises `CommitError`, and the old file is unchanged.
EVERY = set(ERRNOS)
SAVED: dict[str, set[int]] = {
    "fcntl.flock": EVERY,
    "os.fsync of a file": NOT_SUPPORTED,
    "os.fsync of a directory": NO_DIRECTORY_SYNC,
    "os.open of a directory": NO_DIRECTORY_SYNC,
    "os.open of a new file": set(),
    "os.replace": set(),
}
SAVED_IN_SILENCE: dict[str, set[int]] = {"os.scandir": EVERY}

# Calls of the whole of `storage/` and `formats/`, and where it is decided what happens.
ANSWERS = {
    "fcntl.flock": "SAVED",
    "os.fsync": "SAVED",
    "os.open": "SAVED; a file that cannot be opened for reading is an error",
    "os.replace": "SAVED",
    "os.rename": "SAVED, for the TensorFlow format",
    "os.scandir": "SAVED_IN_SILENCE; where a directory is read, an error",
    "os.link": "a copy instead",
    "os.unlink": "what is too much stays, and that is an error; see `remove_files`",
    "os.close": "only after a commit, or of what was only read",
    "os.dup": "as `os.fsync`",
    "os.fstat": "of an open file; an error is that of the save or load",
    "os.stat": "an error is that of the save or load",
    "os.lstat": "an error is that of the save or load",
    "os.readlink": "an error is that of the load",
    "os.listdir": "without it no checkpoint has a number: an error",
    "os.pread": "an error is that of the load",
    "os.preadv": "`os.pread` instead",
    "os.read": "of a pipe, or an error of the load",
    "os.fdopen": "no call of the file system",
    "os.makedirs": "of a directory for temporary files",
    "os.sysconf": "no call of the file system",
    "os.walk": "passes over what it cannot read",
    "os.setpriority": "no call of the file system",
    "os.register_at_fork": "no call of the file system",
    "os.fspath": "no call of the file system",
    "os.fsdecode": "no call of the file system",
    "os._exit": "no call of the file system",
    "shutil.disk_usage": "of the directory for temporary files",
    "shutil.copyfileobj": "between open files",
}


@pytest.fixture(autouse=True)
def warned_of_nothing_yet() -> None:
    """Each test sees the first warning of its kind."""
    file_systems.forget_warnings()


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """A function that makes a call fail with an errno, below the test's directory."""

    def make(call: str, number: int) -> None:
        name, _, which = call.partition(" of a ")
        module_name, name = name.split(".")
        module: Any = {"os": os, "fcntl": fcntl, "shutil": shutil}[module_name]
        original = getattr(module, name)

        def refused(*arguments: Any, **options: Any) -> Any:
            if which and not _is(which, name, arguments):
                return original(*arguments, **options)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(module, name, refused)

    return make


def _is(which: str, name: str, arguments: Any) -> bool:
    if name == "open":
        wanted = os.O_CREAT if which == "new file" else os.O_DIRECTORY
        return bool(arguments[1] & wanted)
    mode = os.fstat(arguments[0]).st_mode
    return stat.S_ISDIR(mode) if which == "directory" else stat.S_ISREG(mode)


def _cases(table: dict[str, set[int]]) -> Iterator[tuple[str, int]]:
    return ((call, number) for call in table for number in ERRNOS)


def _save(path: Path, content: bytes) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with staged(path) as file:
            file.write(content)
    return caught


@pytest.mark.parametrize(("call", "number"), [*_cases(SAVED), *_cases(SAVED_IN_SILENCE)])
def test_a_refused_call_either_saves_or_leaves_the_old_file(
    call: str, number: int, tmp_path: Path, refuse: Callable[[str, int], None]
) -> None:
    """Nothing in between, and never an error without a remedy."""
    target = tmp_path / "a.bin"
    _save(target, b"old")
    refuse(call, number)
    if number in SAVED.get(call, set()) | SAVED_IN_SILENCE.get(call, set()):
        first, second = _save(target, b"new"), _save(target, b"newer")
        assert target.read_bytes() == b"newer"
        assert len(first) == (call in SAVED)
        assert second == []
        return
    with pytest.raises(CommitError) as caught:
        _save(target, b"new")
    assert caught.value.errno == number
    committed = call.endswith("directory")
    assert target.read_bytes() == (b"new" if committed else b"old")
    assert ("in place" in str(caught.value)) == committed
    assert [name for name in os.listdir(tmp_path) if name.endswith(STAGED_SUFFIX)] == []


# Several files are opened in a directory of their own, and renamed from there.
SETS = {call: SAVED.get(call, set()) for call in (*list(SAVED)[:4], "os.rename")}


@pytest.mark.parametrize(("call", "number"), list(_cases(SETS)))
def test_a_set_of_files_is_saved_or_not_at_all(
    call: str, number: int, tmp_path: Path, refuse: Callable[[str, int], None]
) -> None:
    """The same answers for the several files of a TensorFlow checkpoint."""
    prefix, ends = str(tmp_path / "run-1"), [".data", ".record"]
    refuse(call, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.ExitStack() as expected:
            if number not in SETS[call]:
                expected.enter_context(pytest.raises(CommitError))
            _save_set(prefix, ends)
    complete = {"run-1.data", "run-1.record"}
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} in (complete, set())


@pytest.mark.parametrize("number", ERRNOS)
@pytest.mark.parametrize("call", ["fcntl.flock", "os.open of a directory"])
def test_a_directory_that_cannot_be_locked_is_used_without(
    call: str, number: int, tmp_path: Path, refuse: Callable[[str, int], None]
) -> None:
    """Only a lock that another process holds keeps a run out."""
    refuse(call, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = Occupancy(tmp_path)
        if number == errno.EAGAIN and call == "fcntl.flock":
            with pytest.raises(PathInUseError):
                held.take()
            assert is_occupied(tmp_path)
            return
        held.take()
        assert not is_occupied(tmp_path)
        held.release()


def test_every_system_call_has_its_answer() -> None:
    """A new one has to be added to `ANSWERS`, with what happens when it is refused."""
    package = Path(keras_ckpt_tools.__file__).parent
    calls = {
        found
        for folder in ("storage", "formats", "live", "matching", "runs")
        for path in (package / folder).rglob("*.py")
        for found in re.findall(r"\b(?:os|fcntl|shutil)\.[a-z_]+(?=\()", path.read_text())
    }
    assert calls == set(ANSWERS)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, ENOTSUPP])
def test_reading_does_without_preadv(
    number: int, tmp_path: Path, refuse: Callable[[str, int], None]
) -> None:
    """Where a file system cannot read into given memory."""
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(100)))
    refuse("os.preadv", number)
    with path.open("rb") as file:
        array = np.zeros(10, np.uint8)
        assert pread_into(file.fileno(), memoryview(array), 95) == 5
        assert array.tolist() == [95, 96, 97, 98, 99, 0, 0, 0, 0, 0]
        buffer = bytearray(4)
        assert Window(file.fileno(), 10, 20).readinto(buffer) == 4
        assert bytes(buffer) == bytes(range(10, 14))


def test_an_error_of_reading_is_not_hidden(
    tmp_path: Path, refuse: Callable[[str, int], None]
) -> None:
    """An I/O error is no missing call."""
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100))
    refuse("os.preadv", errno.EIO)
    with path.open("rb") as file, pytest.raises(OSError, match="Input/output"):
        pread_into(file.fileno(), memoryview(bytearray(10)), 0)


def _save_set(prefix: str, ends: list[str]) -> None:
    with staged_set(prefix, ends) as files:
        for file in files.values():
            file.write(b"new")


def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(ENOTSUPP, os.strerror(ENOTSUPP))

    monkeypatch.setattr(fcntl, "flock", refused)


def test_without_locks_only_leftovers_of_yesterday_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour may still be writing the others."""
    target = tmp_path / "a.bin"
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _no_locks(patch)
        with staged(target):
            (name,) = os.listdir(tmp_path)
    leftover = tmp_path / name
    leftover.write_bytes(b"half")
    # This process can lock: the one that wrote the file could not.
    assert remove_leftovers(target) == ()
    os.utime(leftover, (0, 0))
    assert remove_leftovers(target) == (leftover,)


def test_a_set_without_locks_is_cleared_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for the staging directory of several files."""
    ends = [".data", ".record"]
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _no_locks(patch)
        with staged_set(str(tmp_path / "run-1"), ends):
            (name,) = os.listdir(tmp_path)
    folder = tmp_path / name
    folder.mkdir()
    remove_abandoned(tmp_path, lambda name: name == "run-1", ends)
    assert folder.exists()
    os.utime(folder, (0, 0))
    remove_abandoned(tmp_path, lambda name: name == "run-1", ends)
    assert not folder.exists()
    remove_set(str(tmp_path / "run-1"), ends)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_counts_of_links_can_be_staged_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every file is said to have none, the name tells whether it is there."""
    original = os.fstat

    def without_links(descriptor: int) -> os.stat_result:
        values = list(original(descriptor))
        values[stat.ST_NLINK] = 0
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", without_links)
    _save(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_a_rename_that_was_done_and_then_denied_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose answer was lost is asked again, and knows no such file."""
    original = os.replace

    def twice(source: Any, target: Any) -> None:
        original(source, target)
        original(source, target)

    monkeypatch.setattr(os, "replace", twice)
    _save(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_what_a_close_reports_is_known_before_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no sync, a server says at a close that it has no space."""
    original = os.dup

    def full(descriptor: int) -> int:
        os.close(original(descriptor))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def unsupported(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    _save(tmp_path / "a.bin", b"old")
    monkeypatch.setattr(os, "fsync", unsupported)
    monkeypatch.setattr(os, "dup", full)
    with pytest.raises(CommitError, match="Free space"):
        _save(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EXDEV, errno.EBUSY])
def test_a_file_system_that_cannot_replace_files_is_named(
    number: int, tmp_path: Path, refuse: Callable[[str, int], None]
) -> None:
    """With a way that works."""
    refuse("os.replace", number)
    with pytest.raises(CommitError, match="Save to a local directory"):
        _save(tmp_path / "a.bin", b"new")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, ENOTSUPP])
def test_a_file_is_opened_without_flags_that_are_not_known(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`O_NONBLOCK` says nothing about a regular file."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"content")
    original = os.open

    def picky(name: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_NONBLOCK:
            raise OSError(number, os.strerror(number))
        return original(name, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", picky)
    descriptor = open_regular(str(path))
    assert descriptor is not None
    assert os.read(descriptor, 100) == b"content"
    os.close(descriptor)


def test_a_layout_does_without_a_file_in_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files without a name cannot be made, the directory for temporary files will do."""
    structure = Structure((Dataset("a", (3,), np.dtype("<f4")),), (), (), 512)
    expected = lay_out(structure)
    original = tempfile.TemporaryFile

    def refused(dir: str | None = None) -> Any:
        if dir is not None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return original()

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    assert lay_out(structure, str(tmp_path)) == expected


@pytest.mark.parametrize("call", ["fcntl.flock", "os.scandir"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, ENOTSUPP])
def test_checkpoints_are_listed_without_cleaning_up(
    call: str, number: int, tmp_path: Path, refuse: Callable[[str, int], None]
) -> None:
    """Cleaning up is never a reason to fail."""
    refuse(call, number)
    checkpoints.clear_leftovers(tmp_path)
    assert checkpoints.next_number(tmp_path) == 1

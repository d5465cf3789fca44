"""Staging and committing files, with real failures and real kills."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keras_ckpt_tools.errors import CommitError
from keras_ckpt_tools.storage.commit import STAGED_SUFFIX, also_under, remove_leftovers, staged


def _in_child(action: Callable[[], None]) -> int:
    """Run something in a forked child; return its exit status (0 if it did not raise)."""
    child = os.fork()
    if not child:
        try:
            action()
            os._exit(0)
        except BaseException:  # noqa: BLE001 (the child must end here, whatever it was)
            import traceback

            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _save(target: Path, data: Any) -> None:
    with staged(target) as file:
        file.write(b"begin")
        file.write(data)


def test_a_file_is_visible_when_it_is_whole(tmp_path: Path) -> None:
    """Not before the block ends, and all of it after."""
    target = tmp_path / "a.bin"
    with staged(target) as file:
        file.write(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_failed_save_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    """An exception in the block changes nothing."""
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(TypeError):
        _save(target, [b"not bytes"])
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_full_disk_is_told_and_harms_nothing(tmp_path: Path) -> None:
    """A file that may not grow: the old one is unchanged, and nothing is left beside it."""
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def save_under_a_limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(CommitError) as caught:
            _save(target, bytes(5000))
        assert caught.value.errno == errno.EFBIG
        assert "unchanged" in str(caught.value)
        assert str(target) in str(caught.value)

    assert _in_child(save_under_a_limit) == 0
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become somebody else")
def test_no_permission_is_told(tmp_path: Path) -> None:
    """A directory that may not be written to."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents[:-1]):
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)

    def save_as_nobody() -> None:
        os.setuid(65534)
        with pytest.raises(CommitError, match="may write to"):
            _save(folder / "a.bin", b"")

    assert _in_child(save_as_nobody) == 0
    assert list(folder.iterdir()) == []


def test_a_part_of_the_path_that_is_a_file_is_told(tmp_path: Path) -> None:
    """The message says which remedy fits."""
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(CommitError, match="a part of that path is a file"):
        _save(tmp_path / "file" / "a.bin", b"")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that it points to is replaced."""
    real = tmp_path / "real" / "a.bin"
    real.parent.mkdir()
    real.write_bytes(b"old")
    link = tmp_path / "link.bin"
    link.symlink_to(real)
    with staged(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    """As for any file that a program makes."""
    before = os.umask(0o027)
    try:
        with staged(tmp_path / "a.bin"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


_WRITER = """
import sys, time
from keras_ckpt_tools.storage.commit import staged
with staged(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("staged", flush=True)
    time.sleep(60)
"""


def _start_writer(target: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "staged\n"
    return child


def _kill(child: subprocess.Popen[Any]) -> None:
    child.kill()
    child.communicate()


def _staged_files(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.name.endswith(STAGED_SUFFIX)]


def test_a_leftover_of_a_killed_writer_is_cleared_away(tmp_path: Path) -> None:
    """The next save of the same file removes what a SIGKILL left."""
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    child = _start_writer(target)
    _kill(child)
    assert len(_staged_files(tmp_path)) == 1
    assert target.read_bytes() == b"old"
    with staged(target) as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"
    assert _staged_files(tmp_path) == []


def test_the_work_of_a_living_neighbour_is_left_alone(tmp_path: Path) -> None:
    """Two processes may stage the same target; neither removes the other's file."""
    target = tmp_path / "a.bin"
    child = _start_writer(target)
    try:
        assert remove_leftovers(target) == ()
        with staged(target) as file:
            file.write(b"mine")
        assert len(_staged_files(tmp_path)) == 1
    finally:
        _kill(child)


def test_files_of_others_with_similar_names_are_left_alone(tmp_path: Path) -> None:
    """Only our suffix, for this very target."""
    for name in (".a.bin.swp", f".b.bin.12345678{STAGED_SUFFIX}", "a.bin.tmp"):
        (tmp_path / name).write_bytes(b"theirs")
    assert remove_leftovers(tmp_path / "a.bin") == ()
    assert len(list(tmp_path.iterdir())) == 3


_REWRITER = """
import sys
from keras_ckpt_tools.storage.commit import staged
print("ready", flush=True)
n = 0
while True:
    n += 1
    with staged(sys.argv[1]) as file:
        file.write(n.to_bytes(8, "little") * 200_000)
"""


def test_a_writer_killed_at_any_instant_leaves_one_whole_file(tmp_path: Path) -> None:
    """Ten SIGKILLs inside a loop of saves onto one path: whole each time, and never older."""
    target = tmp_path / "a.bin"
    with staged(target) as file:
        file.write((0).to_bytes(8, "little") * 200_000)
    for round_ in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", _REWRITER, str(target)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.003 * round_)
        _kill(child)
        data = target.read_bytes()
        assert len(data) == 1_600_000
        assert data == data[:8] * 200_000


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_is_replaced_in_one_step(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a link, or by a copy where a file system has none."""
    if not links:

        def refused(*_: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refused)
    for content in (b"one", b"two"):
        _save(tmp_path / "a.bin", content)
        for _ in range(2):
            also_under(tmp_path / "a.bin", tmp_path / "last.bin")
        assert (tmp_path / "last.bin").read_bytes() == b"begin" + content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "last.bin"]
    assert os.path.samefile(tmp_path / "a.bin", tmp_path / "last.bin") == links
    _save(tmp_path / "a.bin", b"three")
    assert (tmp_path / "last.bin").read_bytes() == b"begintwo"


def test_a_second_name_that_cannot_be_given_is_told(tmp_path: Path) -> None:
    """And what is there stays."""
    _save(tmp_path / "a.bin", b"one")
    (tmp_path / "last.bin").mkdir()
    with pytest.raises(CommitError, match=r"last\.bin"):
        also_under(tmp_path / "a.bin", tmp_path / "last.bin")
    assert (tmp_path / "last.bin").is_dir()

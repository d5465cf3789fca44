"""One process per directory of checkpoints."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from keras_ckpt_tools.errors import PathInUseError
from keras_ckpt_tools.storage.directory_lock import Occupancy


def _can_another_process_take(directory: Path) -> bool:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        # As a process that was started anew: nothing of this one's is held.
        for descriptor, _ in Occupancy._shared.values():
            os.close(descriptor)
        Occupancy._shared.clear()
        try:
            Occupancy(directory).take()
        except PathInUseError as error:
            os.write(writing, str(error).encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        message = told.read()
    free = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert free or "another directory" in message
    return free


def test_the_second_process_is_told(tmp_path: Path) -> None:
    """While the first lives and has not given the directory back."""
    held = Occupancy(tmp_path)
    assert _can_another_process_take(tmp_path)
    held.take()
    assert not _can_another_process_take(tmp_path)
    held.release()
    assert _can_another_process_take(tmp_path)


def test_one_process_shares_it(tmp_path: Path) -> None:
    """It is free when the last holder has given it back."""
    one, two = Occupancy(tmp_path), Occupancy(tmp_path)
    one.take()
    two.take()
    one.release()
    assert not _can_another_process_take(tmp_path)
    two.release()
    assert _can_another_process_take(tmp_path)


def test_a_forgotten_holder_gives_it_back(tmp_path: Path) -> None:
    """A manager that goes out of scope does not hold its directory for ever."""
    held = Occupancy(tmp_path)
    held.take()
    del held
    gc.collect()
    assert _can_another_process_take(tmp_path)


def test_nothing_is_left_in_the_directory(tmp_path: Path) -> None:
    """The lock is on the directory itself."""
    Occupancy(tmp_path / "run").take()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_process_that_may_not_share_raises(tmp_path: Path) -> None:
    """The error carries the path."""
    import fcntl

    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(PathInUseError) as caught:
        Occupancy(tmp_path).take()
    assert caught.value.path == str(tmp_path)
    os.close(descriptor)


def test_a_renamed_directory_is_still_this_process_own(tmp_path: Path) -> None:
    """The one who holds it is not another process."""
    held = Occupancy(tmp_path / "old")
    held.take()
    (tmp_path / "old").rename(tmp_path / "new")
    moved = Occupancy(tmp_path / "new")
    moved.take()
    assert not _can_another_process_take(tmp_path / "new")
    held.release()
    moved.release()
    assert _can_another_process_take(tmp_path / "new")


def test_another_directory_at_the_old_path_is_taken_too(tmp_path: Path) -> None:
    """After a rename, the holder of the path holds what is there now."""
    held = Occupancy(tmp_path / "run")
    held.take()
    (tmp_path / "run").rename(tmp_path / "moved")
    held.take()
    assert not _can_another_process_take(tmp_path / "run")
    assert _can_another_process_take(tmp_path / "moved")

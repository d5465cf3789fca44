"""No room, no rights: the old file stays byte for byte, the error says so, and nothing is left.

With real causes: a small file system that is full to different degrees, a limit on the length of
files, a directory that becomes read-only in the middle of a save.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torture.crash_states import folder_content
from torture.scenarios import SCENARIOS, Save, Scenario, newest_in, ours_in

from keras_ckpt_tools.errors import CommitError
from keras_ckpt_tools.storage.commit import STAGED_SUFFIX

# One of each format and each way to save.
_SOME = [scenario for scenario in SCENARIOS if scenario.saves_before == 1]


@contextmanager
def _small_disk(place: Path, kib: int) -> Iterator[Path]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root may mount a small disk")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _save_in_vain(save: Save, number: int) -> CommitError | None:
    try:
        save(number)
    except CommitError as error:
        return error
    return None


@pytest.mark.parametrize("scenario", _SOME, ids=str)
def test_a_disk_that_runs_full_anywhere_in_a_save_harms_nothing(
    scenario: Scenario, tmp_path: Path, long_form: bool, tell: Callable[[str], None]
) -> None:
    """Whether there is room for nothing of the new file, for most of it, or for all."""
    with _small_disk(tmp_path / "disk", 1024) as disk:
        save = scenario.start(disk)
        save(1)
        number = 1
        failed = worked = 0
        filler = disk / "notes.txt"
        free_before = os.statvfs(disk).f_bavail
        for pages in range(0, 24, 1 if long_form else 4):
            filler.write_bytes(bytes((free_before - pages) * os.statvfs(disk).f_bsize))
            before, number = folder_content(disk), number + 1
            error = _save_in_vain(save, number)
            if error is None:
                worked += 1
                assert newest_in(disk) == number
            else:
                failed += 1
                assert "No space left on device" in str(error)
                assert "Free space on that disk" in str(error)
                assert folder_content(disk) == before
            filler.unlink()
            number += 1
            save(number)
            assert newest_in(disk) == number
            assert len(ours_in(disk)) == scenario.files
        assert failed
        assert worked
    tell(f"{scenario}: full disk met {failed} times, {worked} saves just fitted")


def _in_child(action: Callable[[], None]) -> None:
    """Run something in a process of its own: a limit cannot be taken back."""
    child = os.fork()
    if not child:
        status = 1
        try:
            action()
            status = 0
        except BaseException:  # noqa: BLE001 (the child must end here, whatever it was)
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _file(directory: Path) -> tuple[Any, Path]:
    """Return a function that saves without TensorFlow, which does not survive a fork."""
    import numpy as np

    from keras_ckpt_tools.live.snapshot import Snapshot
    from keras_ckpt_tools.metadata import TrainingProgress
    from keras_ckpt_tools.training.writing import prepare_checkpoint

    path = directory / "ckpt-00000001.weights.h5"
    snapshot = Snapshot({f"model/layers/{n}/vars/0": np.full(4000, 1.0) for n in range(8)})

    def save(number: int) -> None:
        progress = TrainingProgress(epochs_completed=number)
        prepare_checkpoint(str(path), snapshot, {}, (), progress)()

    return save, path


def test_a_limit_on_the_length_of_files_is_told(tmp_path: Path, long_form: bool) -> None:
    """`ulimit -f`, at many lengths."""
    save, path = _file(tmp_path)
    save(1)
    whole = path.read_bytes()
    for limit in range(0, len(whole), 1021 if long_form else 20_021):

        def under_a_limit(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            error = _save_in_vain(save, 2)
            assert error is not None
            assert "File too large" in str(error)
            assert "ulimit" in str(error)

        _in_child(under_a_limit)
        assert path.read_bytes() == whole
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become somebody else")
def test_a_directory_made_read_only_in_the_middle_of_a_save(tmp_path: Path) -> None:
    """The staged file cannot be renamed, nor removed; the next save that may, removes it."""
    from keras_ckpt_tools.training import writing

    for folder in (tmp_path, *tmp_path.parents[:-2]):
        if folder.stat().st_uid == 0:
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o055)
    home = tmp_path / "run"
    home.mkdir()
    os.chown(home, 65534, 65534)
    save, path = _file(home)
    _in_child(lambda: (os.setuid(65534), save(1))[1])
    whole = path.read_bytes()

    def while_it_becomes_read_only() -> None:
        os.setuid(65534)
        original = writing.write_weights

        def and_forbid(*arguments: Any) -> Any:
            home.chmod(0o555)
            return original(*arguments)

        writing.write_weights = and_forbid  # type: ignore[assignment]
        error = _save_in_vain(save, 2)
        assert error is not None
        assert "Permission denied" in str(error)
        assert "unchanged" in str(error)
        assert "may write to" in str(error)

    _in_child(while_it_becomes_read_only)
    assert path.read_bytes() == whole
    left = [p for p in home.iterdir() if p != path]
    assert all(p.name.endswith(STAGED_SUFFIX) for p in left)
    home.chmod(0o755)
    _in_child(lambda: (os.setuid(65534), save(3))[1])
    assert list(home.iterdir()) == [path]
    assert path.read_bytes() != whole


def test_a_disk_mounted_read_only_is_told(tmp_path: Path) -> None:
    """Between two saves: nothing can be staged, and nothing is lost."""
    scenario = _SOME[0]
    with _small_disk(tmp_path / "disk", 1024) as disk:
        save = scenario.start(disk)
        save(1)
        before = folder_content(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        error = _save_in_vain(save, 2)
        assert error is not None
        assert "Read-only file system" in str(error)
        assert "not read-only" in str(error)
        assert folder_content(disk) == before
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        save(2)
        assert newest_in(disk) == 2

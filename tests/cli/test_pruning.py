"""`keras-ckpt prune`: shows, asks, looks once more, and only then deletes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from runs_on_disk import manager_run

from keras_ckpt_tools.storage.commit import staged
from keras_ckpt_tools.storage.directory_lock import Occupancy, is_occupied

ROOT = Path(__file__).parents[2]
HELD = """
import sys, time
from keras_ckpt_tools.storage.directory_lock import Occupancy
held = Occupancy(sys.argv[1])
held.take()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def run_dir(tmp_path):
    """A run of six checkpoints, in a folder with spaces."""
    return manager_run(tmp_path / "my run größer", range(1, 7))


def _left(folder):
    return sorted(int(name[5:13]) for name in os.listdir(folder))


def test_without_a_terminal_nothing_is_deleted_unless_agreed_to(cli, run_dir):
    """A script has to say `--yes`; what would go, and why the rest stays, is shown."""
    done = cli("prune", run_dir, "--keep", "last 2, best 1 val_loss min, every 5")
    assert done.exit_code == 1, done
    assert "3 files of 6 to delete, 128 kB of 257 kB" in done.stdout
    assert "keep    ckpt-00000005.weights.h5" in done.stdout
    assert done.stdout.count("delete  ckpt-") == 3
    assert "Nothing was deleted" in done.stdout
    assert _left(run_dir) == [1, 2, 3, 4, 5, 6]
    done = cli("prune", run_dir, "--keep", "last 2, best 1 val_loss min", "--yes")
    assert done.exit_code == 0, done
    assert "Deleted 3 files, 128 kB." in done.stdout
    assert _left(run_dir) == [3, 5, 6]
    assert cli("prune", run_dir, "--keep-last", 3).exit_code == 0  # There is nothing to do.


def test_dry_run_deletes_nothing_whatever_else_is_said(cli, run_dir):
    """And is good: it did what it was asked."""
    done = cli("prune", run_dir, "--keep-last", "1", "--yes", "--dry-run", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["format"], found["status"], found["command"]) == (1, "good", "prune")
    assert (found["deleted"], found["dry_run"], found["bytes"]) == (False, True, 5 * 42756)
    assert [one["goes"] for one in found["files"]] == [True] * 5 + [False]
    assert found["files"][-1]["why"] == "newest, last 1"
    assert len(_left(run_dir)) == 6


def test_options_mean_what_the_text_means(cli, run_dir):
    """The best of a metric that the run did not monitor needs a direction."""

    def goes(*options):
        done = cli("prune", run_dir, "--dry-run", "--json", *options)
        return [one["path"][-14:-11] for one in json.loads(done.stdout)["files"] if one["goes"]]

    options = ["--keep-last", 1, "--keep-best", 2, "--monitor", "val_loss", "--mode", "min"]
    assert goes(*options, "--keep-every", 4) == goes("--keep", "last 1,best 2 val_loss min,every 4")
    assert len(goes(*options)) == 4
    for wrong in (
        [],
        ["--keep", ""],
        ["--keep", "last"],
        ["--keep", "last 0"],
        ["--keep", "newest 3"],
        ["--keep", "best 2"],
        ["--keep", "best 2 val_loss"],
        ["--keep", "best 2 accuracy max"],
        ["--keep-best", 2, "--monitor", "loss"],
        ["--keep-last", 2, "--monitor", "loss"],
        ["--keep-last", 0],
        ["--keep-last", 1, "--pin", "ckpt-9"],
        ["--keep-last", 1, "--run-id", "nobody"],
    ):
        done = cli("prune", run_dir, "--yes", *wrong)
        assert done.exit_code == 2, (wrong, done)
    assert len(_left(run_dir)) == 6


def test_damaged_files_stay_and_are_named(cli, run_dir):
    """The exit status says so; the newest that is whole stays as well."""
    (run_dir / "ckpt-00000006.weights.h5").write_bytes(b"\x93KCT\r\n\x1a\n")
    done = cli("prune", run_dir, "--keep-last", 1, "--yes")
    assert done.exit_code == 1, done
    assert "ckpt-00000006.weights.h5: it ends after 8 bytes" in done.stdout
    assert _left(run_dir) == [5, 6]


def test_directory_in_use_is_left_alone(cli, run_dir):
    """Of a process that saves there, now or in a moment; when it has ended, it is free."""
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, str(run_dir)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "held\n"
        assert is_occupied(run_dir)
        for options in ((), ("--dry-run",), ("--json",)):
            done = cli("prune", run_dir, "--keep-last", 1, "--yes", *options)
            assert done.exit_code == 1, done
            assert "A running program saves" in done.output
    finally:
        process.kill()
        process.communicate()
    assert not is_occupied(run_dir)
    with staged(run_dir / "ckpt-00000007.weights.h5"):
        assert cli("prune", run_dir, "--keep-last", 1, "--yes").exit_code == 1
    assert len(_left(run_dir)) == 7


def test_asking_does_not_keep_a_run_from_beginning(tmp_path):
    """Who takes the directory while somebody asks whether it is taken, gets it."""
    import fcntl
    import threading

    asking = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Timer(0.02, os.close, [asking]).start()
    occupancy = Occupancy(tmp_path)
    occupancy.take()
    occupancy.release()


def test_path_without_checkpoints_exits_with_2(cli, tmp_path):
    """A file, nothing, or an empty directory."""
    for path in (tmp_path, tmp_path / "none", Path(__file__)):
        assert cli("prune", path, "--keep-last", 1).exit_code == 2
    done = cli("prune", tmp_path, "--keep-last", 1, "--json")
    assert json.loads(done.stdout)["status"] == "unreadable"


def _asked(folder, answer, meanwhile=None):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_ckpt_tools", "prune", str(folder), "--keep-last", "2"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "dumb", "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )  # fmt: skip
    os.close(theirs)
    text = b""
    try:
        while b"[y/N]" not in text:
            text += os.read(ours, 4096)
        if meanwhile:
            meanwhile()
        os.write(ours, answer.encode() + b"\n")
        while data := os.read(ours, 4096):
            text += data
    except OSError:
        pass  # So Linux says that the other end is closed.
    finally:
        os.close(ours)
        process.wait(30)
    return process.returncode, text.decode()


def test_terminal_is_asked(run_dir):
    """No, and nothing else, is the default."""
    status, text = _asked(run_dir, "")
    assert (status, len(_left(run_dir))) == (1, 6), text
    assert "Delete 4 files, 171 kB?" in text
    status, text = _asked(run_dir, "y")
    assert (status, _left(run_dir)) == (0, [5, 6]), text


def test_what_has_changed_since_it_was_shown_is_not_deleted(run_dir):
    """A run went on while the question stood there."""
    status, text = _asked(run_dir, "y", lambda: manager_run(run_dir, [7]))
    assert status == 1
    assert "has changed since it was shown" in text
    assert len(_left(run_dir)) == 7

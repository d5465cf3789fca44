"""`keras-ckpt ls`: what is in the directories of runs, for people and for programs."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile.parts import members, written, zipped
from runs_on_disk import file_run, manager_run, progress_of, weights

from keras_ckpt_tools.metadata import Best

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_dir(tmp_path):
    """A run of five checkpoints, the third of which is the best."""
    folder = manager_run(tmp_path / "my run größer 模型", range(1, 5))
    data = weights(**progress_of(5), best=Best("val_loss", "min", 0.01, 2))
    written(folder / "ckpt-00000005.weights.h5", data)
    return folder


def test_table_has_progress_metrics_best_age_size_and_state(cli, run_dir):
    """One row for each, the newest last, the best marked."""
    done = cli("ls", run_dir)
    assert done.exit_code == 0, done
    caption, header, *rows = done.stdout.splitlines()
    assert caption.startswith(f"{run_dir}: 5 checkpoints, 214 kB, 5 epochs completed, step 50, ")
    assert "best val_loss 0.01 in epoch 2 (from 0)" in caption
    assert header.split() == ["name", "epochs", "step", "loss", "val_loss", "age", "size", "state"]
    assert [row.split()[0] for row in rows[:5]] == [
        "ckpt-00000001.weights.h5", "ckpt-00000002.weights.h5", "*", "ckpt-00000004.weights.h5",
        "ckpt-00000005.weights.h5",
    ]  # fmt: skip
    assert rows[2].split()[2:6] == ["3", "30", "0.3333", "0.01"]
    assert rows[2].endswith(" d  42.8 kB  whole")
    assert "verify" in rows[-1]


def test_json_says_the_same_and_more(cli, run_dir):
    """One object with the format in front, and numbers that are numbers."""
    found = json.loads(cli("ls", "--json", run_dir).stdout)
    assert (found["format"], found["status"], found["command"]) == (1, "good", "ls")
    (run,) = found["runs"]
    assert run["path"] == str(run_dir)
    assert run["best"].endswith("ckpt-00000003.weights.h5")
    assert len(run["progress"]["history"]["loss"]) == 5
    first = run["checkpoints"][0]
    assert (first["epochs_completed"], first["step"], first["state"]) == (1, 10, "whole")
    assert first["logs"] == {"loss": 1.0, "val_loss": 1.0}
    assert first["size"] == 42756


def test_damage_exits_with_1_and_is_named(cli, run_dir):
    """Files of others are no problem."""
    written(run_dir / "stock.keras", zipped(members()))
    assert cli("ls", run_dir).exit_code == 0
    (run_dir / "ckpt-00000002.weights.h5").write_bytes(b"")
    done = cli("ls", run_dir)
    assert done.exit_code == 1
    assert "ckpt-00000002.weights.h5: damaged: empty: it has no bytes" in done.stdout
    assert "1 third-party file: not written by this package" in done.stdout


def test_what_cannot_be_read_exits_with_2_after_the_rest(cli, run_dir, tmp_path):
    """A script that looks at nothing must not be green."""
    (tmp_path / "empty").mkdir()
    done = cli("ls", run_dir, tmp_path / "empty", tmp_path / "none")
    assert done.exit_code == 2
    assert "5 checkpoints" in done.stdout
    assert f"{tmp_path / 'empty'}: There is no checkpoint in this directory" in done.stdout
    assert "There is nothing at the path" in done.stdout
    found = json.loads(cli("ls", "--json", tmp_path / "none").stdout)
    assert found["status"] == "unreadable"
    assert found["errors"][0]["path"] == str(tmp_path / "none")


def test_folder_of_runs_is_one_table_for_each(cli, run_dir, tmp_path):
    """Of whatever kind; two runs in one directory are told apart in it."""
    both = file_run(tmp_path / "files", "{epoch}.keras", [1, 2])
    file_run(both, "other-{epoch}.keras", [3], run_id="another")
    found = json.loads(cli("ls", "--json", tmp_path).stdout)
    assert [run["path"] for run in found["runs"]] == [str(both), str(run_dir)]
    table = cli("ls", both).stdout
    assert table.splitlines()[1].split()[-1] == "run"
    assert " another" in table


def test_order_and_columns_are_chosen(cli, run_dir):
    """By a key of their own or by a metric, either way round."""

    def order(*options):
        found = json.loads(cli("ls", "--json", run_dir, *options).stdout)
        return [one["number"] for one in found["runs"][0]["checkpoints"]]

    assert order() == [1, 2, 3, 4, 5]
    assert order("--sort", "step", "--reverse") == [5, 4, 3, 2, 1]
    assert order("--sort", "val_loss") == [3, 5, 4, 2, 1]
    header = cli("ls", run_dir, "--metric", "val_loss").stdout.splitlines()[1]
    assert header.split() == ["name", "epochs", "step", "val_loss", "age", "size", "state"]
    for option in ("--metric", "--sort"):
        done = cli("ls", run_dir, option, "val_los")
        assert done.exit_code == 2
        assert "available: loss, val_loss" in done.stderr


def test_names_of_any_bytes_are_printed(keras_ckpt, tmp_path):
    """Names that are no text in any encoding, and control characters, also in JSON."""
    folder = manager_run(tmp_path / os.fsdecode(b"bad \xff\xfe \x1b[2J"), [1])
    written(folder / os.fsdecode(b"odd\xff.keras"), zipped(members()))
    for options in ((), ("--json",)):
        done = keras_ckpt("ls", *options, folder)
        assert done.returncode == 0, done
        assert done.stderr == ""
        assert "\x1b" not in done.stdout
    found = json.loads(done.stdout)
    assert os.fsencode(found["runs"][0]["path"]) == os.fsencode(folder)


def test_reader_that_has_seen_enough_is_no_error(tmp_path):
    """`keras-ckpt ls run | head -1` prints one line and nothing else."""
    folder = manager_run(tmp_path / "run", range(1, 2))
    for number in range(2, 1500):
        os.link(folder / "ckpt-00000001.weights.h5", folder / f"ckpt-{number:08d}.weights.h5")
    command = f"'{sys.executable}' -m keras_ckpt_tools ls '{folder}' | head -1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


class _Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments, columns=60, lines=24, **environment):
        self.ours, theirs = pty.openpty()
        plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CI")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keras_ckpt_tools", *map(str, arguments)],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**plain, "TERM": "xterm", "COLUMNS": str(columns), "LINES": str(lines),
                 "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
        os.close(theirs)
        self.text = ""

    def read_until(self, wanted, seconds=20.0):
        """Return what was written, up to a text that has to come."""
        end = time.monotonic() + seconds
        while wanted not in self.text:
            assert time.monotonic() < end, self.text
            try:
                self.text += os.read(self.ours, 65536).decode(errors="replace")
            except OSError:
                break
        return self.text

    def rest(self):
        """Return all that was written, when it has ended."""
        self.read_until("\0never\0", 30)
        os.close(self.ours)
        self.process.wait(30)
        return self.text


def test_terminal_has_colours_and_no_line_is_wider(run_dir):
    """Names are shortened in their middle; `NO_COLOR` is respected."""
    shown = _Terminal("ls", run_dir, columns=75, NO_COLOR="1").rest()
    assert "\x1b" not in shown
    assert re.search(r"ckpt-0*\.\.\.\S*h5 ", shown), shown
    assert max(map(len, shown.splitlines())) <= 75
    shown = _Terminal("ls", run_dir, columns=200).rest()
    assert "\x1b[32m  *  ckpt-00000003.weights.h5" in shown
    assert "\x1b" not in _Terminal("ls", run_dir, TERM="dumb").rest()


def _stop(process):
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_watch_prints_where_something_has_changed(tmp_path):
    """Without a terminal; the directory may come later, files may go, and Ctrl-C is the end."""
    folder = tmp_path / "later"
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_ckpt_tools", "ls", "--watch=0.1", "--json", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        first = json.loads(process.stdout.readline())
        assert (first["status"], first["runs"]) == ("unreadable", [])
        manager_run(tmp_path / "aside", [1, 2])
        os.rename(tmp_path / "aside", folder)
        second = json.loads(process.stdout.readline())
        assert [one["number"] for one in second["runs"][0]["checkpoints"]] == [1, 2]
        time.sleep(0.5)  # Nothing changes, and nothing is printed.
        (folder / "ckpt-00000001.weights.h5").unlink()
        third = json.loads(process.stdout.readline())
        assert [one["number"] for one in third["runs"][0]["checkpoints"]] == [2]
        _stop(process)
        assert process.communicate() == ("", "")
    finally:
        process.kill()
        process.communicate()


def test_watch_draws_over_itself_on_a_terminal(run_dir):
    """The newest rows are those that fit; new ones come; Ctrl-C ends it with 0."""
    shown = _Terminal("ls", "--watch", "0.1", run_dir, columns=120, lines=10)
    try:
        shown.read_until("ckpt-00000005.weights.h5")
        assert "earlier" in shown.text
        manager_run(run_dir, [6])
        shown.read_until("ckpt-00000006.weights.h5")
        assert "ckpt-00000001" not in shown.text
        assert "\x1b[1A" in shown.text  # The cursor goes up: it is drawn over.
        _stop(shown.process)
    finally:
        shown.process.kill()
        os.close(shown.ours)


def test_watch_takes_no_path_for_its_number(cli, monkeypatch):
    """`ls --watch run`, `ls --watch 5 run` and `ls run --watch` all mean what they look like."""
    from keras_ckpt_tools.cli import listing

    seen = []
    monkeypatch.setattr(
        listing, "watch_runs", lambda paths, choice, **options: seen.append((paths, options))
    )
    for arguments in (["--watch", "run"], ["run", "--watch"], ["--watch", "5", "run"]):
        assert cli("ls", *arguments).exit_code == 0
    assert [paths for paths, _ in seen] == [("run",)] * 3
    assert [options["every"] for _, options in seen] == [2.0, 2.0, 5.0]
    assert cli("ls", "--watch", "0", "run").exit_code == 2

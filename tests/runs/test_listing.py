"""The directory of a run as light records: what is in it, and how little of it is read."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile.parts import h5_model, members, written, zipped
from runs_on_disk import BEGAN, file_run, manager_run, progress_of, weights

from keras_ckpt_tools.errors import ArtefactNotFoundError
from keras_ckpt_tools.metadata import Best, TrackedObject
from keras_ckpt_tools.runs.listing import State, find_runs, read_run

TESTS = Path(__file__).parents[1]


def test_manager_run_is_read_in_order_with_the_history_of_the_newest(tmp_path):
    """Each has its own logs; the logs of all epochs are in the newest, deleted ones included."""
    best = Best("val_loss", "min", 0.01, 2)
    manager_run(tmp_path, [2, 3, 5, 9])
    data = weights(**progress_of(9), best=best)
    written(tmp_path / "ckpt-00000009.weights.h5", data)
    run = read_run(tmp_path)
    assert [one.number for one in run.checkpoints] == [2, 3, 5, 9]
    assert [one.epoch for one in run.whole] == [2, 3, 5, 9]
    assert run.newest is run.checkpoints[-1]
    assert run.history["loss"] == tuple(1 / n for n in range(1, 10))
    assert run.history_epochs["loss"] == tuple(range(9))
    assert run.best is run.checkpoints[1]
    assert run.missing_numbers == (1, 4, 6, 7, 8)
    assert run.run_id == "one"
    assert run.checkpoints[0].holds == {"_loop"}
    assert run.checkpoints[1].logs["val_loss"] == 0.01


def test_files_of_a_model_checkpoint_are_read(tmp_path):
    """Zips of ours have a pattern and no number."""
    pattern = "{epoch:02d}-{val_loss:.2f}.keras"
    run = read_run(file_run(tmp_path, pattern, range(1, 4)))
    assert [one.name for one in run.checkpoints] == ["01-1.00.keras", "02-0.50.keras",
                                                     "03-0.01.keras"]  # fmt: skip
    assert {one.pattern for one in run.checkpoints} == {pattern}
    assert {one.number for one in run.checkpoints} == {None}
    assert len(run.history["loss"]) == 3


def test_time_in_which_a_run_stood_still_is_a_restart(tmp_path):
    """What passed on the clock and was not trained; another run's clock is its own."""
    manager_run(tmp_path, [1, 2])
    later = {**progress_of(3), "saved_at": BEGAN + 3 * 60 + 500}
    written(tmp_path / "ckpt-00000003.weights.h5", weights(**later))
    other = {**progress_of(1, "other"), "saved_at": BEGAN + 61}
    written(tmp_path / "other.weights.h5", weights(**other))
    run = read_run(tmp_path)
    assert run.run_ids == ("one", "other")
    (restart,) = run.restarts
    assert (restart.epoch, restart.step, restart.stopped_at) == (2, 20, BEGAN + 120)
    assert restart.pause_s == pytest.approx(500)


def test_states_are_told_apart(tmp_path):
    """Damaged, foreign, and not finished by a writer that lives or was killed; all are named."""
    manager_run(tmp_path, [1, 2])
    (tmp_path / "ckpt-00000002.weights.h5").write_bytes(weights()[:9000])
    written(tmp_path / "stock.keras", zipped(members()))
    written(tmp_path / "stock.weights.h5", h5_model())
    written(tmp_path / "empty.keras", b"")
    written(tmp_path / "tf-1.index", b"x")
    written(tmp_path / "tf-1.data-00000-of-00001", b"x")
    written(tmp_path / "tf-2.index", b"x")
    written(tmp_path / "log.csv", b"epoch,loss")
    (tmp_path / "folder.keras").mkdir()
    os.mkfifo(tmp_path / "pipe.keras")
    os.symlink("nowhere", tmp_path / "gone.keras")
    staged = ".ckpt-00000003.weights.h5.{}.kct-staged"
    written(tmp_path / staged.format("00000000"), b"half")
    written(tmp_path / ".events.0000000a.kct-staged", b"another's")
    with (tmp_path / staged.format("0000000f")).open("wb") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        run = read_run(tmp_path)
    found = {one.name: (one.state, one.note) for one in run.checkpoints}
    assert found == {
        "ckpt-00000001.weights.h5": (State.WHOLE, ""),
        "ckpt-00000002.weights.h5": (State.DAMAGED, "truncated at 9,000 of 42,756 bytes"),
        "stock.keras": (State.FOREIGN, "not written by this package"),
        "stock.weights.h5": (State.FOREIGN, "not written by this package"),
        "empty.keras": (State.DAMAGED, "empty: it has no bytes"),
        "gone.keras": (State.FOREIGN, "a link, which is not followed"),
        "tf-1": (State.FOREIGN, "not written by this package"),
        "tf-2": (State.DAMAGED, "its data file is missing"),
        staged.format("00000000"): (
            State.UNFINISHED, "left by a killed writer of ckpt-00000003.weights.h5",
        ),
        staged.format("0000000f"): (
            State.UNFINISHED, "ckpt-00000003.weights.h5 is being written",
        ),
    }  # fmt: skip
    assert run.newest.name == "ckpt-00000001.weights.h5"


def test_best_of_several_follows_mode_and_ignores_nan(tmp_path):
    """As a load with `which="best"` does."""
    best = Best("acc", "max", 0.9, 1)
    for number, value in enumerate((0.5, 0.9, float("nan"), 0.7), 1):
        data = weights(**{**progress_of(number), "logs": {"acc": value}, "best": best})
        written(tmp_path / f"ckpt-{number:08d}.weights.h5", data)
    assert read_run(tmp_path).best.number == 2
    assert [one.best for one in read_run(tmp_path).checkpoints] == [False, True, False, False]


def test_file_that_changed_is_read_again_and_no_other(tmp_path):
    """What was read before is kept by what changes when a file is replaced."""
    manager_run(tmp_path, [1, 2, 3])
    first = read_run(tmp_path)
    manager_run(tmp_path, [4])
    (tmp_path / "ckpt-00000001.weights.h5").unlink()
    second = read_run(tmp_path, known=first)
    assert [one.number for one in second.checkpoints] == [2, 3, 4]
    assert second.checkpoints[0] is first.checkpoints[1]
    assert len(second.history["loss"]) == 4
    again = read_run(tmp_path, known=second)
    assert again == second
    assert again.progress is second.progress
    assert read_run(tmp_path).checkpoints == second.checkpoints


def test_path_may_be_a_file_a_folder_of_runs_or_nothing(tmp_path):
    """Hidden folders, models and links to folders are no runs."""
    manager_run(tmp_path / "a" / "größer 模型", [1])
    file_run(tmp_path / "b", "{epoch}.keras", [1])
    manager_run(tmp_path / ".hidden", [1])
    written(tmp_path / "b" / "model.weights.h5", b"x")
    (tmp_path / "unzipped").mkdir()
    written(tmp_path / "unzipped" / "config.json", b"{}")
    written(tmp_path / "unzipped" / "model.weights.h5", b"x")
    os.symlink(tmp_path, tmp_path / "a" / "up")
    found = [os.path.relpath(place, tmp_path) for place in find_runs(tmp_path)]
    assert found == ["a/größer 模型", "b"]
    run = read_run(tmp_path / "b" / "1.keras")
    assert [one.name for one in run.checkpoints] == ["1.keras"]
    with pytest.raises(ArtefactNotFoundError):
        read_run(tmp_path / "nothing")
    assert read_run(tmp_path / "a").checkpoints == ()


def test_heads_are_read_and_nothing_else(tmp_path):
    """Of a hundred files of 100 MB: one opening, three calls and the record of each."""
    folder = tmp_path / "run"
    tracked = {"model": TrackedObject("model"), "_loop": TrackedObject("run")}
    for number in range(1, 101):
        size = 100_000_000
        progress = progress_of(1) | {"step": number, "saved_at": BEGAN + number}
        data = weights(size=size, **progress, record={"tracked": tracked})
        path = folder / f"ckpt-{number:08d}.weights.h5"
        folder.mkdir(exist_ok=True)
        path.write_bytes(data)
        os.truncate(path, size)  # A hole: it takes no room on the disk.
    code = f"""
import json, sys
from keras_ckpt_tools.runs.listing import read_run

def counters():
    with open("/proc/self/io") as file:
        return {{k: int(v) for k, v in (line.split(": ") for line in file)}}

opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
read_run({str(folder)!r} + "/ckpt-00000001.weights.h5")  # What is imported late is by now.
opened.clear()
before = counters()
run = read_run({str(folder)!r})
after = counters()
names = [name for name in opened if "ckpt-" in str(name)]
again = len(opened)
read_run({str(folder)!r}, known=run)
later = [name for name in opened[again:] if "ckpt-" in str(name)]
print(json.dumps([len(run.whole), len(names), after["rchar"] - before["rchar"],
                  after["syscr"] - before["syscr"], len(later), run.newest.step]))
"""
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    whole, opened, nbytes, calls, later, step = json.loads(done.stdout)
    assert (whole, step) == (100, 100)
    assert opened <= 101  # The newest twice, for its history.
    assert nbytes < 101 * 8192 + 10_000
    assert calls < 3 * 101
    assert later == 0

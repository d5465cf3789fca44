"""Killed, refused and failing: what was there stays, and the run goes on as if nothing had been.

Every interruption is a real one, of a process of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from processes import outcome, run, run_killed
from programs import (
    be_killed_in_the_layout,
    constant_model,
    constant_of,
    fail_to_write,
    fit_with_backup,
    manage_twice,
    tape_loop,
)

import keras_ckpt_tools as kct


@pytest.mark.parametrize(
    ("arguments", "kill_at", "begins_at"),
    [
        pytest.param({}, (2, 1), (2, 0), id="saved by epochs"),
        pytest.param({"save_freq": 3, "max_to_keep": 2}, (2, 2), (2, 1), id="saved by steps"),
    ],
)
def test_a_killed_loop_ends_as_an_uninterrupted_one(
    arguments: dict[str, Any], kill_at: Any, begins_at: Any, tmp_path: Path
) -> None:
    """Weights, momenta, generators, metrics, history, files: the same, bit for bit."""
    whole = run(tape_loop, str(tmp_path / "whole"), 4, arguments)
    directory = str(tmp_path / "killed")
    run_killed(tape_loop, directory, 4, arguments, kill_at)
    resumed = run(tape_loop, directory, 4, arguments)
    done = begins_at[0] * 4 + begins_at[1]
    assert resumed["batches"] == whole["batches"][done:]
    for fact in ("state", "history", "step", "epochs", "files"):
        assert resumed[fact] == whole[fact], fact


def test_a_loop_killed_again_and_again_still_ends_the_same(tmp_path: Path) -> None:
    """Three times, before the first save too."""
    arguments = {"save_freq": 3, "max_to_keep": 1}
    whole = run(tape_loop, str(tmp_path / "whole"), 3, arguments)
    directory = str(tmp_path / "killed")
    for kill_at in ((0, 1), (1, 2), (1, 3)):
        run_killed(tape_loop, directory, 3, arguments, kill_at)
    resumed = run(tape_loop, directory, 3, arguments)
    assert resumed["state"] == whole["state"]
    assert resumed["history"] == whole["history"]


def test_a_killed_fit_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    """With dropout, and momenta."""
    whole = run(fit_with_backup, True, str(tmp_path / "whole"), {}, 3, None, 0.5)
    directory = str(tmp_path / "killed")
    run_killed(fit_with_backup, True, directory, {}, 3, (1, 2), 0.5)
    run_killed(fit_with_backup, True, directory, {}, 3, (2, 0), 0.5)
    assert run(fit_with_backup, True, directory, {}, 3, None, 0.5)["state"] == whole["state"]
    assert not (tmp_path / "killed").exists()


def test_there_is_a_whole_checkpoint_after_a_kill_at_any_instant(tmp_path: Path) -> None:
    """Before each call that touches a file, from the first commit on, though only one is kept."""
    calls = run(manage_twice, str(tmp_path / "whole"), None)
    assert calls > 5
    for instant in range(1, calls + 1):
        directory = tmp_path / f"killed-{instant}"
        run_killed(manage_twice, str(directory), instant)
        assert kct.verify(directory)
        model = constant_model(0.0)
        manager = kct.CheckpointManager(directory, max_to_keep=1, model=model)
        manager.restore_or_initialize()
        assert constant_of(model) == float(manager.progress.epochs_completed)
        # What was resumed from stays until something newer is there beside the newest.
        list(manager.epochs(4))
        assert len(list(directory.iterdir())) == 1


@pytest.mark.filterwarnings("ignore:Nothing is left to train")
def test_what_was_resumed_from_goes_when_the_run_ends(tmp_path: Path) -> None:
    """An uninterrupted run does not have it either; with one save after the restart, and none."""
    directory = tmp_path / "run"
    for total in (1, 2, 2):
        model = constant_model(0.0)
        list(kct.CheckpointManager(directory, max_to_keep=1, model=model).epochs(total))
        assert [path.name for path in directory.iterdir()] == [f"ckpt-{total:08d}.weights.h5"]


def test_a_kill_in_the_very_first_save_leaves_nothing_that_stays(tmp_path: Path) -> None:
    """What is left is cleared away by the next save."""
    calls = run(manage_twice, str(tmp_path / "whole"), None, True)
    for instant in range(1, calls + 1, 3):
        directory = tmp_path / f"killed-{instant}"
        run_killed(manage_twice, str(directory), instant, True)
        run(manage_twice, str(directory), None, True)
        left = [path.name for path in directory.iterdir() if not path.name.startswith("ckpt-")]
        assert left == []
    run_killed(be_killed_in_the_layout, str(tmp_path / "layout"))
    assert list((tmp_path / "layout").glob("*layout*")) == []


@pytest.mark.parametrize("kind", ["manager", "backup", "checkpoint"])
def test_a_full_disk_is_told_and_harms_nothing(kind: str, tmp_path: Path) -> None:
    """The old file stays as it was, byte for byte, and no litter; the message says what to do."""
    told = run(fail_to_write, str(tmp_path / "run"), kind, "full disk")
    assert told["raised"].startswith("CommitError: The save failed: File too large")
    assert "ulimit" in told["raised"]
    assert told["unchanged"]
    assert told["files"] == 1


@pytest.mark.parametrize("kind", ["manager", "backup", "checkpoint"])
def test_no_permission_at_a_save_is_told(kind: str, tmp_path: Path) -> None:
    """Where it was taken away after the start."""
    told = run(fail_to_write, str(tmp_path / "run"), kind, "no permission")
    assert told["raised"].startswith("CommitError: The save failed: Permission denied")
    assert "may write to" in told["raised"]
    assert told["unchanged"]


@pytest.mark.parametrize("kind", ["new manager", "new backup", "new checkpoint"])
def test_no_permission_is_told_at_once(kind: str, tmp_path: Path) -> None:
    """Before the first epoch is trained in vain."""
    (tmp_path / "run").mkdir()
    told = run(fail_to_write, str(tmp_path / "run"), kind, "no permission")
    assert told["raised"].startswith("CommitError: The directory")
    assert str(tmp_path / "run") in told["raised"]


def test_a_process_of_a_test_reports_its_errors(tmp_path: Path) -> None:
    """So that a program which fails early is not taken for one that was killed."""
    assert "KeyError" in outcome(fail_to_write, str(tmp_path / "run"), "nobody", "full disk")
    with pytest.raises(AssertionError, match="KeyError"):
        run_killed(fail_to_write, str(tmp_path / "run"), "nobody", "full disk")

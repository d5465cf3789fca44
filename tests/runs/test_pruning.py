"""What a policy lets go of a directory: never what a restart needs, nor what is not the run's."""

from __future__ import annotations

import os

import pytest
from hostile.parts import members, written, zipped
from runs_on_disk import archive, file_run, manager_run, progress_of, sealed, weights

from keras_ckpt_tools.inspection.verify import verify
from keras_ckpt_tools.metadata import Best, TrackedObject
from keras_ckpt_tools.runs.listing import read_run
from keras_ckpt_tools.runs.pruning import plan_pruning
from keras_ckpt_tools.runs.retention import KeepBest, KeepEvery, KeepLast

LAST = [("last 1", KeepLast(1))]


def _problems(path):
    return verify(path).problems


def _goes(folder, policies=LAST, **options):
    return [
        one.name
        for one in plan_pruning(read_run(folder), policies, **{"check": _problems, **options}).goes
    ]


def _why(folder, policies=LAST, **options):
    plan = plan_pruning(read_run(folder), policies, **{"check": _problems, **options})
    return {one.checkpoint.name: one.why for one in plan.verdicts if not one.goes}


def _named(*numbers):
    return [f"ckpt-{number:08d}.weights.h5" for number in numbers]


def test_policies_are_a_union_with_reasons(tmp_path):
    """What any of them keeps, stays, and each says so."""
    manager_run(tmp_path, range(1, 13))
    policies = [
        ("last 2", KeepLast(2)),
        ("best 2", KeepBest(2, "val_loss", "min")),
        ("every 5", KeepEvery(5)),
    ]
    assert _why(tmp_path, policies) == {
        _named(3)[0]: "best 2",
        _named(5)[0]: "every 5",
        _named(10)[0]: "every 5",
        _named(11)[0]: "last 2",
        _named(12)[0]: "newest, last 2, best 2",
    }
    assert len(_goes(tmp_path, policies)) == 7


def test_best_of_the_run_itself_stays_unasked(tmp_path):
    """By the metric that the newest checkpoint says was monitored."""
    manager_run(tmp_path, range(1, 6))
    tracked = {"model": TrackedObject("model"), "_loop": TrackedObject("run")}
    best = Best("val_loss", "min", 0.01, 2)
    data = weights(**progress_of(6), best=best, record={"tracked": tracked})
    written(tmp_path / _named(6)[0], data)
    assert _why(tmp_path) == {_named(3)[0]: "best", _named(6)[0]: "newest, last 1"}


def test_newest_is_read_before_older_ones_go(tmp_path):
    """A changed byte in it: a restart passes it over, so what comes before stays, and counts."""
    manager_run(tmp_path, range(1, 5))
    newest = tmp_path / _named(4)[0]
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    run = read_run(tmp_path)
    assert run.newest.number == 4  # It does not show.
    plan = plan_pruning(run, LAST, check=_problems)
    assert [one.name for one in plan.goes] == _named(1, 2)
    assert [path for path, _ in plan.damaged] == [str(newest)]
    assert "have changed" in plan.damaged[0][1]


def test_nothing_is_read_where_nothing_goes(tmp_path):
    """Reading every byte of a large checkpoint takes a while."""
    manager_run(tmp_path, [1, 2])

    def check(path):
        raise AssertionError(path)

    assert _goes(tmp_path, [("last 2", KeepLast(2))], check=check) == []


def test_what_the_run_did_not_write_stays(tmp_path):
    """Others' files, damaged ones, another run's, copies under other names, links."""
    manager_run(tmp_path, range(1, 8))
    older = weights(**{**progress_of(1, "earlier"), "saved_at": 1.0})
    written(tmp_path / _named(0)[0], older)
    written(tmp_path / "stock.keras", zipped(members()))
    (tmp_path / _named(2)[0]).write_bytes(b"")
    written(tmp_path / "good one.weights.h5", (tmp_path / _named(3)[0]).read_bytes())
    os.symlink(_named(4)[0], tmp_path / "for the paper.weights.h5")
    pinned = [str(tmp_path / _named(5)[0])]
    assert _goes(tmp_path, pinned=pinned) == _named(1, 3, 6)
    why = _why(tmp_path, pinned=pinned)
    assert why[_named(0)[0]] == "of another run, earlier"
    assert why["stock.keras"] == "foreign"
    assert why[_named(2)[0]] == "damaged"
    assert why["good one.weights.h5"] == "its name is not that of a checkpoint of the run"
    assert why["for the paper.weights.h5"] == "a link"
    assert why[_named(4)[0]] == "a link points to it"
    assert why[_named(5)[0]] == "pinned"
    assert _goes(tmp_path, run_id="earlier") == []


@pytest.mark.parametrize("pattern", ["{epoch:02d}-{val_loss:.2f}.keras", "{epoch}.keras"])
def test_files_of_a_pattern_are_known_by_what_is_in_them(tmp_path, pattern):
    """A copy that fits the pattern and not the numbers is somebody's."""
    file_run(tmp_path, pattern, range(1, 5))
    copy = "9" + pattern.format(epoch=2, val_loss=0.5)
    sealed(tmp_path / copy, archive(pattern, **progress_of(2)))
    gone = [pattern.format(epoch=n, **progress_of(n)["logs"]) for n in (1, 2, 3)]
    assert sorted(_goes(tmp_path)) == sorted(gone)


def test_each_door_keeps_its_own(tmp_path):
    """A manager's newest does not stand for the newest of a `BackupAndRestore` or of a pattern."""
    manager_run(tmp_path, [1, 2])
    fit = {"_fit": TrackedObject("run"), "model": TrackedObject("model")}
    for number in (3, 4):
        data = weights(**progress_of(number), record={"tracked": fit})
        written(tmp_path / _named(number)[0], data)
    file_run(tmp_path, "{epoch}.keras", [5, 6])
    assert _goes(tmp_path) == [*_named(1, 3), "5.keras"]


@pytest.mark.parametrize("pattern", ["{a}" * 12 + "!.keras", "{epoch:999999999d}.keras"])
def test_a_strangers_pattern_takes_no_time_and_no_memory(tmp_path, pattern):
    """Neither tried in every way on a long name, nor filled up to a gigabyte: the files stay."""
    names = ["a" * 200 + "1.keras", "a" * 200 + "2.keras"]
    for number, name in enumerate(names, 1):
        written(tmp_path / name, archive(pattern, **progress_of(number)))
    run = read_run(tmp_path)
    assert [one.pattern for one in run.whole] == [pattern] * 2
    assert _goes(tmp_path) == []

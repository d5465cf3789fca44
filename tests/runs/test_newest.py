"""Whoever asks a directory for its newest or its best file gets the same one."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from runs_on_disk import archive, file_run, manager_run, progress_of, sealed, weights
from tf_programs import commit_number

import keras_ckpt_tools as kct
from keras_ckpt_tools.cli import main
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.loading.open_tensors import open_tensors
from keras_ckpt_tools.runs.listing import checkpoints_in, entries_in, read_run
from keras_ckpt_tools.runs.resume_preview import foresee
from keras_ckpt_tools.tools.export import export
from keras_ckpt_tools.tools.export_report import Wish

Answers = dict[str, Any]


def small(value: float = 0.0) -> Any:
    """Return a compiled model of one layer, with a value in its bias."""
    keras.utils.clear_session(free_memory=False)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.layers[0].bias.assign([value])
    return model


def manage(folder: Path, epochs: int, value: float, **arguments: Any) -> kct.CheckpointManager:
    """Train a run in a directory, with what it loads as: `value`, plus the epoch."""
    model = small()
    manager = kct.CheckpointManager(folder, model=model, **arguments)
    for epoch in manager.epochs(epochs):
        model.layers[0].bias.assign([value + epoch])
        manager.log(loss=1.0 / (1 + epoch))
    return manager


def fit(folder: Path, pattern: str, epochs: int) -> None:
    """Train a run whose model is saved after each epoch."""
    saver = kct.ModelCheckpoint(folder / pattern, monitor="loss")
    x, y = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    small().fit(x, y, epochs=epochs, verbose=0, callbacks=[saver])


def newest_by_all(folder: Path) -> Answers:
    """Ask each reader that takes any file how many epochs the newest has."""
    run = read_run(folder)
    assert run.newest is not None
    with open_tensors(folder, "latest") as opened:
        chosen = opened.path
        opened_at = opened.progress.epochs_completed
    listed = json.loads(CliRunner().invoke(main, ["ls", "--json", str(folder)]).output)
    model = small()
    kct.load_weights(model, folder)
    with open_tensors(chosen) as opened:
        path = next(p for p in opened.tensors if p.endswith("layers/dense/vars/1"))
        assert opened.read_all([path])[path] == np.asarray(model.layers[0].bias)
    assert run.newest.path == chosen == listed["runs"][0]["newest"]
    return {
        "training_progress": kct.training_progress(folder).epochs_completed,
        "inspect": kct.inspect(folder).progress.epochs_completed,
        "history": len(kct.inspect(folder).progress.history.get("loss", ())),
        "export, diff": opened_at,
        "ls": run.progress.epochs_completed,
        "load_weights": kct.training_progress(model).epochs_completed,
    }


@pytest.mark.parametrize("format", ["h5", "tf"])
def test_a_newer_run_with_fewer_epochs_is_the_newest(format: str, tmp_path: Path) -> None:
    """Also for a restart, and for the manager itself."""
    manage(tmp_path, 4, 1.0, format=format)
    manager = manage(tmp_path, 2, 100.0, resume="never", format=format)
    answers = newest_by_all(tmp_path)
    answers["resume-info"] = foresee(str(tmp_path)).progress.epochs_completed
    assert set(answers.values()) == {2}
    assert (
        foresee(str(tmp_path)).chosen == manager.latest_checkpoint == read_run(tmp_path).newest.path
    )  # type: ignore[union-attr]


def test_two_runs_of_models_have_one_newest(tmp_path: Path) -> None:
    """By the time of the save, which a copy does not change."""
    fit(tmp_path, "b-{epoch:02d}.keras", 3)
    fit(tmp_path, "a-{epoch:02d}.keras", 2)
    os.utime(tmp_path / "b-01.keras")
    assert set(newest_by_all(tmp_path).values()) == {2}
    model = kct.safe_load_model(tmp_path, which="latest")
    assert kct.training_progress(model).epochs_completed == 2
    report = json.loads(CliRunner().invoke(main, ["resume-info", "--json", str(tmp_path)]).output)
    assert (report["epoch"], report["from"]) == (2, str(tmp_path / "a-02.keras"))


def test_a_directory_of_all_kinds_has_one_newest(tmp_path: Path) -> None:
    """A manager's checkpoints of both formats, a model and weights; in any order of their saves."""
    manage(tmp_path, 3, 1.0)
    manage(tmp_path, 4, 10.0, format="tf", resume="never")
    assert set(newest_by_all(tmp_path).values()) == {4}
    fit(tmp_path, "model-{epoch}.keras", 1)
    assert set(newest_by_all(tmp_path).values()) == {1}
    shutil.move(tmp_path / "model-1.keras", tmp_path / "mine")
    assert set(newest_by_all(tmp_path).values()) == {1}  # Files are known by what is in them.
    manage(tmp_path, 2, 20.0, resume="never")
    assert set(newest_by_all(tmp_path).values()) == {2}


def test_several_objects_come_from_a_file_that_has_several(tmp_path: Path) -> None:
    """A newer model has no place for the others."""
    manage(tmp_path, 2, 1.0)
    fit(tmp_path, "model-{epoch}.keras", 1)
    model = small()
    both = {"model": model, "optimizer": model.optimizer}
    kct.load_weights(both, tmp_path)
    assert float(model.layers[0].bias[0]) == 2
    assert kct.compare(both, tmp_path)


def test_numbers_count_where_the_clock_was_set_back(tmp_path: Path) -> None:
    """As for a restart, which goes by them."""
    manager_run(tmp_path, [1, 2, 3])
    behind = {**progress_of(1, "other"), "saved_at": 7.0}
    (tmp_path / "ckpt-00000004.weights.h5").write_bytes(weights(**behind))
    sealed(tmp_path / "b.keras", archive("b.keras", **{**progress_of(2), "saved_at": 100.0}))
    saved, _ = checkpoints_in(tmp_path)
    assert [item.number for item in saved] == [1, 2, 3, 4]
    newest = read_run(tmp_path).newest
    assert newest is not None
    assert newest.path == saved[-1].path
    for progress in (kct.training_progress(tmp_path), kct.inspect(tmp_path).progress):
        assert progress.run_id == "other"
    with open_tensors(tmp_path) as opened:
        assert opened.path == newest.path


@pytest.mark.parametrize("spoil", [lambda p: os.truncate(p, 9000), lambda p: p.write_bytes(b"")])
def test_a_damaged_newest_is_passed_over_by_all(
    spoil: Callable[[Path], object], tmp_path: Path
) -> None:
    """They take the one before it."""
    manage(tmp_path, 3, 1.0)
    spoil(tmp_path / "ckpt-00000003.weights.h5")
    with pytest.warns(UserWarning, match=r"skipped damaged checkpoints: ckpt-00000003"):
        answers = newest_by_all(tmp_path)
    assert set(answers.values()) == {2}
    assert foresee(str(tmp_path)).progress.epochs_completed == 2


def test_an_empty_model_is_passed_over_and_named(tmp_path: Path) -> None:
    """As a full disk leaves it."""
    fit(tmp_path, "{epoch}.keras", 2)
    (tmp_path / "2.keras").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"skipped damaged files: 2\.keras: empty"):
        model = kct.safe_load_model(tmp_path, which="latest")
    assert kct.training_progress(model) == kct.training_progress(tmp_path)


def best_by_all(folder: Path) -> set[str]:
    """Ask each reader for the best file."""
    run = read_run(folder)
    assert run.best is not None
    with open_tensors(folder, "best") as opened:
        return {run.best.path, opened.path}


def test_best_is_one_file_too(tmp_path: Path) -> None:
    """Of the newest run, by the metric that it monitored; the first of equals."""
    manager = manage(tmp_path, 4, 1.0, monitor="loss", mode="min")
    assert best_by_all(tmp_path) == {manager.best_checkpoint}
    again = manage(tmp_path, 3, 5.0, monitor="loss", mode="min", resume="never")
    assert "ckpt-00000007" in str(again.best_checkpoint)
    assert best_by_all(tmp_path) == {again.best_checkpoint}
    assert again.progress.best == kct.training_progress(tmp_path).best
    other = manage(tmp_path, 2, 9.0, monitor="loss", mode="max", resume="never")
    assert best_by_all(tmp_path) == {other.best_checkpoint}
    assert "ckpt-00000008" in str(other.best_checkpoint)


def test_the_best_that_a_new_run_has_carried_on_is_its_best(tmp_path: Path) -> None:
    """A `ModelCheckpoint` never overwrites a better model, also where it is of an earlier run."""
    fit(tmp_path, "best.keras", 3)
    best = kct.training_progress(tmp_path / "best.keras").best
    later = {**progress_of(2, "later"), "saved_at": time.time() + 9, "best": best}
    later["logs"] = {"loss": 9.0, "val_loss": 9.0}
    sealed(tmp_path / "last.keras", archive("last.keras", **later))
    assert kct.training_progress(tmp_path).run_id == "later"
    assert best_by_all(tmp_path) == {str(tmp_path / "best.keras")}
    said = CliRunner().invoke(main, ["ls", str(tmp_path)]).output
    assert (
        f"of these checkpoints, of an earlier run ({read_run(tmp_path).whole[0].run_id[:8]})"
        in said
    )


def test_within_a_run_its_epochs_count_and_not_the_clock(tmp_path: Path) -> None:
    """Names of files are no numbers of saves, and a clock may be set back between two of them."""
    for name, number, at in (("a.keras", 1, 900.0), ("c.keras", 2, 300.0), ("b.keras", 3, 600.0)):
        sealed(tmp_path / name, archive(name, **{**progress_of(number), "saved_at": at}))
    sealed(tmp_path / "d.keras", archive("d.keras", **{**progress_of(9, "old"), "saved_at": 500.0}))
    names = [one.name for one in read_run(tmp_path).checkpoints]
    assert names == ["d.keras", "a.keras", "c.keras", "b.keras"]
    assert kct.training_progress(tmp_path).epochs_completed == 3


def test_best_goes_by_one_metric(tmp_path: Path) -> None:
    """The best value of another metric, which an older run noted, says nothing about it."""
    from keras_ckpt_tools.metadata import Best

    def save(name: str, at: float, best: Best, **logs: float) -> None:
        progress = {**progress_of(2), "saved_at": at, "logs": logs, "best": best}
        sealed(tmp_path / name, archive(name, **progress))

    save("old.keras", 1.0, Best("accuracy", "max", 0.01, 1), accuracy=0.01)
    save("new.keras", 2.0, Best("val_loss", "min", 0.5, 1), val_loss=0.5)
    assert best_by_all(tmp_path) == {str(tmp_path / "new.keras")}


@pytest.mark.parametrize("which", ["newest", "", None, -1, True, 1.5])
def test_which_is_checked_for_one_file(which: Any, tmp_path: Path) -> None:
    """A slip of the pen is no reason to load something else."""
    path = tmp_path / "a.keras"
    small().save(path)
    for call in (
        lambda: kct.safe_load_model(path, which=which),
        lambda: export(path, tmp_path / "b.safetensors", Wish(which=which)),
    ):
        with pytest.raises(ArgumentError, match=r'Pass "best", "latest" or a zero-based epoch'):
            call()


def test_one_file_has_to_be_of_the_epoch_that_is_asked_for(tmp_path: Path) -> None:
    """It is itself the best and the latest."""
    fit(tmp_path, "{epoch}.keras", 2)
    path = tmp_path / "2.keras"
    for which in ("best", "latest", 1):
        model = kct.safe_load_model(path, which=which)  # type: ignore[arg-type]
        assert kct.training_progress(model).epochs_completed == 2
    target = tmp_path / "b.safetensors"
    for call in (
        lambda: kct.safe_load_model(path, which=2),
        lambda: export(path, target, Wish(which=2)),
    ):
        with pytest.raises(ArgumentError, match="it was saved at the end of epoch 1"):
            call()
    small().save(tmp_path / "stock.keras")
    with pytest.raises(ArgumentError, match="does not record the epoch at which it was saved"):
        kct.safe_load_model(tmp_path / "stock.keras", which=1)
    export(path, target, Wish(which=1))


def test_an_epoch_is_answered_by_its_end(tmp_path: Path) -> None:
    """Not by a file that was saved later, inside the epoch after it."""
    file_run(tmp_path, "{epoch}.keras", [1, 2])
    inside = {**progress_of(2), "batches_completed": 3, "saved_at": 9e9}
    sealed(tmp_path / "inside.keras", archive("inside.keras", **inside))
    with open_tensors(tmp_path, 1) as opened:
        assert os.path.basename(opened.path) == "2.keras"


@pytest.mark.parametrize("format", ["h5", "tf"])
def test_a_checkpoint_that_goes_while_it_is_listed_is_not_listed(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process prunes: it has deleted one between the names and the reading."""
    if format == "h5":
        manager_run(tmp_path, [1, 2, 3])
    for number in (1, 2, 3) if format == "tf" else ():
        commit_number(str(tmp_path), number)
    names = os.listdir

    def listed_and_pruned(folder: str) -> list[str]:
        found = names(folder)
        for path in tmp_path.glob("ckpt-00000002*"):
            path.unlink()
        return found

    for listing in (checkpoints_in, entries_in):
        monkeypatch.setattr(os, "listdir", listed_and_pruned)
        listed = listing(str(tmp_path))
        monkeypatch.undo()
        saved, damaged = listed if isinstance(listed, tuple) else (listed, [])
        assert sorted(item.number for item in saved) == [1, 3]
        assert damaged == []

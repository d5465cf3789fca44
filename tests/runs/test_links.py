"""Links in a directory of checkpoints: one rule for every call, and a path itself may be a link."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from runs_on_disk import manager_run

import keras_ckpt_tools as kct
from keras_ckpt_tools.runs.entry import State
from keras_ckpt_tools.runs.listing import read_run

SAVED = "ckpt-00000001.weights.h5"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one checkpoint, beside a link to a good file elsewhere and a second name."""
    elsewhere = manager_run(tmp_path / "elsewhere", [2])
    folder = manager_run(tmp_path / "run", [1])
    os.symlink(elsewhere / "ckpt-00000002.weights.h5", folder / "ckpt-00000002.weights.h5")
    os.symlink(SAVED, folder / "newest.weights.h5")
    return folder


def test_ls_lists_links_as_such(run: Path) -> None:
    """What they lead to is not read: neither its progress nor its length."""
    found = {
        one.name: (one.state, one.note, one.size, one.step) for one in read_run(run).checkpoints
    }
    link = (State.FOREIGN, "a link, which is not followed", 0, 0)
    assert found["ckpt-00000002.weights.h5"] == found["newest.weights.h5"] == link
    assert found[SAVED][0] is State.WHOLE
    assert read_run(run).progress.epochs_completed == 1
    assert kct.training_progress(run).epochs_completed == 1


def test_verify_refuses_what_leads_out(run: Path) -> None:
    """A second name of a file that is verified anyway is no problem."""
    report = kct.verify(run)
    names = [os.path.basename(check.path) for check in report.files]
    assert names == [SAVED, "ckpt-00000002.weights.h5"]
    assert report.problems[-1:] == ("ckpt-00000002.weights.h5: a link, which is not followed",)
    os.unlink(run / "ckpt-00000002.weights.h5")
    assert all("link" not in problem for problem in kct.verify(run).problems)


@pytest.mark.parametrize("command", ["ls", "verify", "inspect", "resume-info"])
def test_no_command_follows_a_link_that_it_finds(command: str, run: Path) -> None:
    """Each of them says what it passes over, and why."""
    from click.testing import CliRunner

    from keras_ckpt_tools.cli import main

    done = CliRunner().invoke(main, [command, str(run)])
    assert "a link, which is not followed" in done.output
    if command != "resume-info":
        done = CliRunner().invoke(main, [command, str(run / "ckpt-00000002.weights.h5")])
        assert "a link" not in done.output  # The caller passed it.


def small() -> Any:
    """Return a model of one layer."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_a_run_resumes_from_its_own_files(tmp_path: Path) -> None:
    """A link is passed over, with a warning; where there is nothing else, that is an error."""
    for name, value in (("run", 1.0), ("elsewhere", 7.0)):
        model = small()
        model.layers[0].bias.assign([value])
        kct.CheckpointManager(tmp_path / name, model=model).save()
    link = tmp_path / "run" / "ckpt-00000002.weights.h5"
    os.symlink(tmp_path / "elsewhere" / SAVED, link)
    model = small()
    with pytest.warns(UserWarning, match="ckpt-00000002.*a link, which is not followed"):
        kct.CheckpointManager(tmp_path / "run", model=model).restore_or_initialize()
    assert np.asarray(model.layers[0].bias).tolist() == [1.0]
    (tmp_path / "run" / SAVED).unlink()
    with pytest.raises(kct.errors.DamagedArtefactError, match="a link, which is not followed"):
        kct.CheckpointManager(tmp_path / "run", model=small()).restore_or_initialize()
    manager = kct.CheckpointManager(tmp_path / "run", model=model, resume="never")
    manager.restore(str(link))  # The caller passed it.
    assert np.asarray(model.layers[0].bias).tolist() == [7.0]


def test_a_model_is_not_loaded_through_a_link_in_a_directory(tmp_path: Path) -> None:
    """The error names it; by its own path it loads, and through a link to the directory as well."""
    (tmp_path / "models").mkdir()
    small().save(tmp_path / "real.keras")
    os.symlink(tmp_path / "real.keras", tmp_path / "models" / "a.keras")
    with pytest.raises(kct.errors.CkptError, match="link"):
        kct.safe_load_model(tmp_path / "models")
    assert kct.safe_load_model(tmp_path / "models" / "a.keras").count_params() == 5


def test_a_backup_of_keras_is_not_picked_up_through_a_link(tmp_path: Path) -> None:
    """It is refused, and not passed over: the run would begin again in silence."""
    model = small()
    stock = keras.callbacks.BackupAndRestore(tmp_path / "stock", delete_checkpoint=False)
    x, y = np.ones((4, 4)), np.ones((4, 1))
    model.fit(x, y, epochs=1, verbose=0, callbacks=[stock])
    (tmp_path / "run").mkdir()
    for name in os.listdir(tmp_path / "stock"):
        os.symlink(tmp_path / "stock" / name, tmp_path / "run" / name)
    backup = kct.BackupAndRestore(tmp_path / "run")
    with pytest.raises(kct.errors.UnsafeArtefactError, match="a link, which is not followed"):
        small().fit(x, y, epochs=2, verbose=0, callbacks=[backup])

"""`keras-ckpt resume-info`: what a restart would do, for people and for programs."""

from __future__ import annotations

import json

from hostile.parts import h5_model, written
from runs_on_disk import file_run, manager_run


def _damage(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def test_command_says_it(cli, tmp_path):
    """For people and for programs, with the exit status of what was found."""
    saved = manager_run(tmp_path / "a run", [1, 2, 3])
    done = cli("resume-info", saved)
    assert done.exit_code == 0, done
    assert "resumes with epoch 3 (from 0), step 30" in done.stdout
    found = json.loads(cli("resume-info", "--json", saved).stdout)
    assert (found["format"], found["command"], found["epoch"]) == (1, "resume-info", 3)
    assert found["holds"]["model"] == "model"
    paths = sorted(saved.glob("ckpt-*"))
    _damage(paths[-1])
    done = cli("resume-info", saved)
    assert done.exit_code == 1
    assert "skipped" in done.stdout
    damaged = cli("resume-info", "--json", paths[-1])
    assert json.loads(damaged.stdout)["passed_over"][0]["path"] == str(paths[-1])
    assert cli("resume-info", paths[-1]).exit_code == 1
    assert cli("resume-info", saved / "none").exit_code == 2
    (saved / "empty").mkdir()
    assert cli("resume-info", saved / "empty").exit_code == 1


def test_files_of_a_model_checkpoint_do_not_go_on_by_themselves(cli, tmp_path):
    """It says from which one would, and with which call; a damaged one is passed over."""
    file_run(tmp_path / "run", "{epoch}.keras", [1, 2, 3])
    written(tmp_path / "run" / "stock.weights.h5", h5_model())
    _damage(tmp_path / "run" / "3.keras")
    found = json.loads(cli("resume-info", "--json", tmp_path / "run").stdout)
    assert (found["by_itself"], found["epoch"]) == (False, 2)
    assert found["from"].endswith("2.keras")
    assert [one["path"][-7:] for one in found["passed_over"]] == ["3.keras"]
    assert "initial_epoch=2" in found["notes"][0]
    done = cli("resume-info", tmp_path / "run" / "stock.weights.h5")
    assert "This package did not write the file" in done.stdout


def test_versions_leftovers_and_other_majors_are_told(cli, tmp_path):
    """A restart refuses another major version of Keras, so that is a problem; others are not."""
    versions = {"keras": "3.0.1", "numpy": "0.1"}
    saved = manager_run(tmp_path / "run", [1], versions=versions)
    written(saved / ".ckpt-00000002.weights.h5.00000000.kct-staged", b"half")
    done = cli("resume-info", saved)
    assert done.exit_code == 0, done
    assert "keras 3.0.1 saved it, 3." in done.stdout
    assert "numpy 0.1 saved it" in done.stdout
    assert "left by a killed writer of ckpt-00000002.weights.h5" in done.stdout
    manager_run(tmp_path / "run", [1], versions={"keras": "2.15.0"})
    done = cli("resume-info", "--json", saved)
    assert done.exit_code == 1
    (keras,) = json.loads(done.stdout)["versions"]
    assert (keras["package"], keras["saved"], keras["stops"]) == ("keras", "2.15.0", True)

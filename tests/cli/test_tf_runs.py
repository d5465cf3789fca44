"""Runs that save as TensorFlow does, alone and beside other files: no command passes them over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.formats.open_source import open_source


@pytest.fixture
def mixed_run(tmp_path: Path) -> Path:
    """Two checkpoints of HDF5, and then three as TensorFlow has them."""
    folder = tmp_path / "run"
    for kind, epochs in (("h5", 2), ("tf", 5)):
        weight = tf.Variable([0.0])
        manager = kct.CheckpointManager(folder, format=kind, monitor="loss", weight=weight)
        for epoch in manager.epochs(epochs):
            for _ in manager.batches([1]):
                weight.assign([float(epoch)])
            manager.log(loss=1.0 + abs(epoch - 3))
        manager.wait()
        del manager
    return folder


def _names(numbers, ending=""):
    return [f"ckpt-{number:08d}{ending}" for number in numbers]


def test_lists_and_foresight_have_all_of_a_mixed_run(cli, mixed_run):
    """The newest is the one that a restart goes on from; each is read to be verified."""
    listed = json.loads(cli("ls", mixed_run, "--json").stdout)
    states = [one["state"] for run in listed["runs"] for one in run["checkpoints"]]
    assert states == ["whole"] * 5
    done = cli("resume-info", mixed_run)
    assert done.exit_code == 0, done
    assert _names([5])[0] in done.stdout
    assert "resumes with epoch 5" in done.stdout
    assert cli("inspect", mixed_run).exit_code == 0
    done = cli("verify", mixed_run)
    assert (done.exit_code, done.stdout.count("good:")) == (0, 5)
    data = mixed_run / _names([5], ".data-00000-of-00001")[0]
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    assert cli("verify", mixed_run).exit_code == 1


def test_one_of_a_mixed_run_is_exported_by_its_record(cli, mixed_run, tmp_path):
    """The newest, the best or an epoch of all of them, under the paths of our other files."""
    for which, value in (("", 4.0), ("@best", 3.0), ("@1", 1.0), ("@2", 2.0)):
        target = tmp_path / f"of{which}.weights.h5"
        done = cli("export", f"{mixed_run}{which}", target, "--object", "weight")
        assert done.exit_code == 0, done
        with open_source(target) as source:
            assert source.read("vars/0").tolist() == [value]
    assert cli("diff", f"{mixed_run}@4", f"{mixed_run}@3").exit_code == 1


def test_a_mixed_run_is_pruned_to_what_the_policy_keeps(cli, mixed_run):
    """All files of a checkpoint go, the best stays, and so does what is pinned by any file."""
    pinned = _names([3], ".index")[0]
    done = cli("prune", mixed_run, "--keep-last", 1, "--pin", pinned, "--yes")
    assert done.exit_code == 0, done
    ends = (".data-00000-of-00001", ".index", ".record")
    left = [name for end in ends for name in _names([3, 4, 5], end)]
    assert sorted(os.listdir(mixed_run)) == ["checkpoint", *sorted(left)]
    done = cli("prune", mixed_run, "--keep-last", 1, "--yes")
    assert done.exit_code == 0, done
    left = [name for end in ends for name in _names([4, 5], end)]
    assert sorted(os.listdir(mixed_run)) == ["checkpoint", *sorted(left)]
    assert _names([3])[0] not in (mixed_run / "checkpoint").read_text()


def test_a_save_is_told_with_the_bytes_of_all_its_files(tmp_path, capsys):
    """And not as one of no bytes."""
    from keras_ckpt_tools.showing.tables import size_of

    weight = tf.Variable([0.0])
    manager = kct.CheckpointManager(tmp_path, format="tf", verbose=1, weight=weight)
    path = Path(manager.save())
    manager.wait()
    sizes = [file.stat().st_size for file in tmp_path.glob(f"{path.name}.*")]
    assert len(sizes) == 3
    assert f"({size_of(sum(sizes))} in" in capsys.readouterr().out


@pytest.fixture
def of_others(tmp_path: Path) -> Path:
    """The prefix of a checkpoint that TensorFlow itself has written."""
    held = tf.train.Checkpoint(weight=tf.Variable([1.0, 2.0]))
    return Path(held.write(str(tmp_path / "of others" / "cp.ckpt")))


def test_a_prefix_or_one_of_its_files_is_one_checkpoint(cli, mixed_run):
    """For the list, for a picture and for what a restart would do."""
    prefix = mixed_run / _names([4])[0]
    for path in (prefix, *(f"{prefix}{end}" for end in (".index", ".record"))):
        (run,) = json.loads(cli("ls", path, "--json").stdout)["runs"]
        assert [one["name"] for one in run["checkpoints"]] == [prefix.name]
        done = cli("resume-info", path)
        assert done.exit_code == 0, done.stdout
        assert "can resume with epoch 4" in done.stdout
    assert kct.plot(prefix) is not None


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_a_checkpoint_that_lacks_a_file_is_listed_as_damaged(cli, mixed_run, ending):
    """Also where the file that is gone is the one that TensorFlow knows it by."""
    os.unlink(mixed_run / _names([4], ending)[0])
    (run,) = json.loads(cli("ls", mixed_run, "--json").stdout)["runs"]
    states = {one["name"]: one["state"] for one in run["checkpoints"]}
    assert [name for name, state in states.items() if state == "damaged"] == _names([4])
    assert len(states) == 5


def test_a_checkpoint_of_others_is_called_so(cli, of_others):
    """It can be read, and does not say where training was; a changed byte is told."""
    for path in (of_others, f"{of_others}.index"):
        done = cli("resume-info", path)
        assert done.exit_code == 0, done.stdout
        assert "third-party TensorFlow checkpoint" in done.stdout
    data = Path(f"{of_others}.data-00000-of-00001")
    data.write_bytes(b"!" + data.read_bytes()[1:])
    assert cli("resume-info", of_others).exit_code == 1


def test_one_of_a_thing_is_said_as_one(cli, of_others, mixed_run):
    """One epoch and one tensor."""
    assert (
        "; 1 epoch completed, step"
        in cli("inspect", mixed_run / _names([1], ".weights.h5")[0]).stdout
    )
    tensors = len(kct.inspect(of_others).tensors)
    assert tensors == 1
    assert "; 1 tensor of 8 bytes" in cli("inspect", of_others).stdout

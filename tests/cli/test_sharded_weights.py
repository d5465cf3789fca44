"""Each command takes the index of sharded weights, or the folder that they are in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Sharded weights, and the same in one file in a folder of its own; read-only."""
    import keras

    place = tmp_path_factory.mktemp("shards")
    (place / "one").mkdir()
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(4, name="last")]
    )
    model.save_weights(place / "w.weights.json", max_shard_size=1.6e-7)  # Bytes: 170.
    model.save_weights(place / "one" / "m.weights.h5")
    assert (place / "w_00001.weights.h5").exists()
    return place


def test_inspect_and_verify_take_index_and_folder(cli, folder):
    """One answer for all files of the weights."""
    for command in ("inspect", "verify"):
        for path in (folder / "w.weights.json", folder):
            done = cli(command, path, "--json")
            assert done.exit_code == 0, done.output
            found = json.loads(done.output)
            [answer] = [one for one in found["files"] if "one" not in Path(one["path"]).parts]
            assert answer["path"] == str(folder / "w.weights.json")
            assert answer["kind"] == "sharded weights HDF5"


def test_ls_lists_them_by_their_index(cli, folder, tmp_path):
    """With the size of all files; a shard that is gone is damage."""
    done = cli("ls", folder, "--json")
    [run, _] = json.loads(done.output)["runs"]
    [one] = run["checkpoints"]
    assert (one["name"], one["state"]) == ("w.weights.json", "foreign")
    assert one["size"] == sum(path.stat().st_size for path in folder.glob("w*"))
    (tmp_path / "w.weights.json").write_bytes((folder / "w.weights.json").read_bytes())
    done = cli("ls", tmp_path)
    assert done.exit_code == 1
    assert "shards are missing" in done.output


def test_diff_and_export(cli, folder, tmp_path):
    """They hold what the one file holds."""
    index, one = folder / "w.weights.json", folder / "one" / "m.weights.h5"
    done = cli("diff", index, one)
    assert done.exit_code == 0, done.output
    done = cli("export", index, tmp_path / "again.weights.h5")
    assert done.exit_code == 0, done.output
    assert cli("diff", one, tmp_path / "again.weights.h5").exit_code == 0

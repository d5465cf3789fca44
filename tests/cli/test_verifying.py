"""`keras-ckpt verify` reads every byte, and says which files are whole."""

from __future__ import annotations

import json

from hostile.parts import h5_model, members, written, zipped
from hostile.records import our_archive, our_weights


def test_whole_files_exit_with_0(keras_ckpt, tmp_path):
    """Ours, stock archives and stock HDF5; of the last it says that it has no digests."""
    written(tmp_path / "ours.keras", our_archive())
    written(tmp_path / "stock.keras", zipped(members()))
    written(tmp_path / "stock.h5", h5_model())
    done = keras_ckpt("verify", tmp_path)
    assert done.returncode == 0, done
    assert done.stdout.count("good: ") == 3
    assert done.stdout.count("the file has no digests") == 1


def test_changed_byte_exits_with_1(keras_ckpt, tmp_path):
    """One bit of one tensor, and the file is named."""
    data = bytearray(our_weights())
    data[-9] ^= 1
    written(tmp_path / "good.weights.h5", our_weights())
    path = written(tmp_path / "bad.weights.h5", bytes(data))
    done = keras_ckpt("verify", "--json", tmp_path)
    assert done.returncode == 1
    by_path = {f["path"]: f for f in json.loads(done.stdout)["files"]}
    assert by_path[str(path)]["status"] == "problems"
    assert "have changed" in by_path[str(path)]["problems"][0]
    assert [f["status"] for f in by_path.values()].count("good") == 1


def test_what_is_no_model_exits_with_2(keras_ckpt, tmp_path):
    """An empty file is damaged; a text is none."""
    assert keras_ckpt("verify", written(tmp_path / "a.keras", "text")).returncode == 2
    assert keras_ckpt("verify", tmp_path / "nothing.keras").returncode == 2

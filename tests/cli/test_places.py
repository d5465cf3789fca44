"""Which artefacts a path means."""

from __future__ import annotations

import os

from hostile.parts import members, written, zipped


def _places(*paths):
    from keras_ckpt_tools.cli.places import artefacts_at

    return list(artefacts_at(map(str, paths)))


def test_file_is_itself_whatever_it_is_called(tmp_path):
    """Who names a file means it."""
    path = written(tmp_path / "notes.txt", "x")
    assert _places(path, path) == [str(path), str(path)]


def test_folder_is_read_in_order_and_to_the_bottom(tmp_path):
    """By name, files of a folder before those below it."""
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("z.keras", "a.h5", "b/c/m.hdf5", "b/x.py"):
        written(tmp_path / name, zipped(members()))
    found = [os.path.relpath(place, tmp_path) for place in _places(tmp_path)]
    assert found == ["a.h5", "z.keras", "b/c/m.hdf5"]


def test_link_that_leads_upwards_has_an_end(tmp_path):
    """Links to folders are passed over, links to files are found, and refused by the commands."""
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path, tmp_path / "in" / "up")
    written(tmp_path / "blob", zipped(members()))
    os.symlink(tmp_path / "blob", tmp_path / "in" / "model.keras")
    assert _places(tmp_path) == [str(tmp_path / "in" / "model.keras")]


def test_file_of_a_folder_is_chosen_with_an_at_sign(tmp_path):
    """An epoch, the best or the latest; what is there under the whole name is meant itself."""
    from keras_ckpt_tools.cli.places import one_of_folder

    run = str(tmp_path / "run")
    os.mkdir(run)
    assert one_of_folder(f"{run}@3") == (run, 3)
    assert one_of_folder(f"{run}@best") == (run, "best")
    assert one_of_folder(run) == (run, "latest")
    for path in (f"{run}@nonsense", f"{tmp_path / 'none'}@3"):
        assert one_of_folder(path) == (path, "latest")
    os.mkdir(f"{run}@3")
    assert one_of_folder(f"{run}@3") == (f"{run}@3", "latest")


def test_prefixes_are_found_beside_files_and_parts_of_a_saved_model_are_not(tmp_path):
    """A folder of TensorFlow's alone is one artefact; one that has lost its index is told."""
    from keras_ckpt_tools.formats.record.userblock import MAGIC

    for name in ("run/cp", "export/variables/variables"):
        (tmp_path / name).parent.mkdir(parents=True)
        for ending in (".index", ".data-00000-of-00001"):
            written(tmp_path / f"{name}{ending}", b"x")
    written(tmp_path / "export" / "saved_model.pb", b"x")
    assert _places(tmp_path / "run") == [str(tmp_path / "run")]
    assert _places(f"{tmp_path}/run/") == [f"{tmp_path}/run/"]
    assert _places(tmp_path) == [str(tmp_path / "run" / "cp")]
    for ending in (".index", ".data-00000-of-00001"):
        written(tmp_path / f"top{ending}", b"x")
    assert _places(tmp_path) == [str(tmp_path / "top"), str(tmp_path / "run" / "cp")]
    written(tmp_path / "run" / "ckpt-00000001.record", MAGIC)
    lost = str(tmp_path / "run" / "ckpt-00000001.record")
    assert _places(tmp_path / "run") == [lost, str(tmp_path / "run" / "cp")]


def test_sharded_weights_are_one_artefact(tmp_path):
    """Their index stands for all files that it names; one that it does not name is itself."""
    import json

    for name in ("w_00000.weights.h5", "w_00001.weights.h5", "other_00000.weights.h5"):
        written(tmp_path / name, b"x")
    shards = ["w_00000.weights.h5", "w_00001.weights.h5"]
    index = json.dumps({"weight_map": {"/layers/dense/vars": shards}})
    written(tmp_path / "w.weights.json", index.encode())
    found = [os.path.relpath(place, tmp_path) for place in _places(tmp_path)]
    assert found == ["other_00000.weights.h5", "w.weights.json"]
    written(tmp_path / "w.weights.json", b"{")
    assert len(_places(tmp_path)) == 4

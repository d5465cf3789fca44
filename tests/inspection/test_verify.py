"""Verifying reads every byte: a single flipped bit anywhere is found."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArtefactKindError,
    ArtefactNotFoundError,
    DamagedArtefactError,
)
from keras_ckpt_tools.formats.kinds import Kind


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.h5"])
def test_flipped_bit_in_a_file_of_ours_is_found(name, build_cnn, save_ours, tmp_path):
    """At places all over the file, headers and padding included."""
    path = Path(save_ours(build_cnn(), tmp_path / name))
    assert kct.verify(path)
    whole = path.read_bytes()
    places = np.random.default_rng(1).integers(0, len(whole), 40).tolist()
    for place in [0, 9, 100, len(whole) - 1, *places]:
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        path.write_bytes(data)
        report = kct.verify(path)
        assert not report, place
        assert report.problems[0].startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
def test_stock_file_is_read_to_the_end(name, build_cnn, save, tmp_path):
    """Without digests, what can be read is whole; a zip has checksums of its own."""
    path = Path(save(build_cnn(), tmp_path / name))
    report = kct.verify(path)
    assert report
    assert report.files[0].size == path.stat().st_size
    if name.endswith(".keras"):
        data = bytearray(path.read_bytes())
        data[data.index(b"Conv2D")] ^= 1
        path.write_bytes(data)
        assert "config.json" in kct.verify(path).problems[0]


def test_directory_lists_each_file(build_cnn, save_ours, tmp_path):
    """Good ones, cut ones, empty ones and what only has the name; other files are left alone."""
    model = build_cnn()
    save_ours(model, tmp_path / "a.keras")
    cut = save_ours(model, tmp_path / "b.keras")
    os.truncate(cut, 5000)
    (tmp_path / "c.keras").write_bytes(b"")
    (tmp_path / "d.h5").write_bytes(b"<html></html>")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub").mkdir()
    report = kct.verify(tmp_path)
    assert [(Path(f.path).name, bool(f)) for f in report.files] == [
        ("a.keras", True),
        ("b.keras", False),
        ("c.keras", False),
        ("d.h5", False),
    ]
    assert not report
    assert [p.partition(":")[0] for p in report.problems] == ["b.keras", "c.keras", "d.h5"]
    assert str(report).splitlines()[0] == f"{tmp_path}: 1 of 4 without problems"
    assert "<td>damaged</td><td>b.keras</td>" in report._repr_html_()


def test_directory_of_a_manager_is_verified(build_cnn, tmp_path):
    """All of its checkpoints."""
    manager = kct.CheckpointManager(tmp_path, model=build_cnn())
    manager.save()
    manager.save()
    report = kct.verify(tmp_path)
    assert report
    assert [f.kind for f in report.files] == [Kind.CHECKPOINT] * 2


def test_nothing_to_verify_is_an_error(tmp_path):
    """A check that cannot fail would be worse."""
    with pytest.raises(ArtefactKindError):
        kct.verify(tmp_path)
    with pytest.raises(ArtefactNotFoundError):
        kct.verify(tmp_path / "none.keras")


def test_foreign_file_is_a_problem(tmp_path):
    """A file of another kind is not whole."""
    (tmp_path / "a.keras").write_bytes(b"\x80\x04.")
    assert "This is a pickle" in kct.verify(tmp_path / "a.keras").problems[0]


def test_a_file_without_digests_is_not_called_whole(build_cnn, tmp_path):
    """What others write as HDF5 can be read, and changed numbers in it cannot be found."""
    path = tmp_path / "stock.weights.h5"
    build_cnn().save_weights(path)
    report = kct.verify(path)
    assert report
    assert [row[0] for row in report.rows()] == ["readable"]
    assert "not verified" in str(report)


def test_a_damaged_archive_of_others_is_not_loaded(build_cnn, tmp_path):
    """A zip has checksums, and a load asks them."""
    path = tmp_path / "stock.keras"
    model = build_cnn()
    model.save(path)
    data = bytearray(path.read_bytes())
    data[data.index(model.get_weights()[0].tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedArtefactError, match="checksum"):
        kct.safe_load_model(path)
    with pytest.raises(DamagedArtefactError, match="checksum"):
        kct.load_weights(model, path)

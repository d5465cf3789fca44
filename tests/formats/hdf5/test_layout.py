"""Where every byte of an HDF5 file goes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from keras_ckpt_tools.formats.hdf5.layout import Dataset, Structure, lay_out

STRUCTURE = Structure(
    datasets=(
        Dataset("a/vars/0", (3, 5), np.dtype("float32")),
        Dataset("a/vars/1", (), np.dtype("int64")),
        Dataset("empty", (4, 0), np.dtype("float32")),
    ),
    group_attributes=(("a/vars", "name", "dense"),),
    links=(("b", "a"),),
    userblock=1024,
)


def test_skeleton_and_data_fill_the_file_without_gap_or_overlap(tmp_path: Path) -> None:
    """Each byte behind the record belongs to exactly one piece."""
    layout = lay_out(STRUCTURE, str(tmp_path))
    pieces = [(offset, len(chunk)) for offset, chunk in layout.skeleton]
    pieces += [(layout.offsets[d.path], d.nbytes) for d in STRUCTURE.datasets if d.nbytes]
    end = STRUCTURE.userblock
    for offset, length in sorted(pieces):
        assert offset == end
        end += length
    assert end == layout.size


def test_the_pieces_are_a_file_that_hdf5_opens(tmp_path: Path) -> None:
    """Skeleton and data, put where the layout says, are what libhdf5 would have written."""
    layout = lay_out(STRUCTURE, str(tmp_path))
    data = np.arange(15, dtype="float32")
    start = layout.offsets["a/vars/0"]
    file = bytearray(layout.size)
    for offset, chunk in layout.skeleton:
        file[offset : offset + len(chunk)] = chunk
    file[start : start + data.nbytes] = data.tobytes()
    path = tmp_path / "a.h5"
    path.write_bytes(file)
    with h5py.File(path) as hdf5:
        assert np.array_equal(hdf5["b/vars/0"][()], data.reshape(3, 5))
        assert hdf5["a/vars"].attrs["name"] == "dense"
        assert hdf5["empty"].shape == (4, 0)


def test_nothing_is_left_beside(tmp_path: Path) -> None:
    """The empty file that libhdf5 laid out is gone."""
    lay_out(Structure(STRUCTURE.datasets, (), (), 2048), str(tmp_path))
    assert list(tmp_path.iterdir()) == []

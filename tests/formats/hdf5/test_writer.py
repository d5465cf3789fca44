"""Files are planned once for a structure, and written in pieces of any size."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from keras_ckpt_tools.formats.common.contents import Snapshot
from keras_ckpt_tools.formats.hdf5 import writer
from keras_ckpt_tools.formats.hdf5.writer import write_weights
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.metadata import Record
from keras_ckpt_tools.storage.throttle import PIECE


def _write(path: Path, arrays: dict[str, Any], record: Record | None = None) -> Record:
    with path.open("wb") as file:
        return write_weights(file.write, Snapshot(arrays), record or Record(), str(path.parent))


def _sizes() -> dict[str, np.ndarray]:
    """Return arrays around every size at which something is done in another way."""
    random = np.random.default_rng(0)
    borders = (1, writer._SMALL, writer._JOINED, PIECE, 3 * PIECE)
    sizes = sorted({border + more for border in borders for more in (-1, 0, 1)})
    arrays = {f"s{size}/vars/0": random.integers(0, 255, size, np.uint8) for size in sizes}
    square = random.standard_normal((700, 700)).astype("float32")
    return arrays | {
        "turned/vars/0": square.T,
        "every_third/vars/0": square[::3, ::3],
        "number/vars/0": np.array(7, "int64"),
        "other_order/vars/0": square[:5].astype(">f4"),
        "truth/vars/0": square > 0,
        "half/vars/0": square.astype(ml_dtypes.bfloat16),
        "nothing/vars/0": np.zeros((0, 3), "float16"),
    }


def test_arrays_of_every_size_and_kind_come_back(tmp_path: Path) -> None:
    """Joined with neighbours, alone, or in several pieces."""
    arrays, path = _sizes(), tmp_path / "a.weights.h5"
    record = _write(path, arrays)
    with open_source(path) as source:
        assert source.verify() == ()
        assert source.record == record
        for name, array in arrays.items():
            assert np.array_equal(source.read(name), array), name
    with h5py.File(path) as file:
        for name, array in arrays.items():
            if array.dtype != ml_dtypes.bfloat16:
                assert np.array_equal(file[name][()], array), name


def test_a_structure_is_laid_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libhdf5 is asked again only where something else is to be laid out."""
    laid_out: list[Any] = []
    original = writer.lay_out

    def lay_out(structure: Any, directory: str | None) -> Any:
        laid_out.append(structure)
        return original(structure, directory)

    monkeypatch.setattr(writer, "lay_out", lay_out)
    monkeypatch.setattr(writer, "_plans", type(writer._plans)())
    arrays = {"a/vars/0": np.zeros((2, 3)), "a/vars/1": np.ones(4)}
    for value in range(3):
        _write(tmp_path / "a.h5", {name: array + value for name, array in arrays.items()})
    assert len(laid_out) == 1
    # More logs than there is room for in front.
    _write(tmp_path / "a.h5", arrays, dataclasses.replace(Record(), state={"x": "y" * 9_999}))
    assert len(laid_out) == 2
    for other in (
        {**arrays, "a/vars/1": np.ones(5)},
        {**arrays, "a/vars/1": np.ones(4, "float32")},
        {"a/vars/0": arrays["a/vars/0"], "a/vars/2": arrays["a/vars/1"]},
    ):
        _write(tmp_path / "a.h5", other)
        with open_source(tmp_path / "a.h5") as source:
            assert source.verify() == ()
    assert len(laid_out) == 5


def test_plans_of_many_structures_do_not_pile_up(tmp_path: Path) -> None:
    """A program that saves ever new models keeps those of the last few."""
    for size in range(20):
        _write(tmp_path / "a.h5", {"a/vars/0": np.zeros(size)})
    assert len(writer._plans) <= writer._KEPT_PLANS

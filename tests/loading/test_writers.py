"""Files of every Keras since 2.15, and of every backend: each opens, and predicts the same.

The files are in `tests/data/writers`, one archive for each writer, with what each model predicted
when it was saved.
"""

from __future__ import annotations

import json
import sys
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct

FOLDER = Path(__file__).parents[1] / "data" / "writers"
sys.path.insert(0, str(FOLDER))

from kinds import CUSTOM, KINDS, inputs_of  # noqa: E402

WRITERS = sorted(FOLDER.glob("*.zip"))


def _files(suffixes: tuple[str, ...]) -> list[str]:
    found = []
    for archive in WRITERS:
        with zipfile.ZipFile(archive) as opened:
            names = [n for n in opened.namelist() if n != "outputs.json"]
        for name in names:
            suffix = name[name.index(".") :]
            if suffix in suffixes:
                found.append(f"{archive.stem}/{name}")
    return found


def _unpack(file: str, folder: Path) -> tuple[Path, str, list[np.ndarray]]:
    stem, _, name = file.partition("/")
    with zipfile.ZipFile(FOLDER / f"{stem}.zip") as archive:
        archive.extract(name, folder)
        said = json.loads(archive.read("outputs.json"))
    kind = name.partition(".")[0]
    return folder / name, kind, [np.array(one) for one in said["outputs"][kind]]


def _check(model: keras.Model, kind: str, expected: list[np.ndarray]) -> None:
    outputs = model(inputs_of(kind), training=False)
    flat = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    tolerance = 1e-2 if kind in ("trained_mixed", "quantized") else 1e-5
    for ours, theirs in zip(flat, expected, strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings(r"ignore:[\s\S]*structure of `inputs`:UserWarning")
@pytest.mark.parametrize("file", _files((".keras", ".h5")))
def test_model_of_every_writer_opens_and_predicts_the_same(file, tmp_path):
    """A model that cannot be opened a few versions later was not saved."""
    path, kind, expected = _unpack(file, tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*")
        model = kct.safe_load_model(path, custom_objects=CUSTOM)
    _check(model, kind, expected)


@pytest.mark.parametrize("file", _files((".weights.h5",)))
def test_weights_of_every_writer_load_and_predict_the_same(file, tmp_path):
    """Weights are what is left when the code of a model has moved on."""
    path, kind, expected = _unpack(file, tmp_path)
    keras.utils.set_random_seed(99)
    model = KINDS[kind]()
    report = kct.load_weights(model, path, exclude="optimizer/*")
    assert report.matched
    _check(model, kind, expected)

"""Files of every Keras since 2.15, and of every backend: each opens, and predicts the same.

The files are in `tests/files/writers`, one archive for each writer, with what each model predicted
when it was saved. Of the versions in between, only what differs from the oldest and the newest is
opened here; `KCT_TORTURE=1` opens every file.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct

FOLDER = Path(__file__).parents[1] / "files" / "writers"
sys.path.insert(0, str(FOLDER))

import kinds  # noqa: E402

# All models are given one table of custom objects.
pytestmark = pytest.mark.filterwarnings("ignore:.* does not use these names:UserWarning")

WRITERS = sorted(FOLDER.glob("*.zip"))
IN_BETWEEN = ("keras-3.3.3", "keras-3.6.0", "keras-3.8.0", "keras-3.10.0")
OFTEN = ("trained", "subclassed", "quantized", "dropped", "normalized")

# State besides the weights does not fit: it is reinitialized, with one warning.
STARTS_AFRESH = {
    # Stock Keras does not write which variables an optimizer was built on.
    "frozen_after.keras": ("keras-",),
    "frozen_after.h5": ("keras-",),
    # Up to 3.8, the product of Nadam's momenta was not among the variables.
    "trained_nadam.keras": ("keras-3.0", "keras-3.3", "keras-3.6", "keras-3.8"),
    "trained_nadam.h5": ("keras-3.0", "keras-3.3", "keras-3.6", "keras-3.8"),
    # Keras 2 did not save the scale of the loss.
    "trained_mixed.keras": ("keras-2",),
    "trained_mixed.h5": ("keras-2",),
    # In 3.0, adapters were not in the config.
    "adapted_lora.keras": ("keras-3.0",),
}
# Stock Keras 3.15 cannot open these either.
REFUSED = {
    # Keras builds no variables of a subclassed model from such a file.
    "subclassed.h5": ("keras-3",),
    # `RandomRotation` had an argument that it has no more.
    "augmented.keras": ("keras-3.0", "keras-3.3"),
    # The adapters are among the weights, and not in the config.
    "adapted_lora.h5": ("keras-3.0",),
}
# Keras itself computes something else from the same weights by now.
COMPUTES_OTHERWISE = {"binned": ("keras-3.0", "keras-3.3", "keras-3.6", "keras-3.8", "keras-3.10")}


def _is_in(table: dict[str, tuple[str, ...]], key: str, writer: str) -> bool:
    return writer.startswith(table.get(key, ("none",)))


def _files(suffixes: tuple[str, ...]) -> list[str]:
    found = []
    for archive in WRITERS:
        with zipfile.ZipFile(archive) as opened:
            names = [n for n in opened.namelist() if n != "outputs.json"]
        for name in names:
            kind, _, suffix = name.partition(".")
            special = any(name in table for table in (STARTS_AFRESH, REFUSED))
            other = archive.stem.endswith(("jax", "torch")) and suffix != "keras"
            in_between = archive.stem.startswith(IN_BETWEEN) or other
            left_out = in_between and not (special or kind in OFTEN)
            if f".{suffix}" in suffixes and (not left_out or os.environ.get("KCT_TORTURE")):
                found.append(f"{archive.stem}/{name}")
    return found


@functools.cache
def _outputs(stem: str) -> dict[str, list]:
    with zipfile.ZipFile(FOLDER / f"{stem}.zip") as archive:
        return json.loads(archive.read("outputs.json"))["outputs"]


def _unpack(file: str, folder: Path) -> Path:
    stem, _, name = file.partition("/")
    with zipfile.ZipFile(FOLDER / f"{stem}.zip") as archive:
        archive.extract(name, folder)
    return folder / name


def _check(model: keras.Model, file: str) -> None:
    writer, _, name = file.partition("/")
    kind = name.partition(".")[0]
    outputs = model(kinds.inputs_of(kind), training=False)
    flat = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    if _is_in(COMPUTES_OTHERWISE, kind, writer):
        return
    tolerance = 1e-2 if kind in ("trained_mixed", "quantized") else 1e-5
    for ours, theirs in zip(flat, _outputs(writer)[kind], strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=tolerance, atol=tolerance)


@functools.cache
def _built(kind: str) -> keras.Model:
    """Return a model for weights, built and compiled as the kind says, and not trained."""

    def compiled(model, x, optimizer="adam", loss="mse", **more):
        model.compile(optimizer, loss, **more)
        model(x)
        return model

    fitted, kinds.fitted = kinds.fitted, compiled
    try:
        return kinds.KINDS[kind]()
    finally:
        kinds.fitted = fitted


@pytest.mark.filterwarnings(r"ignore:[\s\S]*structure of `inputs`:UserWarning")
@pytest.mark.parametrize("file", _files((".keras", ".h5")))
def test_model_of_every_writer_opens_and_predicts_the_same(file, tmp_path):
    """A model that cannot be opened a few versions later was not saved."""
    path = _unpack(file, tmp_path)
    writer, name = file.split("/")
    if _is_in(REFUSED, name, writer):
        with pytest.raises(kct.errors.CkptError, match=name):
            kct.safe_load_model(path, custom_objects=kinds.CUSTOM)
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.filterwarnings("always", message="All weights of")
        model = kct.safe_load_model(path, custom_objects=kinds.CUSTOM)
    assert len(told) == _is_in(STARTS_AFRESH, name, writer), [str(one.message) for one in told]
    _check(model, file)
    if name.startswith("trained"):
        assert model.compiled
        assert int(model.optimizer.iterations) == (0 if told else 2)


@pytest.mark.filterwarnings(
    "ignore:Layer InputLayer does not have a `quantize` method",
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    r"ignore:[\s\S]*structure of `inputs`:UserWarning",
)
@pytest.mark.parametrize("file", _files((".weights.h5",)))
def test_weights_of_every_writer_load_and_predict_the_same(file, tmp_path):
    """Weights are what is left when the code of a model has moved on."""
    path = _unpack(file, tmp_path)
    model = _built(path.name.partition(".")[0])
    for variable in model.trainable_variables:
        variable.assign(variable + 1)
    assert kct.load_weights(model, path, exclude="optimizer/*")
    _check(model, file)

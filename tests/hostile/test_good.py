"""A good file, old or new, is never refused: it loads, and predicts what it predicted before."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from hostile.good import GOOD, NEEDS_ARCHIVE, Scale

import keras_ckpt_tools as kct

KERAS_2 = sorted((Path(__file__).parents[1] / "files" / "keras2").glob("*.h5"))
H5 = [name for name in GOOD if name not in NEEDS_ARCHIVE]


def saved(model: keras.Model, path: Path) -> Path:
    """Save with stock Keras."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of `.h5`.
        model.save(path)
    return path


# Of an input that was saved as a list of one, older versions of Keras say so.
pytestmark = pytest.mark.filterwarnings(r"ignore:[\s\S]*structure of `inputs`:UserWarning")


def check(model: keras.Model, path: Path, inputs: object, objects: dict[str, object]) -> None:
    """Inspect and load; nothing is reported, and outputs are the same."""
    report = kct.inspect(path, custom_objects=objects)
    assert not report.problems, report
    assert not report.missing, report
    assert not report.untrusted, report
    loaded = kct.safe_load_model(path, custom_objects=objects)
    assert loaded.compiled == model.compiled
    if inputs is not None:
        for old, new in zip(_outputs(model, inputs), _outputs(loaded, inputs), strict=True):
            np.testing.assert_array_equal(old, new)


def _outputs(model: keras.Model, inputs: object) -> list[np.ndarray]:
    return [np.asarray(y) for y in keras.tree.flatten(model(inputs, training=False))]


@pytest.mark.parametrize("name", GOOD)
def test_archive_of_stock_keras_opens(name, tmp_path):
    """Whatever the model is made of."""
    model, inputs, objects = GOOD[name]()
    check(model, saved(model, tmp_path / "model.keras"), inputs, objects)


@pytest.mark.parametrize("name", H5)
def test_h5_of_stock_keras_opens(name, tmp_path):
    """In the older format too, where stock Keras can write it."""
    model, inputs, objects = GOOD[name]()
    check(model, saved(model, tmp_path / "model.h5"), inputs, objects)


@pytest.mark.filterwarnings("ignore:.*input_shape:UserWarning")  # Keras 2 wrote it everywhere.
# What its optimizers keep is laid out otherwise; the model loads, uncompiled, and says so.
@pytest.mark.filterwarnings("ignore:The model was loaded uncompiled:UserWarning")
@pytest.mark.parametrize("path", KERAS_2, ids=[path.stem for path in KERAS_2])
def test_file_of_keras_2_opens(path):
    """Its predictions are those that Keras 2 made."""
    objects = {"Scale": Scale} if path.stem == "custom" else {}
    report = kct.inspect(path, custom_objects=objects)
    assert not report.problems, report
    assert not report.missing, report
    model = kct.safe_load_model(path, custom_objects=objects)
    known = np.load(path.with_suffix(".npz"))
    inputs = [known[name] for name in sorted(known) if name.startswith("x")]
    outputs = _outputs(model, inputs if len(inputs) > 1 else inputs[0])
    for index, output in enumerate(outputs):
        np.testing.assert_allclose(output, known[f"y{index}"], rtol=1e-4, atol=1e-6)
    assert len(KERAS_2) >= 8


def test_unzipped_directory_and_linked_file_open(tmp_path):
    """A folder of its parts, and a link to a file, as caches of models make them."""
    model, inputs, objects = GOOD["custom_layer"]()
    model.save(tmp_path / "folder", zipped=False)
    check(model, tmp_path / "folder", inputs, objects)
    saved(model, tmp_path / "model.keras").rename(tmp_path / "blob")
    (tmp_path / "model.keras").symlink_to(tmp_path / "blob")
    check(model, tmp_path / "model.keras", inputs, objects)


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "ResNet50V2"])
def test_model_of_keras_applications_is_never_refused(name: str, tmp_path: Path) -> None:
    """Graphs of hundreds of layers, trained by others, are what most people load."""
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(32, 32, 3), classes=3)
    images = np.random.default_rng(0).random((1, 32, 32, 3), dtype="float32")
    check(model, saved(model, tmp_path / "net.keras"), images, {})

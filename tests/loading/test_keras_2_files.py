"""Files that Keras 2 wrote open, answer what they answered, and go on training as they did.

`tests/files/keras2/make.py` wrote them with `tf-keras`, and beside each what Keras 2 made of it.
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.loading.keras_2_activation import keras_2_hard_sigmoid

# `KCT_KERAS2_FILES` names a folder that `make.py` filled in the environment of another Keras 2.
FOLDER = Path(os.environ.get("KCT_KERAS2_FILES", Path(__file__).parents[1] / "files" / "keras2"))
ZOO = sorted([*FOLDER.glob("zoo/*.h5"), *FOLDER.glob("zoo/*.keras")])
TRAINED = sorted([*FOLDER.glob("trained/*.h5"), *FOLDER.glob("trained/*.keras")])
pytestmark = pytest.mark.filterwarnings(r"ignore:[\s\S]*structure of `inputs`:UserWarning")
# In these Keras 2 computed something else, or kept no state: see the tests of them.
ELSE = ("nadam", "nadam_older")
OLDER = {"adam_older.keras"}


def outputs_of(model, known):
    """Return what a model makes of the inputs in an `.npz`, as `make.py` asked Keras 2."""
    inputs = [known[name] for name in sorted(known) if name.startswith("x")]
    tensors = [tf.constant(x) for x in inputs]
    named = {tensor.name for tensor in model.inputs} == {"left", "right"}
    given = tensors if len(tensors) > 1 else tensors[0]
    if named:
        given = dict(zip(("left", "right"), tensors, strict=True))
    outputs = model(given, training=False)
    if isinstance(outputs, dict):
        outputs = [outputs[name] for name in sorted(outputs)]
    return [np.asarray(y) for y in keras.tree.flatten(outputs)]


def batch():
    """Return the batch of `trained.py`."""
    random = np.random.default_rng(11)
    x, y = random.normal(0, 1, (4, 4)), random.normal(0, 1, (4, 2))
    return x.astype("float32"), y.astype("float32")


def weights_after_a_step(model, known):
    """Train on the batch once; return the largest difference from what Keras 2 then had."""
    model.train_on_batch(*batch())
    names = {weight.path.removeprefix("net/").replace("/", "."): weight for weight in model.weights}
    assert names.keys() == set(known)
    return max(float(np.abs(w.numpy() - known[name]).max()) for name, w in names.items())


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.name)
def test_model_answers_what_keras_2_answered(path):
    """Whatever layers it is made of, nested, shared, or with TensorFlow functions between them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = kct.safe_load_model(path)
    known = np.load(path.with_suffix(".npz"))
    found = outputs_of(model, known)
    assert len(found) == sum(name.startswith("y") for name in known)
    for index, output in enumerate(found):
        np.testing.assert_allclose(output, known[f"y{index}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["operations.h5", "activations.keras", "mixed.h5"])
def test_inspect_needs_nothing_for_them(name):
    """What the translation put there is of Keras, or of this package."""
    report = kct.inspect(FOLDER / "zoo" / name)
    assert report, report
    assert {use.verdict for use in report.objects} == {"built-in"}


def test_there_are_files_of_both_formats():
    """The tests above and below have something to open."""
    assert sum(path.suffix == ".keras" for path in ZOO) >= 15
    assert sum(path.suffix == ".h5" for path in ZOO) >= 15
    assert len(TRAINED) >= 20


@pytest.mark.parametrize(
    "path",
    [path for path in TRAINED if path.stem not in ELSE and path.name not in OLDER],
    ids=lambda path: path.name,
)
def test_training_goes_on_as_in_keras_2(path):
    """The step after loading is the one that Keras 2 took: rate, schedule and state are there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = kct.safe_load_model(path, compile=True)
    assert int(model.optimizer.iterations) == 3
    assert weights_after_a_step(model, np.load(path.with_suffix(".npz"))) < 1e-6


def test_state_that_keras_2_did_not_save_is_named():
    """Its older optimizers have no state in `.keras`; they begin anew, and the user hears of it."""
    with pytest.warns(UserWarning, match="no state of its Adam.*is reinitialized"):
        model = kct.safe_load_model(FOLDER / "trained" / "adam_older.keras")
    assert int(model.optimizer.iterations) == 0


def test_nadam_is_carried_and_its_older_kind_is_named():
    """The one counts steps on; of the other Keras 3 computes the momentum otherwise."""
    model = kct.safe_load_model(FOLDER / "trained" / "nadam.h5", compile=True)
    assert int(model.optimizer.iterations) == 3
    product = np.prod([0.9 * (1 - 0.5 * 0.96**step) for step in (1, 2, 3)])
    assert float(model.optimizer._u_product) == pytest.approx(product, rel=1e-5)
    older = FOLDER / "trained" / "nadam_older.h5"
    with pytest.warns(UserWarning, match="'Nadam' has the schedule of momentum"):
        assert not kct.safe_load_model(older).compiled
    with pytest.raises(kct.errors.UntranslatableError, match="compile=False"):
        kct.safe_load_model(older, compile=True)
    assert [problem.severity for problem in kct.inspect(older).problems] == ["warning"]


def rewritten(path, target, change):
    """Copy a whole-model `.h5` with another config."""
    target.write_bytes(path.read_bytes())
    with h5py.File(target, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config["config"])
        file.attrs["model_config"] = json.dumps(config)
    return target


def test_what_keras_3_cannot_say_comes_in_one_error(tmp_path):
    """Each layer with what it has and what to do; nothing of it is dropped in silence."""

    def change(config):
        layers = {layer["name"]: layer for layer in config["layers"]}
        layers["tf.__operators__.add"]["config"]["function"] = "raw_ops.Bucketize"
        layers["input_1"]["config"]["ragged"] = True

    path = rewritten(FOLDER / "zoo" / "residual.h5", tmp_path / "model.h5", change)
    with pytest.raises(kct.errors.UntranslatableError) as told:
        kct.safe_load_model(path)
    assert len(told.value.places) == 2
    assert "'input_1' has ragged=True" in told.value.places[0]
    assert "calls `tf.raw_ops.Bucketize`" in told.value.places[1]
    assert "tf_keras" in told.value.remedy
    assert "kct.load_weights(model, " in told.value.remedy
    assert [p.kind for p in kct.inspect(path).problems] == ["UntranslatableError"]


FUNCTIONS = Path(__file__).parents[1] / "files" / "keras2" / "functions.zip"
# Keras 3 has no operation that computes the same for certain, or would need several.
NOT_TRANSLATED = {
    "addn", "argmax", "band", "bcast", "conv", "d2s", "dot", "einsum", "einsum1", "einsum3",
    "mm_ta2", "norm_e", "one_hot3", "sdiff", "shape_b", "topk",
}  # fmt: skip
with zipfile.ZipFile(FUNCTIONS) as _archive:
    NAMES = {name.partition(".")[0] for name in _archive.namelist()}


@pytest.mark.parametrize("name", sorted(NAMES - NOT_TRANSLATED))
def test_functions_between_layers_compute_what_they_computed(name, tmp_path):
    """As operations of Keras 3, with sizes that the model computed as numbers."""
    with zipfile.ZipFile(FUNCTIONS) as archive:
        archive.extractall(tmp_path, [f"{name}.keras", f"{name}.npz"])
    known = np.load(tmp_path / f"{name}.npz")
    found = kct.safe_load_model(tmp_path / f"{name}.keras")(known["x"])
    outputs = [np.asarray(y) for y in keras.tree.flatten(found)]
    expected = [known[key] for key in sorted(known) if key != "x"]
    assert [y.dtype for y in outputs] == [y.dtype for y in expected]
    for ours, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(NOT_TRANSLATED))
def test_functions_without_translation_are_named(name, tmp_path):
    """A wrong answer would be worse than none."""
    with zipfile.ZipFile(FUNCTIONS) as archive:
        archive.extractall(tmp_path, [f"{name}.keras"])
    (problem,) = kct.inspect(tmp_path / f"{name}.keras").problems
    assert problem.kind == "UntranslatableError"
    assert ("does not contain its input tensors" in problem.what) == name.startswith("einsum")


def test_weights_of_what_has_no_translation_load_into_a_model_in_code(tmp_path):
    """What the error advises works: layers in place of the functions, and the weights."""

    def change(config):
        layers = {layer["name"]: layer for layer in config["layers"]}
        layers["tf.__operators__.add"]["config"]["function"] = "raw_ops.Bucketize"

    whole = FOLDER / "zoo" / "residual.h5"
    path = rewritten(whole, tmp_path / "model.h5", change)
    model = kct.safe_load_model(whole)
    before = [np.array(weight) for weight in model.weights]
    for weight in model.weights:
        weight.assign(keras.ops.zeros_like(weight))
    assert kct.load_weights(model, path)
    assert all(map(np.array_equal, before, [np.array(weight) for weight in model.weights]))


@pytest.mark.parametrize("name", ["activations.keras", "activations.h5"])
def test_activation_that_means_another_thing_now_is_saved_again(name, tmp_path):
    """`hard_sigmoid` of Keras 2 stays what it was, in the model and in the files it is saved to."""
    model = kct.safe_load_model(FOLDER / "zoo" / name)
    assert keras_2_hard_sigmoid in [getattr(la, "activation", None) for la in model.layers]
    model.save(tmp_path / "again.keras")
    again = kct.safe_load_model(tmp_path / "again.keras")
    known = np.load(FOLDER / "zoo" / "activations.npz")
    np.testing.assert_array_equal(outputs_of(again, known)[0], outputs_of(model, known)[0])


def _input(shape, dtype="float32"):
    config = {"batch_input_shape": [None, *shape], "dtype": dtype, "name": "x"}
    return {"class_name": "InputLayer", "config": config, "name": "x", "inbound_nodes": []}


def _called(name, function, source, kind="TFOpLambda", **arguments):
    config = {"name": name, "function": function, "dtype": "float32"}
    nodes = [[source, 0, 0, {**arguments, "name": None}]]
    return {"class_name": kind, "config": config, "name": name, "inbound_nodes": nodes}


_REVERSED = [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]
_COMPUTED_OTHERWISE = {
    "a constant with more axes": [
        _input([6]),
        _called("y", "math.multiply", "x", y=[[[1.0]], [[2.0]], [[3.0]]]),
        _called("shape", "compat.v1.shape", "x"),
        _called("size", "__operators__.getitem", "shape", "SlicingOpLambda", slice_spec=0),
        _called("end", "reshape", "y", shape=[["size", 0, 0], -1, 3]),
    ],
    "a slice of integers": [
        _input([4, 4, 3], "uint8"),
        _called("y", "__operators__.getitem", "x", "SlicingOpLambda", slice_spec=_REVERSED),
        _called("end", "image.resize", "y", size=[7, 7]),
    ],
    "a mean of integers": [_input([4], "int32"), _called("end", "math.reduce_mean", "x", axis=-1)],
}


@pytest.mark.parametrize("layers", _COMPUTED_OTHERWISE.values(), ids=_COMPUTED_OTHERWISE)
def test_what_keras_3_would_compute_otherwise_is_refused(layers, tmp_path):
    """A wrong prediction is worse than an error."""
    import h5py

    config = {
        "name": "net",
        "layers": layers,
        "input_layers": [["x", 0, 0]],
        "output_layers": [["end", 0, 0]],
    }
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.15.0", "tensorflow"
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = np.array([layer["name"] for layer in layers], "S")
        for layer in layers:
            weights.create_group(layer["name"]).attrs["weight_names"] = np.array([], "S")
    with pytest.raises(kct.errors.UntranslatableError):
        kct.safe_load_model(path)

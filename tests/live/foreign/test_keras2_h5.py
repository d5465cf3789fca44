"""Weights in the layout of Keras 1 and 2 fill live models, by names where these tell something."""

from __future__ import annotations

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.formats.kinds import Kind, tell
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.live.foreign.keras2_h5 import legacy_weights
from keras_ckpt_tools.live.restore import fill

FOLDER = Path(__file__).parents[2] / "files" / "keras2"
layers = keras.layers


def net(head: str = "head", units: int = 2, *, frozen: bool = False) -> keras.Model:
    """Return the model whose weights `make.py` saved, under names that Keras counts up anew."""
    inner = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="frozen"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(3, name="trained"),
        ],
        name="inner",
    )
    inner.layers[0].trainable = not frozen
    return keras.Sequential(
        [keras.Input((4,)), inner, layers.Dense(3), layers.Dense(units, name=head)]
    )


def lay_out(path: Path, saved: dict[str, dict[str, np.ndarray]], **attributes: str) -> Path:
    """Write a file of weights as Keras 1 and 2 lay it out."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in saved]
        file.attrs.update(attributes)
        for name, weights in saved.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, value in weights.items():
                group[weight] = value
    return path


def dense(number: int, inputs: int = 3, units: int = 3, layer: str = "") -> dict[str, np.ndarray]:
    """Return the weights of a dense layer, all of one number."""
    prefix = f"{layer}/" if layer else ""
    return {
        f"{prefix}kernel:0": np.full((inputs, units), number, "float32"),
        f"{prefix}bias:0": np.full((units,), number, "float32"),
    }


@pytest.mark.parametrize("frozen", [True, False])
def test_weights_of_keras_2_fill_a_nested_model(frozen):
    """Also where another part of it is frozen than when it was saved, which changes their order."""
    path = FOLDER / "weights" / "weights.hdf5"
    assert tell(path).kind is Kind.H5_WEIGHTS_LEGACY
    assert kct.verify(path)
    layers.Dense(1), layers.Dense(1)  # Automatic names do not begin where the file's do.
    model = net(frozen=frozen)
    report = kct.load_weights(model, path)
    assert report
    assert len(report.matched) == 12
    known = np.load(path.with_suffix(".npz"))
    np.testing.assert_allclose(model(known["x0"]), known["y0"], rtol=1e-5, atol=1e-6)


def test_nothing_changes_where_a_layer_does_not_fit():
    """The report names the weight by its path in the model; `strict=False` loads the others."""
    path, model = FOLDER / "weights" / "weights.hdf5", net(units=5)
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(kct.errors.RestoreError) as told:
        kct.load_weights(model, path)
    wrong = [mismatch.path for mismatch in told.value.report.shape_mismatch]
    assert wrong == ["layers/dense_1/vars/0", "layers/dense_1/vars/1"]
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    report = kct.load_weights(model, path, strict=False)
    assert len(report.matched) == 10


def test_whole_model_gives_its_weights_and_its_optimizers_state():
    """A compiled model takes both; one with another optimizer is not given them."""
    path = FOLDER / "trained" / "adam_older.h5"
    saved = kct.safe_load_model(path, compile=True)
    model = keras.models.clone_model(saved)
    model.compile("adam", "mse")
    assert kct.load_weights(model, path)
    for ours, theirs in zip(model.weights, saved.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(
        model.optimizer.variables[2:], saved.optimizer.variables[2:], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert int(model.optimizer.iterations) == 3
    other = keras.models.clone_model(saved)
    other.compile("sgd", "mse")
    with pytest.raises(kct.errors.RestoreError, match="optimizer/Adam/first/kernel/m"):
        kct.load_weights(other, path)


def test_whole_model_of_keras_3_gives_both_as_well(tmp_path):
    """Before its optimizer had any state, too; without an optimizer here, that is passed over."""

    def build(optimizer):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
        if optimizer:
            model.compile(optimizer, "mse")
        return model

    for steps in (0, 1):
        model = build("adam")
        for _ in range(steps):
            model.train_on_batch(np.ones((2, 4)), np.ones((2, 2)))
        keras.saving.save_model(model, tmp_path / "model.h5")
        again = build("adam")
        assert kct.load_weights(again, tmp_path / "model.h5")
        assert int(again.optimizer.iterations) == steps
        np.testing.assert_array_equal(again.layers[0].kernel, model.layers[0].kernel)
        report = kct.load_weights(build(None), tmp_path / "model.h5")
        assert report
        assert report.skipped_optimizer
    with pytest.raises(kct.errors.RestoreError, match="unexpected  optimizer/"):
        kct.load_weights(build("rmsprop"), tmp_path / "model.h5")


def test_names_that_a_user_gave_decide_before_the_order(tmp_path):
    """Two layers of one shape that changed places are not exchanged."""
    path = lay_out(tmp_path / "w.h5", {"left": dense(1), "right": dense(2)}, keras_version="2.4.0")
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, name="right"), layers.Dense(3, name="left")]
    )
    assert kct.load_weights(model, path)
    assert [float(layer.bias[0]) for layer in model.layers] == [2.0, 1.0]


def test_file_of_keras_1_is_matched_by_order(tmp_path):
    """It says no version, and its names are of another fashion."""
    saved = {
        "dense_1": {"dense_1_W": np.ones((3, 3), "float32"), "dense_1_b": np.ones(3, "float32")},
        "dropout_1": {},
        "dense_2": {"dense_2_W": np.ones((3, 2), "float32"), "dense_2_b": np.ones(2, "float32")},
    }
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(2)])
    report = kct.load_weights(model, lay_out(tmp_path / "w.hdf5", saved))
    assert len(report.matched) == 4
    assert float(model(np.ones((1, 3)))[0, 0]) == 13.0


def test_long_lists_of_names_stand_in_pieces(tmp_path):
    """`layer_names0`, `layer_names1`: an attribute has room for 64 kB."""
    path = lay_out(tmp_path / "w.h5", {"a": dense(1), "b": dense(2)})
    with h5py.File(path, "r+") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"a"], [b"b"]
        names = list(file["b"].attrs["weight_names"])
        del file["b"].attrs["weight_names"]
        file["b"].attrs["weight_names0"], file["b"].attrs["weight_names1"] = names[:1], names[1:]
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(3)])
    assert len(kct.load_weights(model, path).matched) == 4
    assert float(model.layers[1].bias[0]) == 2.0


def test_by_name_takes_what_both_have_and_leaves_the_rest_alone(tmp_path):
    """As `by_name=True` of Keras 2: a head of the user's own keeps its weights."""
    saved = {"dense": dense(1), "head": dense(2, 3, 5)}
    path = lay_out(tmp_path / "w.h5", saved, keras_version="2.15.0")
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, name="dense"), layers.Dense(4, name="new_head")]
    )
    with open_source(path) as source:
        weights = legacy_weights(source, model, by_name=True)
        report = fill(model, weights, strict=False)
    assert report.matched == ("layers/dense/vars/0", "layers/dense/vars/1")
    assert not report.unexpected
    assert weights.left_alone == set(report.left_out)
    assert float(model.layers[0].bias[0]) == 1.0


def test_weights_of_a_model_itself_are_found(tmp_path):
    """Keras 2 keeps those in a group beside the layers."""

    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(3)
            self.scale = self.add_weight(shape=(1,), name="scale")

        def call(self, x):
            return self.inner(x) * self.scale

    path = lay_out(tmp_path / "w.h5", {"dense": dense(1)}, keras_version="2.15.0")
    with h5py.File(path, "r+") as file:
        group = file.create_group("top_level_model_weights")
        group.attrs["weight_names"] = [b"scale:0"]
        group["scale:0"] = np.full((1,), 7, "float32")
    model = Scaled()
    model(np.ones((1, 3), "float32"))
    assert len(kct.load_weights(model, path).matched) == 3
    assert float(model.scale[0]) == 7.0


def _names(value):
    return lambda file: file["a"].attrs.__setitem__("weight_names", value)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (_names([b"../b/kernel:0", b"bias:0"]), "DamagedArtefactError", "has no such tensor"),
        (_names([b"/b/kernel:0", b"bias:0"]), "DamagedArtefactError", "has no such tensor"),
        (_names([b"gone:0"]), "DamagedArtefactError", "has no such tensor"),
        (_names([1, 2]), "DamagedArtefactError", "are no names"),
        (lambda f: f.attrs.__setitem__("layer_names", [b".."]), "DamagedArtefactError", "no such"),
        (lambda f: f.attrs.__setitem__("layer_names", [b"a/kernel:0"]), "DamagedArtefactError",
         "has no such group"),
        (lambda f: f["a"].__setitem__("soft", h5py.SoftLink("/b")), "UnsafeArtefactError", "soft"),
        (lambda f: f["a"].__setitem__("far", h5py.ExternalLink("/etc/passwd", "/x")),
         "UnsafeArtefactError", "external"),
    ],
    ids="climbs absolute gone numbers parent tensor soft-link external-link".split(),
)  # fmt: skip
def test_lists_of_a_stranger_reach_nothing_else(change, error, says, tmp_path):
    """Names that lead elsewhere and links: refused, and nothing is changed."""
    path = lay_out(tmp_path / "w.h5", {"a": dense(1), "b": dense(2)}, keras_version="2.15.0")
    with h5py.File(path, "r+") as file:
        change(file)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(3)])
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(getattr(kct.errors, error), match=says):
        kct.load_weights(model, path)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_load_weights_by_name_fills_what_both_have(tmp_path):
    """All of it, or nothing: what is not in the file is left out of the question, and named."""
    path = lay_out(tmp_path / "old.h5", {"both": dense(1), "theirs": dense(2)})
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, name="both"), layers.Dense(3, name="mine")]
    )
    before = model.get_layer("mine").get_weights()
    assert not kct.compare(model, path)
    report = kct.load_weights(model, path, by_name=True)
    assert report
    assert len(report.matched) == 2
    assert len(report.left_out) == 2
    assert (model.get_layer("both").get_weights()[0] == 1).all()
    assert all(
        (a == b).all() for a, b in zip(before, model.get_layer("mine").get_weights(), strict=True)
    )
    wider = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="both")])
    with pytest.raises(kct.errors.RestoreError):
        kct.load_weights(wider, path, by_name=True)

"""What is built is whole: weights, optimizer and assets, or an error that says why not."""

from __future__ import annotations

import json
import threading
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArtefactKindError,
    DamagedArtefactError,
    NotBuiltError,
    RestoreError,
)

FORMATS = ["net.keras", "net.h5"]
X = np.ones((2, 4), "float32")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "momentum", "mixed"])
def test_model_that_was_compiled_and_never_trained_loads(
    optimizer, name, build_custom, objects, save, names, same, tmp_path
):
    """Its optimizer had no state yet, which is whole."""
    made = {
        "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        "mixed": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)),
    }
    model = build_custom(trained=False, optimizer=made.get(optimizer, lambda: optimizer)())
    model.optimizer.learning_rate = 0.5
    loaded = kct.safe_load_model(save(model, tmp_path / name), objects, registry=names)
    assert loaded.compiled
    assert float(loaded.optimizer.learning_rate) == 0.5
    loaded.train_on_batch(X, np.ones((2, 2), "float32"))


@pytest.mark.parametrize("loss", ["mse", "mean_squared_error", keras.losses.Huber(0.5)])
def test_h5_with_kerass_own_losses_and_metrics_loads_compiled(loss, save, names, same, tmp_path):
    """Stock Keras 3 cannot look up the `"mse"` that it wrote, and drops the optimizer's state."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("adam", loss=loss, metrics=["mae", "accuracy", keras.metrics.AUC(name="auc")])
    model.fit(X, np.ones((2, 2), "float32"), verbose=0)
    loaded = kct.safe_load_model(save(model, tmp_path / "net.h5"), registry=names)
    assert same(model, loaded)
    y = np.ones((2, 2), "float32")
    assert loaded.evaluate(X, y, verbose=0) == pytest.approx(model.evaluate(X, y, verbose=0))


@pytest.mark.parametrize("name", FORMATS)
def test_outputs_by_name_keep_their_losses(name, custom, objects, save, names, same, tmp_path):
    """Compile arguments in dictionaries come back in dictionaries."""
    inputs = keras.Input((4,))
    hidden = custom.ResidualBlock()(inputs)
    outputs = {n: keras.layers.Dense(1, name=n)(hidden) for n in ("a", "b")}
    model = keras.Model(inputs, outputs)
    model.compile(
        "sgd",
        loss={"a": custom.soft_loss, "b": "mse"},
        metrics={"a": [custom.Distance(name="distance")], "b": ["mae"]},
        loss_weights={"a": 1.0, "b": 2.0},
    )
    y = {n: np.ones((2, 1), "float32") for n in ("a", "b")}
    model.fit(X, y, verbose=0)
    del objects["bent"]  # Not in this model.
    loaded = kct.safe_load_model(save(model, tmp_path / name), objects, registry=names)
    assert same(model, loaded)
    assert loaded.evaluate(X, y, verbose=0) == pytest.approx(model.evaluate(X, y, verbose=0))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_kerass_tables_are_as_they_were_afterwards(
    name, fails, build_custom, custom, objects, save, names, tmp_path
):
    """After a load and after a failed one; what was registered meanwhile stays."""
    from keras.src.backend.common import global_state

    path = save(build_custom(), tmp_path / name)
    everything = keras.saving.get_custom_objects()
    everything["ResidualBlock"] = "somebody's"
    before = dict(everything)

    class Registering(custom.ResidualBlock):
        @classmethod
        def from_config(cls, config):
            keras.saving.register_keras_serializable("late")(cls)
            if fails:
                raise ValueError("broken on purpose")
            return super().from_config(config)

    objects["ResidualBlock"] = Registering
    if fails:
        with pytest.raises(ValueError, match="broken on purpose") as caught:
            kct.safe_load_model(path, objects, registry=names)
        assert f"while the model of {path!r} was built" in caught.value.__notes__[0]
    else:
        kct.safe_load_model(path, objects, registry=names)
    assert everything == {**before, "late>Registering": Registering}
    assert not global_state.get_global_attribute("custom_objects_scope_dict")
    assert global_state.get_global_attribute("safe_mode_saving") is None
    assert not global_state.get_global_attribute("shared_objects/id_to_obj_map")


def test_threads_load_at_the_same_time_each_with_its_own_objects(
    build_custom, custom, objects, save, names, tmp_path
):
    """Builds wait for each other, since Keras' tables are the process's."""
    path = save(build_custom(), tmp_path / "net.keras")
    loaded = {}

    def load(number):
        mine = type(f"Block{number}", (custom.ResidualBlock,), {})
        model = kct.safe_load_model(path, {**objects, "ResidualBlock": mine}, registry=names)
        loaded[number] = type(model.layers[0]) is mine

    threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == dict.fromkeys(range(4), True)


@pytest.mark.parametrize("name", FORMATS)
def test_flipped_bit_in_a_file_of_ours_is_damage(name, build_cnn, save_ours, tmp_path):
    """A load reads the digests, too."""
    path = Path(save_ours(build_cnn(), tmp_path / name))
    tensor = max(kct.inspect(path).tensors, key=lambda t: t.nbytes)
    data = bytearray(path.read_bytes())
    start = data.index(b"\x93KCT")
    data[start + tensor.offset + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedArtefactError, match="have changed"):
        kct.safe_load_model(path)


def test_assets_of_layers_come_back(save, names, tmp_path):
    """A vocabulary is a file in the archive."""
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
    path = save(model, tmp_path / "net.keras")
    loaded = kct.safe_load_model(path, registry=names)
    assert loaded.layers[0].get_vocabulary() == lookup.get_vocabulary()


def test_weights_that_do_not_fit_the_config_are_a_report(build_cnn, save, tmp_path):
    """A file whose parts contradict each other loads nothing."""
    path = Path(save(build_cnn(filters=4), tmp_path / "a.keras"))
    other = Path(save(build_cnn(filters=8), tmp_path / "b.keras"))
    with zipfile.ZipFile(path) as one, zipfile.ZipFile(other) as two:
        config, tensors = one.read("config.json"), two.read("model.weights.h5")
    with zipfile.ZipFile(tmp_path / "c.keras", "w") as mixed:
        mixed.writestr("config.json", config)
        mixed.writestr("model.weights.h5", tensors)
    with pytest.raises(RestoreError) as caught:
        kct.safe_load_model(tmp_path / "c.keras")
    assert "layers/conv2d/vars/0" in {m.path for m in caught.value.report.shape_mismatch}


def test_optimizer_state_that_does_not_fit_is_no_silence(build_cnn, save, tmp_path):
    """With `True` it is an error; with `"auto"` it is reinitialized, with a warning."""
    model = build_cnn()
    model.train_on_batch(np.ones((2, 8, 8, 1), "float32"), np.ones(2))
    path = save(model, tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        group = file["optimizer_weights"]
        group.attrs["weight_names"] = group.attrs["weight_names"][:-1]
    with pytest.raises(RestoreError, match="does not match the Adam that the file names") as caught:
        kct.safe_load_model(path, compile=True)
    assert len(caught.value.report.missing) == 1
    assert "compile=False" in str(caught.value)
    with pytest.warns(UserWarning, match="optimizer: its tensors do not match"):
        loaded = kct.safe_load_model(path)
    assert loaded.compiled
    assert int(loaded.optimizer.iterations) == 0
    assert not kct.safe_load_model(path, compile=False).compiled


def test_unbuilt_subclassed_model_says_what_to_do(names, tmp_path):
    """A file that does not say the shape cannot give variables their place."""

    @names.register("my_package")
    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.head = keras.layers.Dense(2)

        def call(self, x):
            return self.head(x)

    model = Net()
    model(X)
    model.save(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        config = json.loads(archive.read("config.json"))
        tensors = archive.read("model.weights.h5")
    config["build_config"] = None
    with zipfile.ZipFile(tmp_path / "unbuilt.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", tensors)
    assert np.array_equal(kct.safe_load_model(tmp_path / "net.keras", registry=names)(X), model(X))
    with pytest.raises(NotBuiltError, match=r"call it on one batch of data, and call `kct.load_w"):
        kct.safe_load_model(tmp_path / "unbuilt.keras", registry=names)


def test_config_of_a_layer_is_no_model(forge, layer, names):
    """What comes out is a model, or an error."""
    with pytest.raises(ArtefactKindError, match="holds a Dense, not a model"):
        kct.safe_load_model(forge(layer("Dense", units=1)), registry=names)


@pytest.mark.parametrize("adapted", ["numbers and text", "text alone"])
def test_feature_space_is_loaded(adapted, names, tmp_path):
    """`FeatureSpace.save()` writes the format of models; what it has learned is in it."""
    import tensorflow as tf

    space = keras.utils.FeatureSpace
    features = {"city": space.string_categorical(num_oov_indices=0)}
    data = {"city": ["x", "y", "z", "x"]}
    if adapted != "text alone":
        features |= {"age": space.float_normalized(), "id": space.integer_hashed(num_bins=4)}
        data |= {"age": [1.0, 2.0, 3.0, 5.0], "id": [1, 2, 3, 4]}
    fitted = keras.utils.FeatureSpace(features, output_mode="concat")
    fitted.adapt(tf.data.Dataset.from_tensor_slices(data).batch(2))
    fitted.save(str(tmp_path / "features.keras"))
    assert kct.inspect(tmp_path / "features.keras", registry=names)
    loaded = kct.safe_load_model(tmp_path / "features.keras", registry=names)
    batch = {name: tf.constant(values) for name, values in data.items()}
    assert np.array_equal(loaded(batch), fitted(batch))

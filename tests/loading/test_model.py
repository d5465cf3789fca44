"""Loading a whole model: what is judged is what is built, all of it or nothing."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArgumentError,
    ObjectsNotFoundError,
)
from keras_ckpt_tools.live.attached_progress import attached_progress
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.registry import Registry

FORMATS = ["net.keras", "net.h5"]
X = np.ones((2, 4), "float32")


@pytest.mark.parametrize("name", FORMATS)
def test_model_comes_back_whole_by_custom_objects(
    name, build_custom, save, objects, names, same, tmp_path
):
    """Weights, compile arguments and the optimizer's state are those that were saved."""
    model = build_custom()
    loaded = kct.safe_load_model(save(model, tmp_path / name), objects, registry=names)
    assert same(model, loaded)
    assert loaded.optimizer.iterations == 1
    assert np.array_equal(model(X), loaded(X))
    y = np.ones((2, 2), "float32")
    model.reset_metrics()
    continued, expected = (list(map(float, m.train_on_batch(X, y))) for m in (loaded, model))
    assert continued == pytest.approx(expected)


@pytest.mark.parametrize("name", FORMATS)
def test_model_comes_back_by_registry_alias_and_scope(
    name, build_custom, custom, save, names, same, tmp_path
):
    """A file saved before anything was registered opens with what is registered now."""
    model = build_custom()
    path = save(model, tmp_path / name)
    names.register("my_package")(custom.ResidualBlock)
    names.register("my_package", name="gentle", aliases=["soft_loss"])(custom.soft_loss)
    names.register("my_package")(custom.Distance)
    with names.scope({"bent": custom.bent}):
        assert same(model, kct.safe_load_model(path, registry=names))


def test_scopes_of_keras_and_of_ours_count(build_custom, objects, save, same, tmp_path):
    """Opening a scope is saying so; stock Keras' scope in this thread is as good as ours."""
    model = build_custom()
    path = save(model, tmp_path / "net.keras")
    block = {"ResidualBlock": objects.pop("ResidualBlock")}
    with keras.saving.custom_object_scope(block), kct.scope(objects):
        assert same(model, kct.safe_load_model(path))
    with pytest.raises(ObjectsNotFoundError):
        kct.safe_load_model(path)


def test_declared_plug_in_is_imported_when_it_is_needed(
    build_custom, objects, save, names, tmp_path, monkeypatch
):
    """What was installed and declares the name is trusted; its module is imported to load."""
    info = tmp_path / "site" / "parts-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "parts_of_mine.py").write_text(
        "def bent(x):\n    return x\n\ndef soft_loss(y_true, y_pred):\n    return y_true\n"
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[keras_ckpt_tools.objects]\nbent = parts_of_mine:bent\nsoft_loss = parts_of_mine:gone\n"
    )
    path = save(build_custom(), tmp_path / "net.keras")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    del objects["bent"], objects["soft_loss"]
    with (
        pytest.warns(UserWarning, match="gone.* does not import"),
        pytest.warns(UserWarning, match="loaded uncompiled") as caught,
    ):
        model = kct.safe_load_model(path, objects, registry=names)
    assert model.layers[1].activation.__module__ == "parts_of_mine"
    assert any("declares it, but lacks it" in str(w.message) for w in caught)
    del sys.modules["parts_of_mine"]


@pytest.mark.parametrize("name", FORMATS)
def test_renamed_class_finds_its_weights_by_its_alias(
    name, build_custom, custom, objects, save, names, same, tmp_path
):
    """Keras puts weights where the class's name says; here, where it was called something else."""
    model = build_custom(extra=(custom.ResidualBlock(name="second"),))
    path = save(model, tmp_path / name)

    @names.register("my_package", aliases=["ResidualBlock"])
    class Block(custom.ResidualBlock):
        pass

    del objects["ResidualBlock"]
    loaded = kct.safe_load_model(path, objects, registry=names)
    assert [type(layer) for layer in loaded.layers[:2]] == [Block, Block]
    assert same(model, loaded)


@pytest.mark.parametrize("directory", [False, True])
def test_unzipped_directory_opens_as_the_archive_does(
    directory, build_custom, save, objects, names, same, tmp_path
):
    """Keras writes both; a path object is as good as a string."""
    model = build_custom()
    path = tmp_path / ("net" if directory else "net.keras")
    if directory:
        keras.saving.save_model(model, path, zipped=False)
    else:
        save(model, path)
    assert same(model, kct.safe_load_model(path, objects, registry=names))


@pytest.mark.parametrize("name", FORMATS)
def test_older_version_of_a_class_is_migrated(name, save_ours, same, tmp_path):
    """A class opens configs of its older self, from either format."""
    names = kct.registry
    with names._isolated():

        @names.register("my_package")
        class Scale(keras.layers.Layer):
            def __init__(self, factor=1.0, **kwargs):
                super().__init__(**kwargs)
                self.factor = factor

            def call(self, x):
                return x * self.factor

            def get_config(self):
                return {**super().get_config(), "factor": self.factor}

        model = keras.Sequential([keras.Input((4,)), Scale(3.0), keras.layers.Dense(2)])
        path = save_ours(model, tmp_path / name)

    seen = []

    def migrate(config, from_version):
        seen.append(from_version)
        return {**{k: v for k, v in config.items() if k != "factor"}, "times": config["factor"]}

    new = Registry()

    @new.register("my_package", name="Scale", version=2, migrate=migrate)
    class NewScale(keras.layers.Layer):
        def __init__(self, times=1.0, **kwargs):
            super().__init__(**kwargs)
            self.times = times

        def call(self, x):
            return x * self.times

        def get_config(self):
            return {**super().get_config(), "times": self.times}

    loaded = kct.safe_load_model(path, registry=new)
    assert loaded.layers[0].times == 3.0
    assert seen == [1]
    assert np.array_equal(model(X), loaded(X))


def test_file_of_the_present_version_is_not_migrated(save_ours, tmp_path):
    """The record says which version wrote it."""

    def migrate(config, from_version):
        raise AssertionError("migrated")

    with kct.registry._isolated():

        @kct.register("my_package", version=2, migrate=migrate)
        class Scale(keras.layers.Layer):
            def call(self, x):
                return x

        model = keras.Sequential([keras.Input((4,)), Scale(), keras.layers.Dense(2)])
        path = save_ours(model, tmp_path / "net.keras")
        assert type(kct.safe_load_model(path).layers[0]) is Scale


def test_progress_of_the_file_goes_with_the_model(build_cnn, save_ours, tmp_path):
    """Where training is can be asked of the loaded model."""
    progress = TrainingProgress(epochs_completed=4, step=99, run_id="r")
    for name in ("a.keras", "a.h5"):
        model = kct.safe_load_model(save_ours(build_cnn(), tmp_path / name, progress))
        assert attached_progress(model).epochs_completed == 4
        assert kct.training_progress(model).step == 99


def test_model_of_ours_comes_back_whole(build_custom, objects, save_ours, names, same, tmp_path):
    """Files with our record load like stock ones, from each format."""
    model = build_custom()
    for name in FORMATS:
        path = save_ours(model, tmp_path / name)
        assert same(model, kct.safe_load_model(path, objects, registry=names))


@pytest.mark.parametrize("value", ["yes", None, 1, 2, "Auto"])
def test_compile_takes_three_values(value, tmp_path):
    """A misspelt `compile` is an error before anything is read."""
    with pytest.raises(ArgumentError, match=r'Pass True, False or "auto"'):
        kct.safe_load_model(tmp_path, compile=value)


def test_trust_and_objects_are_checked_before_anything_is_read(tmp_path):
    """There is no `trusted=True`; instances are no classes."""
    with pytest.raises(ArgumentError, match="no `trusted=True`"):
        kct.safe_load_model(tmp_path, trusted=True)
    with pytest.raises(ArgumentError, match="custom_objects"):
        kct.safe_load_model(tmp_path, custom_objects={"Dense": keras.layers.Dense(1)})

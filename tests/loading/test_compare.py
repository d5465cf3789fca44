"""Comparing says what a restore would do, and touches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError


def train(model):
    """Train for a batch."""
    model.train_on_batch(np.ones((2, 8, 8, 1), "float32"), np.ones(2))
    return model


def test_a_model_and_a_file_that_fit(build_cnn, save, tmp_path):
    """Everything matched, in either direction of time."""
    model = train(build_cnn())
    path = save(model, tmp_path / "a.keras")
    report = kct.compare(model, path)
    assert report
    assert "optimizer/vars/0" in report.matched


def test_comparing_builds_and_changes_nothing(build_cnn, tmp_path):
    """The optimizer of a model never trained stays unbuilt; its state counts as skipped."""
    train(build_cnn()).save_weights(tmp_path / "a.weights.h5")
    model = build_cnn(filters=8)
    before = [np.array(w.numpy()) for w in model.weights]
    report = kct.compare(model, tmp_path / "a.weights.h5")
    assert {m.path for m in report.shape_mismatch} >= {"layers/conv2d/vars/0"}
    assert report.skipped_optimizer
    assert not model.optimizer.built
    assert all(np.array_equal(w.numpy(), b) for w, b in zip(model.weights, before, strict=True))


def test_two_files_are_compared_by_their_tensors(build_cnn, tmp_path):
    """The first stands for the model."""
    build_cnn(compiled=False).save_weights(tmp_path / "a.weights.h5")
    build_cnn(compiled=False, filters=8).save_weights(tmp_path / "b.weights.h5")
    assert kct.compare(tmp_path / "a.weights.h5", str(tmp_path / "a.weights.h5"))
    report = kct.compare(tmp_path / "a.weights.h5", tmp_path / "b.weights.h5")
    assert "layers/conv2d/vars/0" in {m.path for m in report.shape_mismatch}


@pytest.mark.parametrize("first", [None, 3, b"a.weights.h5"])
def test_first_argument_is_a_model_or_a_path(first, build_cnn, tmp_path):
    """Anything else is an error."""
    build_cnn().save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ArgumentError):
        kct.compare(first, tmp_path / "a.weights.h5")


def test_a_directory_of_checkpoints_is_compared_by_its_newest(tmp_path: Path) -> None:
    """As `load_weights` takes it."""
    import keras

    def build(units: int) -> Any:
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])

    manager = kct.CheckpointManager(tmp_path, model=build(2))
    manager.save()
    assert kct.compare(build(2), tmp_path)
    assert not kct.compare(build(3), tmp_path)


def test_two_files_are_compared_by_the_names_of_their_layers(tmp_path: Path) -> None:
    """As a model and a file are."""
    import keras

    for name, names in (("a", "xy"), ("b", "yx")):
        stack = [keras.layers.Dense(2, name=one) for one in names]
        model = keras.Sequential([keras.Input((2,)), *stack])
        model.save_weights(tmp_path / f"{name}.weights.h5")
    report = kct.compare(tmp_path / "a.weights.h5", tmp_path / "b.weights.h5")
    assert report
    assert len(report.renamed) == 4
    one = kct.compare(
        tmp_path / "a.weights.h5", tmp_path / "b.weights.h5", include="layers/dense/*"
    )
    assert len(one.matched) == 2


def test_a_tensorflow_checkpoint_is_compared_too(tmp_path: Path) -> None:
    """It comes through the same door."""
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    path = tf.train.Checkpoint(model=model).save(tmp_path / "ckpt")
    assert kct.compare(model, path)


def test_a_path_is_called_by_no_name_of_the_other_side(tmp_path):
    """Where a layer has another name in the file, the model's is not called by that."""
    path = tmp_path / "a.weights.h5"
    _dense("one").save_weights(path)
    report = kct.compare(_dense("other"), path)
    assert report.missing == report.unexpected == ("layers/dense/vars/0", "layers/dense/vars/1")
    assert [(one.name_in_file, one.name_in_model) for one in report.misnamed] == [("one", "other")]
    assert report.names == {}


def _dense(name):
    import keras

    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name=name)])


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One trained model in each kind of file that `load_weights` reads; read-only."""
    import zipfile

    import tensorflow as tf

    from keras_ckpt_tools.tools.export import export

    folder = tmp_path_factory.mktemp("everywhere")
    model = _trained()
    kct.CheckpointManager(folder / "run", model=model, optimizer=model.optimizer).save()
    kct.CheckpointManager(folder / "tf run", format="tf", model=model).save()
    found = {"run": folder / "run", "checkpoint of a run": folder / "run/ckpt-00000001.weights.h5"}
    found |= {"tf run": folder / "tf run", "prefix of a tf run": folder / "tf run/ckpt-00000001"}
    for name in (".weights.h5", ".keras", "unzipped", ".safetensors", ".h5"):
        found[name] = folder / f"m{name}"
    found["sharded"] = folder / "w.weights.json"
    model.save_weights(found[".weights.h5"])
    model.save_weights(found["sharded"], max_shard_size=1e-6)
    model.save(found[".keras"])
    with zipfile.ZipFile(found[".keras"]) as archive:
        archive.extractall(found["unzipped"])
    export(found[".weights.h5"], found[".safetensors"])
    found["tf"] = Path(tf.train.Checkpoint(model=model).save(folder / "tf/cp"))
    model.save(found[".h5"])  # Keras takes the optimizer out of the model's config here.
    return {name: str(path) for name, path in found.items()}


def _trained() -> Any:
    import keras

    layers = [keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(np.ones((4, 2), "float32"), np.ones((4, 1), "float32"))
    return model


KINDS = ("run", "checkpoint of a run", "tf run", "prefix of a tf run", ".weights.h5", ".keras",
         "unzipped", ".safetensors", ".h5", "sharded")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_two_paths_are_compared_whatever_they_are(kind, everywhere):
    """What `load_weights` reads, `compare` does, on either side, and finds that it fits."""
    assert kct.load_weights(_trained(), everywhere[kind])
    assert kct.compare(everywhere[kind], everywhere[".weights.h5"])
    assert kct.compare(everywhere["run"], everywhere[kind])


def test_files_of_different_layouts_are_compared_by_the_model_of_one(everywhere):
    """A TensorFlow checkpoint names attributes of Python; the model tells which tensors those are.

    Where neither file has it, the answer names the calls with a model, and these work.
    """
    from keras_ckpt_tools.errors import ArtefactKindError

    for described in (".keras", ".h5"):
        assert kct.compare(everywhere["tf"], everywhere[described])
        assert kct.compare(everywhere[described], everywhere["tf"])
    assert kct.compare(everywhere["tf"], everywhere["tf"])
    with pytest.raises(ArtefactKindError) as caught:
        kct.compare(everywhere["tf"], everywhere[".weights.h5"])
    for path in (everywhere["tf"], everywhere[".weights.h5"]):
        assert f"`kct.compare(model, {path!r})`" in caught.value.remedy
        assert kct.compare(_trained(), path)


def test_two_paths_that_do_not_fit_are_told_so(everywhere, tmp_path):
    """In any layout, with the paths in the model."""
    import keras

    layers = [keras.layers.Dense(5), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    keras.Sequential([keras.Input((2,)), *layers]).save_weights(tmp_path / "other.weights.h5")
    for kind in ("run", ".h5", "sharded"):
        report = kct.compare(everywhere[kind], tmp_path / "other.weights.h5")
        assert not report
        unlike = {m.path for m in report.shape_mismatch}
        assert unlike == {"layers/dense/vars/0", "layers/dense/vars/1", "layers/dense_1/vars/0"}


def test_a_damaged_newest_checkpoint_is_passed_over_on_both_sides(tmp_path):
    """As `load_weights` does it."""
    import os

    model = _trained()
    manager = kct.CheckpointManager(tmp_path, model=model)
    manager.save()
    manager.save()
    model.save_weights(tmp_path / "plain.h5.weights.h5")
    os.truncate(manager.latest_checkpoint, 2000)
    assert kct.compare(tmp_path, tmp_path / "plain.h5.weights.h5")
    assert kct.compare(tmp_path / "plain.h5.weights.h5", tmp_path)


def test_checkpoints_of_several_models_are_compared_as_a_whole(tmp_path):
    """All that was tracked, without the state of the runs."""
    for name in ("a", "b"):
        kct.CheckpointManager(tmp_path / name, one=_trained(), two=_trained()).save()
    report = kct.compare(tmp_path / "a", tmp_path / "b")
    assert report
    assert {path.partition("/")[0] for path in report.matched} == {"one", "two"}


def test_a_model_that_cannot_be_built_is_asked_for(tmp_path):
    """Two layouts, and a class that nobody vouches for: the answer is to pass the model."""
    import keras
    import tensorflow as tf

    from keras_ckpt_tools.errors import ObjectsNotFoundError

    class Mine(keras.layers.Dense):
        pass

    model = keras.Sequential([keras.Input((2,)), Mine(1)])
    model.save(tmp_path / "m.keras")
    prefix = tf.train.Checkpoint(model=model).save(tmp_path / "cp")
    with pytest.raises(ObjectsNotFoundError, match=r"kct\.compare\(model, path\)"):
        kct.compare(tmp_path / "m.keras", prefix)
    assert kct.compare(model, prefix)


def test_orbax_checkpoints_are_compared_with_files(tmp_path):
    """All of one, or one step of it."""
    import importlib.util

    import keras

    pytest.importorskip("tensorstore")
    if not hasattr(keras.callbacks, "OrbaxCheckpoint"):
        pytest.skip("this Keras does not know all arguments in the config")
    folder = Path(__file__).parents[1] / "files" / "orbax"
    spec = importlib.util.spec_from_file_location("kct_orbax_make", folder / "make.py")
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    model, tint = program.build()
    model.save_weights(tmp_path / "m.weights.h5")
    with kct.scope({"paints>Tint": tint}):
        for path in (folder / "whole", folder / "whole" / "0"):
            assert kct.compare(path, tmp_path / "m.weights.h5").missing == ()
            assert kct.compare(tmp_path / "m.weights.h5", path)
            assert kct.compare(path, folder / "whole")

"""Whatever is handed over in place of a model, the error says what it is and what opens it."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArtefactKindError,
    ArtefactNotFoundError,
    DamagedArtefactError,
)


def refusal(path, kind=ArtefactKindError):
    """Return what `safe_load_model` says of a path."""
    with pytest.raises(kind) as caught:
        kct.safe_load_model(path)
    assert caught.value.path == str(path)
    assert f"Received: path={str(path)!r}." in str(caught.value)
    return str(caught.value)


def test_weights_are_not_a_model(build_cnn, tmp_path):
    """The call that fills them into a model is named."""
    path = tmp_path / "a.weights.h5"
    build_cnn().save_weights(path)
    text = refusal(path)
    assert text.startswith("This file holds weights only")
    assert f"call `kct.load_weights(model, {str(path)!r})`" in text


def test_checkpoint_of_a_run_is_not_a_model(build_cnn, tmp_path):
    """Both a checkpoint and its directory name the manager's call."""
    manager = kct.CheckpointManager(tmp_path / "run", model=build_cnn())
    manager.save()
    for path in (tmp_path / "run", manager.latest_checkpoint):
        text = refusal(path)
        assert "of a training run" in text
        assert f"kct.load_weights(model, {str(path)!r})" in text
        assert f"kct.CheckpointManager({str(tmp_path / 'run')!r}, model=model" in text
        assert ".restore_or_initialize()" in text


def test_tensorflow_checkpoint_names_its_call(tmp_path):
    """For its directory, its prefix, and each of its files."""
    prefix = tf.train.Checkpoint(v=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    files = [str(tmp_path / "checkpoint"), f"{prefix}.index", f"{prefix}.data-00000-of-00001"]
    for path in [str(tmp_path), prefix, *files]:
        text = refusal(path)
        assert "This is a TensorFlow checkpoint" in text
        assert f"kct.load_weights(model, {path!r})" in text


def test_saved_model_names_its_calls(tmp_path):
    """A directory that TensorFlow wrote is a program, not a model."""
    tf.saved_model.save(tf.Module(), str(tmp_path / "sm"))
    for path in (tmp_path / "sm", tmp_path / "sm" / "saved_model.pb"):
        text = refusal(path)
        assert "This is a SavedModel" in text
        assert f"keras.layers.TFSMLayer({str(tmp_path / 'sm')!r}" in text
        assert f"tf.saved_model.load({str(tmp_path / 'sm')!r})" in text


def npz() -> bytes:
    """Return arrays as NumPy saves them."""
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(1))
    return stream.getvalue()


FOREIGN = {
    "pickle": (pickle.dumps([1, 2]), "never opened here"),
    "arrays": (npz(), "numpy.load("),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull --include="),
    "page": (b"<!doctype html>", "download the file again"),
    "text": (b"hello", "Pass a `.keras` or `.h5` file"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_file_is_told_and_not_opened(case, tmp_path):
    """A name that ends in `.keras` changes nothing."""
    content, remedy = FOREIGN[case]
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    assert remedy in refusal(path)
    with pytest.raises(ArtefactKindError, match="Received"):
        kct.load_weights(keras.Sequential(), path)


def test_empty_file_is_damage(tmp_path):
    """A save that never got to write anything leaves zero bytes."""
    path = tmp_path / "model.keras"
    path.write_bytes(b"")
    assert "The file is damaged: empty: it has no bytes." in refusal(path, DamagedArtefactError)


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
def test_truncated_file_is_damage(name, build_cnn, save, tmp_path):
    """How much is there, of how much, is said before Keras is asked."""
    path = tmp_path / name
    save(build_cnn(), path)
    size = path.stat().st_size
    os.truncate(path, size // 2)
    text = refusal(path, DamagedArtefactError)
    assert f"truncated at {size // 2:,}" in text
    assert "kct.verify" in text


def test_pipe_is_not_opened(tmp_path):
    """Opening it would wait for ever."""
    os.mkfifo(tmp_path / "model.keras")
    assert "a pipe, a socket or a device" in refusal(tmp_path / "model.keras")


def test_empty_directory_says_so(tmp_path):
    """A directory is named as one, with what is in it."""
    assert "This one is empty." in refusal(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert "This one contains: 'notes.txt'." in refusal(tmp_path)


def test_missing_file_names_what_is_there(tmp_path):
    """The nearest name is in the message."""
    (tmp_path / "model.keras").write_bytes(b"")
    text = refusal(tmp_path / "modl.keras", ArtefactNotFoundError)
    assert "there is: 'model.keras'" in text


def test_weights_of_a_whole_model_in_the_legacy_layout_are_weights(build_cnn, save, tmp_path):
    """`load_weights` knows the layout of `.h5` models; nobody has to be sent elsewhere."""
    model = build_cnn()
    path = save(model, tmp_path / "a.h5")
    again = build_cnn()
    assert kct.load_weights(again, path)
    assert all((a == b).numpy().all() for a, b in zip(model.weights, again.weights, strict=True))


def test_archive_that_lacks_its_config_is_damage(tmp_path):
    """Weights in an archive without a config are no model."""
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"")
    assert "config.json missing" in refusal(tmp_path / "a.keras", DamagedArtefactError)


def test_the_json_of_a_model_names_the_calls(tmp_path):
    """`model.to_json()` has no weights; the calls in the answer build the model and fill it."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save_weights(tmp_path / "w.weights.h5")
    path = tmp_path / "model.json"
    path.write_text(model.to_json())
    text = refusal(path)
    assert "the output of `model.to_json()`" in text
    assert f"keras.models.model_from_json(open({str(path)!r}).read())" in text
    with pytest.raises(ArtefactKindError, match="model_from_json"):
        kct.load_weights(model, path)
    assert "model_from_json" in str(kct.inspect(path))
    with open(path) as file:
        built = keras.models.model_from_json(file.read())
    assert kct.load_weights(built, tmp_path / "w.weights.h5")


def test_the_config_of_an_unzipped_model_names_its_folder(tmp_path):
    """It is one file of several."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / "m.keras")
    folder = tmp_path / "m"
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        archive.extractall(folder)
    assert f"`kct.safe_load_model({str(folder)!r})`" in refusal(folder / "config.json")
    assert kct.safe_load_model(folder)


@pytest.mark.parametrize(
    "text",
    [
        '{"metadata": {}, "weight_map": {"dense.weight": "model-00001-of-00002.safetensors"}}',
        '{"format": "layers-model", "modelTopology": {}, "weightsManifest": []}',
        "{}",
    ],
)
def test_other_json_is_said_to_be_that(text, tmp_path):
    """Neither damaged, nor Keras' own."""
    path = tmp_path / "model.json"
    path.write_text(text)
    said = refusal(path)
    assert said.startswith("This is JSON that keras_ckpt_tools does not read")
    assert "`.weights.json`" in said

"""Files of strangers on disk: swapped, grown, linked, piped; and what is left after them."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.src.saving import serialization_lib

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    CkptError,
    DamagedArtefactError,
    UnsafeArtefactError,
)
from keras_ckpt_tools.formats import source as sources
from keras_ckpt_tools.formats.kinds import tell
from keras_ckpt_tools.formats.open_source import open_source


@pytest.fixture
def unzipped(build_cnn, save, tmp_path):
    """A model as an unzipped directory."""
    folder = tmp_path / "unzipped"
    with zipfile.ZipFile(save(build_cnn(), tmp_path / "a.keras")) as archive:
        archive.extractall(folder)
    return folder


def test_a_file_that_was_replaced_after_a_look_is_looked_at_again(build_cnn, save, tmp_path):
    """What was said of the one does not hold for the other."""
    path = Path(save(build_cnn(), tmp_path / "a.h5"))
    artefact = tell(path)
    (tmp_path / "b.h5").write_bytes(b"<html>")
    os.replace(tmp_path / "b.h5", path)
    with pytest.raises(ArtefactKindError, match="web page"):
        open_source(path, artefact)


def test_a_file_that_grows_after_a_look_is_looked_at_again(build_cnn, save, tmp_path):
    """The one that is opened is the one that was looked through."""
    path = Path(save(build_cnn(), tmp_path / "a.h5"))
    artefact = tell(path)
    with path.open("ab") as file:
        file.write(b"more")
    with open_source(path, artefact) as source:
        assert source.tensors


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
def test_a_file_that_is_written_to_while_it_is_read_is_not_loaded(
    name, build_cnn, save, tmp_path, monkeypatch
):
    """Somebody writes between the look and the load, into the same file."""
    path = save(build_cnn(), tmp_path / name)
    read = sources.Source.check

    def check_and_write(self):
        read(self)
        os.utime(path, ns=(1, 1))

    monkeypatch.setattr(sources.Source, "check", check_and_write)
    with pytest.raises(DamagedArtefactError, match="was written to while it was being read"):
        kct.safe_load_model(path)


def test_report_and_load_agree_about_a_changed_byte(build_cnn, save, tmp_path):
    """A zip has checksums, also where we did not write it."""
    path = Path(save(build_cnn(), tmp_path / "a.keras"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "the checksum of its member model.weights.h5 is wrong" in kct.inspect(path).problems[0]
    with pytest.raises(DamagedArtefactError, match="checksum of its member"):
        kct.safe_load_model(path)


def test_a_link_to_a_model_is_followed(build_cnn, save, tmp_path):
    """As caches of models have them."""
    path = save(build_cnn(), tmp_path / "blob.keras")
    (tmp_path / "model.keras").symlink_to(path)
    assert kct.safe_load_model(tmp_path / "model.keras").count_params()


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5", "metadata.json", "more"])
def test_a_link_inside_a_directory_is_refused(member, unzipped):
    """Wherever it leads: to a file that is no secret in this test."""
    (unzipped / member).unlink(missing_ok=True)
    (unzipped / member).symlink_to("/etc/hostname")
    assert kct.inspect(unzipped).problems[0].kind == "UnsafeArtefactError"
    for call in (kct.safe_load_model, lambda path: kct.load_weights(keras.Sequential(), path)):
        with pytest.raises(UnsafeArtefactError, match="is a link"):
            call(unzipped)


def test_assets_come_from_the_directory_alone(unzipped):
    """A link among the vocabularies would be read into the model."""
    (unzipped / "assets").mkdir()
    (unzipped / "assets/words").symlink_to("/etc")
    with pytest.raises(UnsafeArtefactError, match="'words'"):
        kct.safe_load_model(unzipped)


def test_an_unzipped_directory_loads(unzipped, build_cnn):
    """So that the refusals above are not of everything."""
    model = kct.safe_load_model(unzipped)
    assert np.array_equal(model.get_weights()[0], build_cnn().get_weights()[0])


def test_a_pipe_does_not_block(tmp_path):
    """Nobody will ever write into it."""
    os.mkfifo(tmp_path / "a.keras")
    done = []
    thread = threading.Thread(target=lambda: done.append(kct.inspect(tmp_path / "a.keras")))
    thread.start()
    thread.join(10)
    assert "not opened" in done[0].problems[0]
    with pytest.raises(ArtefactKindError, match="a pipe, a socket or a device"):
        kct.safe_load_model(tmp_path / "a.keras")


@pytest.mark.parametrize("url", ["https://example.com/a.keras", "hf://user/model", "s3://b/a.h5"])
def test_nothing_is_fetched(url):
    """An address is not a path."""
    for call in (kct.inspect, kct.safe_load_model):
        with pytest.raises(ArgumentError, match=r"Download the file first"):
            call(url)


# What changes each setting; a backend cannot be changed in a process.
WRITERS = ("set_", "enable_", "disable_")
CHANGES = {
    "set_floatx": "float64", "set_epsilon": 0.5, "set_image_data_format": "channels_first",
    "set_dtype_policy": "mixed_bfloat16", "set_max_epochs": 3, "set_max_steps_per_epoch": 4,
    "disable_flash_attention": None, "enable_unsafe_deserialization": None,
    "disable_interactive_logging": None, "disable_traceback_filtering": None,
}  # fmt: skip


@pytest.mark.parametrize("broken", [False, True])
def test_process_wide_state_is_as_it_was(broken, forge, chain, layer, names):
    """Whatever code of the user's does while a model is built, and also if it fails."""

    @names.register("shop")
    class Meddler(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            for name, value in CHANGES.items():
                if hasattr(keras.config, name):
                    getattr(keras.config, name)(*([value] if value is not None else []))
            keras.saving.get_custom_objects()["shop>Meddler"] = dict
            changed.append(settings())
            if broken:
                raise ValueError("broken on purpose")

    def settings():
        readers = [n for n in dir(keras.config) if not n.startswith(("_", *WRITERS))]
        found = {name: getattr(keras.config, name)() for name in readers}
        return {**found, "safe mode": serialization_lib.in_safe_mode()}

    changed = []
    node = {**layer("Meddler", "shop"), "registered_name": "shop>Meddler"}
    path = forge(chain(node))
    before, objects = settings(), dict(keras.saving.get_custom_objects())
    if broken:
        with pytest.raises(TypeError, match="broken on purpose"):
            kct.safe_load_model(path, registry=names)
    else:
        kct.safe_load_model(path, registry=names)
    assert settings() == before
    same = {"backend", "is_nnx_enabled"}
    assert {name for name, value in changed[0].items() if value == before[name]} <= same
    left = dict(keras.saving.get_custom_objects())
    left.pop("shop>Meddler", None)
    assert left == objects


@pytest.mark.parametrize("ours", [False, True])
def test_nan_in_the_weights_is_told_and_not_refused(ours, build_cnn, save, save_ours, tmp_path):
    """It is legal; and the model will answer NaN."""
    model = build_cnn(compiled=False)
    kernel = np.array(model.layers[0].kernel)
    kernel[0, 0, 0, 0] = np.nan
    model.layers[0].kernel.assign(kernel)
    path = (save_ours if ours else save)(model, tmp_path / "a.keras")
    with pytest.warns(UserWarning, match=r"1 tensor has NaN or infinity: .*/vars/0"):
        assert kct.safe_load_model(path).count_params()
    report = kct.load_weights(build_cnn(compiled=False), path)
    assert report
    assert len(report.not_finite) == 1
    assert "1 with NaN or infinity" in report.summary
    if not ours:
        # Of a file of ours, `inspect` does not read the tensors.
        found = kct.inspect(path)
        assert found
        assert [problem.severity for problem in found.problems] == ["warning"]


def test_a_newer_keras_and_keras_2_are_named(forge, chain, layer, names):
    """Where something is missing, that may be why."""
    node = layer("DenseOfTheFuture")
    newer = kct.inspect(forge(chain(node), version="99.1.0"), registry=names)
    assert "Keras 99.1.0 wrote the file" in newer.warnings[0]
    assert newer.refused == ("DenseOfTheFuture",)
    for version, said in (("99.1.0", "pip install 'keras>=99.1.0'"), ("2.13.1", "tf_keras")):
        with pytest.raises(CkptError) as caught:
            kct.safe_load_model(forge(chain(node), version=version), registry=names)
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        ("tensorflow_addons.activations", "Addons>gelu", "keras.activations.gelu"),
        ("tensorflow_addons.layers", "Addons>WeightNormalization", "ended in May 2024"),
        ("keras_nlp.src.models", "keras_nlp>BertBackbone", "moved to keras_hub"),
        ("keras_cv.layers", "keras_cv>RandAugment", "moved to keras_hub"),
        ("keras_hub.src.models", "keras_hub>BertBackbone", 'trusted=["keras_hub>*"]'),
        ("tensorflow_hub.keras_layer", "KerasLayer", "works with Keras 2 only"),
        ("keras.layers", "TFOpLambda", "as Keras 2 saved it"),
    ],
)
def test_packages_that_are_gone_have_a_successor(module, name, said, forge, chain, layer, names):
    """What to install, or to take in its place."""
    node = {**layer(name.rpartition(">")[2], module), "registered_name": name}
    with pytest.raises(CkptError) as caught:
        kct.safe_load_model(forge(chain(node)), registry=names)
    assert said in str(caught.value)

"""Inspecting says what a file is and needs, and runs none of it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, ArtefactNotFoundError
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.metadata import TrainingProgress

ROOT = Path(__file__).parents[2]


def verdicts(report):
    """Return the verdicts on what is not Keras' own, by name."""
    return {u.registered_name: u.verdict for u in report.objects if u.verdict != "built-in"}


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_what_nothing_defines_is_missing(name, build_custom, save, names, tmp_path):
    """Each custom object is named, in both formats, with the part that needs it."""
    report = kct.inspect(save(build_custom(), tmp_path / name), registry=names)
    assert verdicts(report) == dict.fromkeys(
        ["ResidualBlock", "bent", "soft_loss", "Distance"], "missing"
    )
    parts = {u.registered_name: u.part for u in report.objects}
    assert parts["bent"] == "model"
    assert parts["Distance"] == "compile"
    assert report.missing == ("ResidualBlock", "bent", "soft_loss", "Distance")
    assert report.versions["keras"] == keras.__version__
    assert len(report.tensors) == 14
    assert not report.problems


def test_every_way_to_vouch_for_an_object_has_its_verdict(
    build_custom, custom, save, names, tmp_path
):
    """Explicit objects, scopes, the registry and its aliases are told apart."""
    path = save(build_custom(), tmp_path / "net.keras")
    names.register("my_package")(custom.ResidualBlock)
    names.register("my_package", name="gentle", aliases=["soft_loss"])(custom.soft_loss)
    with names.scope({"Distance": custom.Distance}):
        report = kct.inspect(path, {"bent": custom.bent}, registry=names)
    assert verdicts(report) == {
        "ResidualBlock": "registered",
        "bent": "custom_objects",
        "soft_loss": "alias",
        "Distance": "scope",
    }
    assert not report.missing
    assert "defined at" in next(u.note for u in report.objects if u.verdict == "registered")


def test_kerass_global_registry_is_not_trust(build_custom, custom, save, names, tmp_path):
    """What somebody registered with Keras is there, but only `trusted=` makes it usable."""
    keras.saving.register_keras_serializable("other")(custom.ResidualBlock)
    path = save(build_custom(), tmp_path / "net.keras")
    untrusted = kct.inspect(path, registry=names)
    assert verdicts(untrusted)["other>ResidualBlock"] == "untrusted"
    assert untrusted.untrusted == ("other>ResidualBlock",)
    for trusted in (["other>ResidualBlock"], ["other>*"]):
        report = kct.inspect(path, registry=names, trusted=trusted)
        assert verdicts(report)["other>ResidualBlock"] == "trusted"


def test_lambda_code_is_untrusted_until_its_layer_is_named(
    build_custom, save, objects, names, tmp_path
):
    """The layer's name is what the code goes by."""
    scale = keras.layers.Lambda(lambda x: 2 * x, name="scale")
    path = save(build_custom(extra=(scale,)), tmp_path / "net.keras")
    assert verdicts(kct.inspect(path, objects, registry=names))["lambda:scale"] == "untrusted"
    report = kct.inspect(path, objects, registry=names, trusted=["lambda:scale"])
    assert verdicts(report)["lambda:scale"] == "trusted"


def test_a_registered_name_does_not_take_the_place_of_kerass_own(save, names, tmp_path):
    """A registered `my_package>Dense` is not what a file means by Keras' `Dense`."""

    @names.register("my_package")
    class Dense(keras.layers.Layer):
        pass

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    for name in ("net.keras", "net.h5"):
        path = save(model, tmp_path / name)
        assert verdicts(kct.inspect(path, registry=names)) == {}
        assert verdicts(kct.inspect(path, {"Dense": Dense}, registry=names)) == {
            "Dense": "custom_objects"
        }


def test_layers_that_run_a_files_code_are_untrusted(names, tmp_path):
    """A `TFSMLayer` runs a SavedModel, so it takes its name in `trusted`."""
    layer = {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "x"}}
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(layer))
        archive.writestr("model.weights.h5", b"")
    assert kct.inspect(tmp_path / "a.keras", registry=names).untrusted == ("TFSMLayer",)


def test_ambiguous_bare_name_is_missing_and_says_why(build_custom, save, names, tmp_path):
    """Two packages' objects of one name: the file does not say which."""
    path = save(build_custom(), tmp_path / "net.keras")
    for package in ("one", "two"):

        def bent(x):
            return x

        names.register(package)(bent)
    use = next(u for u in kct.inspect(path, registry=names).objects if u.registered_name == "bent")
    assert use.verdict == "missing"
    assert "Several objects have the name 'bent'" in use.note


def test_plug_in_is_named_and_not_imported(build_custom, save, names, tmp_path, monkeypatch):
    """A declared name is known from metadata; its module stays unimported."""
    info = tmp_path / "site" / "blocks-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "blocks_of_mine.py").write_text("raise RuntimeError('imported')")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: blocks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[keras_ckpt_tools.objects]\nResidualBlock = blocks_of_mine:ResidualBlock\n"
    )
    path = save(build_custom(), tmp_path / "net.keras")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    report = kct.inspect(path, registry=names)
    assert verdicts(report)["ResidualBlock"] == "plug-in"
    assert "blocks_of_mine" not in sys.modules


def test_progress_and_versions_come_from_the_record(build_cnn, save_ours, tmp_path):
    """A file of ours says where training was."""
    progress = TrainingProgress(epochs_completed=3, step=120)
    report = kct.inspect(save_ours(build_cnn(), tmp_path / "a.keras", progress))
    assert (report.progress.epochs_completed, report.progress.step) == (3, 120)
    assert report.versions["keras_ckpt_tools"] == kct.__version__
    assert "3 epochs completed, step 120" in str(report)


def test_record_says_where_an_object_was_defined(names, tmp_path, save_ours, build_custom):
    """The module of a function, which Keras does not write, is in our record."""
    model = build_custom()
    report = kct.inspect(save_ours(model, tmp_path / "a.keras"), registry=names)
    block = next(u for u in report.objects if u.registered_name == "ResidualBlock")
    assert block.module == type(model.layers[0]).__module__


def test_table_lists_what_is_not_kerass_own(build_custom, save, names, tmp_path):
    """One line for each, and what Keras has itself only as a number."""
    report = kct.inspect(save(build_custom(), tmp_path / "net.keras"), registry=names)
    text = str(report)
    own = sum(use.verdict == "built-in" for use in report.objects)
    assert f"{own} of {own + 5} objects are Keras' own" in text
    assert "missing  ResidualBlock  class at $.config.layers[1]" in text
    assert "InputLayer" not in text


def test_reports_make_a_files_text_harmless(names, tmp_path):
    """Names with markup or control characters show as text."""
    name = "<script>\x1b[2Jalert</script>"
    config = {"module": "m", "class_name": name, "config": {}, "registered_name": None}
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"")
    report = kct.inspect(tmp_path / "a.keras", registry=names)
    assert "\x1b" not in str(report)
    assert "<script>" not in report._repr_html_()
    assert "&lt;script&gt;" in report._repr_html_()


def test_damage_and_foreign_kinds_are_problems_not_errors(tmp_path, build_cnn, save):
    """A report comes back whatever is there."""
    whole = Path(save(build_cnn(), tmp_path / "a.keras")).read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[:5000])
    report = kct.inspect(tmp_path / "cut.keras")
    assert report.kind is Kind.KERAS
    assert "truncated at 5,000" in report.problems[0]
    (tmp_path / "page.keras").write_bytes(b"<html></html>")
    assert "download the file again" in kct.inspect(tmp_path / "page.keras").problems[0]
    with zipfile.ZipFile(tmp_path / "bad.keras", "w") as archive:
        archive.writestr("config.json", "{not json")
        archive.writestr("model.weights.h5", b"")
    assert "config.json is not JSON" in kct.inspect(tmp_path / "bad.keras").problems[0]


def test_config_nested_too_deep_is_damage(tmp_path):
    """A config of ten thousand levels is reported, and does not end the process."""
    with zipfile.ZipFile(tmp_path / "deep.keras", "w") as archive:
        archive.writestr("config.json", '{"a":' * 700 + "1" + "}" * 700)
        archive.writestr("model.weights.h5", b"")
    assert "nested deeper" in kct.inspect(tmp_path / "deep.keras").problems[0]


def test_directory_of_checkpoints_reports_the_newest(tmp_path, build_cnn):
    """The progress is that of the newest whole checkpoint; damaged ones are problems."""
    manager = kct.CheckpointManager(tmp_path / "run", model=build_cnn())
    manager.save()
    manager.save()
    report = kct.inspect(tmp_path / "run")
    assert report.kind is Kind.CHECKPOINT_DIR
    assert report.versions["keras"] == keras.__version__
    newest = Path(str(manager.latest_checkpoint))
    newest.write_bytes(newest.read_bytes()[:-10])
    assert newest.name in kct.inspect(tmp_path / "run").problems[0]


def test_weights_have_tensors_and_no_objects(tmp_path, build_cnn):
    """A weights file says nothing of classes."""
    build_cnn().save_weights(tmp_path / "a.weights.h5")
    report = kct.inspect(tmp_path / "a.weights.h5")
    assert report.kind is Kind.H5_WEIGHTS
    assert report.objects == ()
    assert {t.path for t in report.tensors} >= {"layers/conv2d/vars/0", "layers/dense/vars/1"}


def test_missing_file_and_bad_arguments_are_errors(tmp_path):
    """Only these: they are the caller's, not the file's."""
    with pytest.raises(ArtefactNotFoundError):
        kct.inspect(tmp_path / "none.keras")
    with pytest.raises(ArgumentError):
        kct.inspect(b"none.keras")
    with pytest.raises(ArgumentError, match="no `trusted=True`"):
        kct.inspect(tmp_path, trusted=True)


def test_inspecting_imports_no_framework_and_nothing_named(build_custom, save, tmp_path):
    """In a fresh process neither Keras, TensorFlow nor the module of a custom class is loaded."""
    path = save(build_custom(), tmp_path / "net.keras")
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    config = {"module": "evil", "class_name": "Layer", "config": {}, "registered_name": "evil>L"}
    with zipfile.ZipFile(tmp_path / "evil.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"")
    np.savez(tmp_path / "a.npz", a=np.zeros(1))
    code = (
        "import json, sys; sys.path.insert(0, '.'); import keras_ckpt_tools as kct\n"
        f"reports = [kct.inspect(p) for p in [{path!r}, {path[:-6]!r} + '.h5', 'evil.keras']]\n"
        "loaded = [m for m in ('keras', 'tensorflow', 'evil') if m in sys.modules]\n"
        "print(json.dumps([[r.missing for r in reports], loaded]))"
    )
    save(build_custom(), tmp_path / "net.h5")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    missing, loaded = json.loads(done.stdout)
    assert missing[0] == ["ResidualBlock", "bent", "soft_loss", "Distance"]
    assert sorted(missing[0]) == sorted(missing[1])
    assert missing[2] == ["evil>L"]
    assert loaded == []

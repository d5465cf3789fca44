"""Sharded weights open as one file of weights does, under the same rules for each shard."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArtefactKindError,
    DamagedArtefactError,
    OverBudgetError,
    RestoreError,
    UnsafeArtefactError,
)
from keras_ckpt_tools.formats.hdf5 import scan, sharded
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.tools.diff import diff
from keras_ckpt_tools.tools.export import export

SHARD_GB = 5.25e-7  # 560 bytes: four shards, with a layer and an optimizer that go on in the next.


def build(units: int = 8, *, compiled: bool = True) -> Any:
    """Build a small model with layers of several variables."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units, name="first"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(8, name="second"),
            keras.layers.Dense(2),
        ]
    )
    if compiled:
        model.compile("adam", "mse")
    return model


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Any, Path]:
    """A trained model, and the folder that it was written to in shards."""
    folder = tmp_path_factory.mktemp("shards")
    model = build()
    model.train_on_batch(np.ones((4, 4), "float32"), np.ones((4, 2), "float32"))
    model.save_weights(folder / "w.weights.json", max_shard_size=SHARD_GB)
    assert len(list(folder.glob("*.h5"))) > 2
    return model, folder


@pytest.fixture
def index(written, tmp_path) -> Path:
    """A copy of its own, by the index."""
    for path in written[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / "w.weights.json"


def edit(index: Path, change) -> None:
    """Let `change` edit an index."""
    data = json.loads(index.read_text())
    change(data)
    index.write_text(json.dumps(data))


def equal(one: Any, other: Any) -> bool:
    """Return whether two models have the same weights and optimizer."""
    pairs = zip(one.variables, other.variables, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_weights_and_optimizer_are_loaded(written, index):
    """Layers that go on in another shard, too; the report is that of one file of weights."""
    model = build()
    report = kct.load_weights(model, index)
    assert report
    assert equal(model, written[0])
    assert equal(model.optimizer, written[0].optimizer)
    written[0].save_weights(index.with_name("one.weights.h5"))
    assert set(report.matched) == set(
        kct.load_weights(build(), index.with_name("one.weights.h5")).matched
    )


def test_an_index_of_keras_3_10_leads_to_all_shards(written, index):
    """It names the first shard of a layer alone; an older, longer save left a shard behind."""

    def shorten(data):
        for group, named in data["weight_map"].items():
            data["weight_map"][group] = named[0] if isinstance(named, list) else named

    edit(index, shorten)
    number = len(list(index.parent.glob("*.h5")))
    with h5py.File(index.with_name(f"w_{number:05}.weights.h5"), "w") as file:
        file["layers/old/vars/0"] = np.zeros(3, "float32")
    model = build()
    assert kct.load_weights(model, index)
    assert equal(model, written[0])
    assert equal(model.optimizer, written[0].optimizer)
    assert kct.verify(index)


def test_a_mismatch_is_reported_and_nothing_changes(index):
    """Strict is all or nothing; otherwise what fits is loaded."""
    model = build(6)
    before = [np.array(v) for v in model.weights]
    with pytest.raises(RestoreError) as caught:
        kct.load_weights(model, index)
    assert {one.path for one in caught.value.report.shape_mismatch} >= {"layers/dense/vars/0"}
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))
    report = kct.load_weights(model, index, strict=False)
    assert "layers/dense_2/vars/0" in report.matched


def test_names_and_renames_are_those_of_one_file(written, index):
    """Layers are matched by name, also those that begin in an earlier shard."""
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, name="other"), *build(compiled=False).layers[1:]]
    )
    with pytest.raises(RestoreError) as caught:
        kct.load_weights(model, index)
    rename = caught.value.report.suggestions
    assert kct.load_weights(model, index, rename=rename, exclude="optimizer/*")
    assert equal(model, written[0]) is True


def test_a_class_that_has_changed_is_met_as_in_one_file(tmp_path):
    """What `migrate_weights` does for a `.weights.h5` of stock Keras, it does here."""

    class Scale(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(2,), initializer="random_normal", name="scale")

        def call(self, x):
            return x * self.scale

    def make() -> Any:
        return keras.Sequential([keras.Input((2,)), Scale()])

    model = make()
    model.save_weights(tmp_path / "w.weights.json", max_shard_size=SHARD_GB)
    model.save_weights(tmp_path / "w.weights.h5")
    kct.register("shop", version=2, migrate_weights=lambda w, v: {n: 2 * a for n, a in w.items()})(
        Scale
    )
    reports = []
    models = make(), make()
    for one, name in zip(models, ("w.weights.json", "w.weights.h5"), strict=True):
        reports.append(kct.load_weights(one, tmp_path / name))
    assert reports[0].matched == reports[1].matched
    assert equal(*models)


def test_inspect_verify_compare_diff_and_export(written, index):
    """All of them take the index as they take a file."""
    report = kct.inspect(index)
    assert report
    assert report.kind is Kind.SHARDED_WEIGHTS
    assert len(report.tensors) == len(written[0].weights) + len(written[0].optimizer.variables)
    assert report.size == sum(path.stat().st_size for path in index.parent.iterdir())
    check = kct.verify(index)
    assert check
    assert not check.files[0].covered
    single = index.with_name("one.weights.h5")
    written[0].save_weights(single)
    assert kct.compare(build(), index).missing == ()
    assert kct.compare(index, single)
    assert kct.compare(single, index)
    assert diff(index, single)
    for name in ("out.weights.h5", "out.safetensors"):
        export(index, index.with_name(name))
        model = build()
        assert kct.load_weights(model, index.with_name(name))
        assert equal(model, written[0])


def test_an_unzipped_model_may_have_sharded_weights(written, tmp_path, names):
    """As presets of KerasHub have."""
    written[0].save(tmp_path / "m.keras")
    folder = tmp_path / "preset"
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        archive.extractall(folder)
    (folder / "model.weights.h5").unlink()
    written[0].save_weights(folder / "model.weights.json", max_shard_size=SHARD_GB)
    model = kct.safe_load_model(folder, registry=names)
    assert equal(model, written[0])
    assert kct.inspect(folder, registry=names)
    assert kct.verify(folder)
    assert kct.load_weights(build(), folder)
    (folder / "model_00001.weights.h5").unlink()
    with pytest.raises(DamagedArtefactError, match=r"model_00001\.weights\.h5: it is not there"):
        kct.safe_load_model(folder, registry=names)


def test_one_shard_alone_leads_to_the_index(index):
    """It is a part of a model; the answers name what the rest is."""
    shard = index.with_name("w_00001.weights.h5")
    with pytest.raises(RestoreError) as caught:
        kct.load_weights(build(), shard)
    assert f"pass their index, {str(index)!r}" in caught.value.remedy
    assert kct.load_weights(build(), index)
    assert f"Pass their index, {str(index)!r}" in str(kct.inspect(shard))
    with pytest.raises(ArtefactKindError) as refused:
        kct.safe_load_model(shard)
    assert f"`kct.load_weights(model, {str(index)!r})`" in refused.value.remedy


def test_a_folder_of_shards_is_what_its_index_is(written, index):
    """To whatever reads weights; `verify` checks each shard once, with its index."""
    model = build()
    assert kct.load_weights(model, index.parent)
    assert equal(model, written[0])
    assert kct.compare(model, index.parent)
    assert kct.compare(index.parent, index)
    assert diff(index.parent, index)
    export(index.parent, index.with_name("one.safetensors"))
    index.with_name("one.safetensors").unlink()
    with pytest.raises(ArtefactKindError) as caught:
        kct.safe_load_model(index.parent)
    assert f"`kct.load_weights(model, {str(index)!r})`" in caught.value.remedy
    assert [check.path for check in kct.verify(index.parent).files] == [str(index)]


def test_all_shards_that_cannot_be_used_come_in_one_error(index):
    """Each with what is wrong with it."""
    first = index.with_name("w_00000.weights.h5")
    first.write_bytes(first.read_bytes()[:-100])
    index.with_name("w_00001.weights.h5").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ArtefactKindError) as caught:
        kct.load_weights(build(), index)
    for text in (
        "w_00000.weights.h5: truncated at",
        "w_00001.weights.h5: it is not an HDF5",
        "Git LFS",
    ):
        assert text in caught.value.what
    assert not kct.verify(index)
    assert not kct.inspect(index)


def test_a_missing_shard_is_damage(index):
    """What is there of the model is not loaded as if it were all."""
    index.with_name("w_00001.weights.h5").unlink()
    with pytest.raises(DamagedArtefactError, match=r"1 of its .* shards is missing: w_00001"):
        kct.load_weights(build(), index, strict=False)
    assert "missing" in kct.verify(index).problems[0]
    for call in (lambda path: kct.load_weights(build(), path), lambda path: diff(path, path)):
        for place in (index, index.parent):
            with pytest.raises(DamagedArtefactError, match=r"missing: w_00001") as caught:
                call(place)
            assert "train" not in caught.value.remedy
    with pytest.raises(DamagedArtefactError, match=r"Download or copy all its files again"):
        kct.load_weights(build(), index)


def test_shards_of_another_save_are_damage(index):
    """A shard that does not have what the index has it for was put in the place of another."""
    last = sorted(index.parent.glob("*.h5"))[-1]
    index.with_name("w_00000.weights.h5").write_bytes(last.read_bytes())
    with pytest.raises(DamagedArtefactError, match=r"do not match its index|has as well"):
        kct.load_weights(build(), index)


def test_a_tensor_in_two_shards_is_damage(index):
    """Nothing tells which of the two is meant."""
    with h5py.File(index.with_name("w_00001.weights.h5"), "a") as file:
        file["layers/dense/vars/0"] = np.ones((4, 8), "float32")
    with pytest.raises(DamagedArtefactError, match=r"'layers/dense/vars/0', which w_00000"):
        kct.load_weights(build(), index)


def test_verify_counts_the_bytes_that_were_saved(index):
    """A tensor that is gone out of a shard shows, though no model is at hand."""
    with h5py.File(index.with_name("w_00000.weights.h5"), "a") as file:
        del file["layers/dense/vars/1"]
    assert "bytes of" in kct.verify(index).problems[0]


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "external"])
def test_a_shard_that_leads_elsewhere_is_refused(what, index, tmp_path_factory):
    """As the members of an unzipped model are."""
    shard = index.with_name("w_00001.weights.h5")
    outside = tmp_path_factory.mktemp("outside") / "w.weights.h5"
    shard.rename(outside)
    if what == "link":
        shard.symlink_to(outside)
    elif what == "pipe":
        os.mkfifo(shard)
    elif what == "folder":
        shard.mkdir()
    else:
        with h5py.File(shard, "w") as file:
            file["layers/dense/vars/0"] = h5py.ExternalLink(str(outside), "/layers")
    with pytest.raises(UnsafeArtefactError, match=r"w_00001\.weights\.h5"):
        kct.load_weights(build(), index)
    assert not kct.verify(index)


def test_a_cache_of_links_opens(written, index, tmp_path):
    """Where the path that was passed is a link, links to files beside its target are followed.

    The cache of Hugging Face is made of such links. One that leads anywhere else is refused.
    """
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(tmp_path.glob("w*"))):
        path.rename(blobs / f"{number:040}")
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", f"{number:040}"))
    model = build()
    assert kct.load_weights(model, snapshot / index.name)
    assert equal(model, written[0])
    shard = snapshot / "w_00001.weights.h5"
    os.replace(shard.resolve(), tmp_path / "elsewhere.h5")
    shard.unlink()
    shard.symlink_to(tmp_path / "elsewhere.h5")
    with pytest.raises(UnsafeArtefactError, match="link"):
        kct.load_weights(build(), snapshot / index.name)


def test_all_shards_together_keep_to_the_budget(index):
    """`max_bytes` is for the model, not for each file."""
    held = sum(info.nbytes for info in kct.inspect(index).tensors)
    assert kct.load_weights(build(), index, max_bytes=100 * held)
    with pytest.raises(OverBudgetError) as caught:
        kct.load_weights(build(), index, max_bytes=held - 1)
    assert caught.value.limit == "max_bytes"


def test_a_shard_that_is_replaced_meanwhile_is_not_read(index):
    """What was looked through is what is loaded."""
    shard = index.with_name("w_00001.weights.h5")
    with open_source(index) as source:
        paths = list(source.tensors)
        other = index.with_name("other")
        other.write_bytes(shard.read_bytes())
        os.replace(other, shard)
        with pytest.raises(DamagedArtefactError, match=r"w_00001.* was written to"):
            source.read_all(paths)


def test_nan_is_found_in_every_shard(written, tmp_path):
    """As in one file."""
    model = build(compiled=False)
    model.layers[-1].kernel.assign(np.full((8, 2), np.nan, "float32"))
    model.save_weights(tmp_path / "w.weights.json", max_shard_size=SHARD_GB)
    assert "NaN" in str(kct.inspect(tmp_path / "w.weights.json").warnings[0])
    assert kct.load_weights(build(compiled=False), tmp_path / "w.weights.json").not_finite


@pytest.fixture
def processes(monkeypatch) -> list[int]:
    """How many shards each process was given that was started to look through them."""
    given: list[int] = []
    run = scan._run

    def count(request, descriptors, *rest):
        given.append(len(descriptors))
        return run(request, descriptors, *rest)

    monkeypatch.setattr(scan, "_run", count)
    return given


@pytest.mark.parametrize("complete", [True, False])
def test_one_process_looks_through_all_shards(complete, index, processes):
    """Each had its own, which took longer than all the rest; also for an index of Keras 3.10."""
    if not complete:
        edit(
            index,
            lambda data: data["weight_map"].update(
                {k: v[0] if isinstance(v, list) else v for k, v in data["weight_map"].items()}
            ),
        )
    assert kct.verify(index)
    number = len(list(index.parent.glob("*.h5")))
    assert sum(processes) == number
    assert len(processes) == (1 if complete else 2)


def test_no_more_files_are_open_than_a_process_may_have(index, processes, monkeypatch):
    """A large set is looked through by several processes."""
    monkeypatch.setattr(sharded, "_TOGETHER", 2)
    assert kct.load_weights(build(), index)
    assert max(processes) == 2


def test_a_shard_that_ends_the_process_is_named_and_the_others_are_still_looked_at(
    index, processes, tmp_path_factory, monkeypatch
):
    """Another process goes on behind it."""
    folder = tmp_path_factory.mktemp("child")
    source = Path(scan._CHILD)
    for name in ("hdf5_survey.py", "window.py"):
        (folder / name).write_text(source.with_name(name).read_text())
    crash = (
        "    part = Window(*place)\n"
        "    if b'poison' in part.read_at(0, 1 << 20):\n"
        "        os.kill(os.getpid(), 11)\n"
    )
    text = source.read_text()
    (folder / "child.py").write_text(text.replace("    part = Window(*place)\n", crash, 1))
    monkeypatch.setattr(scan, "_CHILD", str(folder / "child.py"))
    with h5py.File(index.with_name("w_00001.weights.h5"), "a") as file:
        file.attrs["name"] = "poison"
    last = sorted(index.parent.glob("*.h5"))[-1]
    last.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    with pytest.raises(DamagedArtefactError) as caught:
        kct.load_weights(build(), index)
    assert "w_00001.weights.h5: libhdf5 crashes on it (SIGSEGV)" in caught.value.what
    assert f"{last.name}: its HDF5 superblock cannot be read" in caught.value.what
    assert "w_00000" not in caught.value.what
    assert len(processes) == 2


def test_the_error_of_a_shard_is_found_once(index, processes):
    """Whatever asks again gets the same error, and no process is started for it."""
    index.with_name("w_00001.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    with open_source(index) as source:
        with pytest.raises(DamagedArtefactError) as first:
            _ = source.survey
        with pytest.raises(DamagedArtefactError) as second:
            _ = source.tensors
    assert first.value is second.value
    assert len(processes) == 1

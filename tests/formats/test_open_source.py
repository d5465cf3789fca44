"""One call opens whatever is read, by a table of readers."""

from __future__ import annotations

import importlib

import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArtefactKindError, DamagedArtefactError
from keras_ckpt_tools.formats.open_source import READERS, open_source
from keras_ckpt_tools.formats.tensor_source import ModelSource, SourceView
from keras_ckpt_tools.loading.tensor_selection import places_at_root
from keras_ckpt_tools.metadata import Record, TensorInfo, TrackedObject


@pytest.mark.parametrize("kind", READERS, ids=str)
def test_each_reader_is_where_the_table_says(kind):
    """Names in the table are looked up late, so a wrong one would be found by a user."""
    module, _, name = READERS[kind].partition(":")
    assert callable(getattr(importlib.import_module(f"keras_ckpt_tools.formats.{module}"), name))


def test_checkpoints_of_tensorflow_and_of_runs_are_opened_alike(tmp_path):
    """By prefix, by one of the files, by the directory; the run's by its record."""
    weight = tf.Variable([1.0, 2.0])
    manager = kct.CheckpointManager(tmp_path / "run", format="tf", weight=weight)
    manager.save()
    tf.train.Checkpoint(weight=weight).save(str(tmp_path / "other" / "ckpt"))
    for folder, name in (("run", "ckpt-00000001"), ("other", "ckpt-1")):
        for path in (name, f"{name}.index", ""):
            with open_source(tmp_path / folder / path) as source:
                (found,) = (p for p in source.tensors if p.startswith("weight"))
                assert source.read(found).tolist() == [1.0, 2.0]
                assert (source.record is not None) == (folder == "run")
                assert source.covered
                assert source.verify() == ()


def test_a_checkpoint_of_a_run_without_its_index_is_damaged(tmp_path):
    """It is there, as its record says; what is gone is said."""
    manager = kct.CheckpointManager(tmp_path, format="tf", weight=tf.Variable(1.0))
    manager.save()
    (tmp_path / "ckpt-00000001.index").unlink()
    with open_source(tmp_path / "ckpt-00000001") as source:
        with pytest.raises(DamagedArtefactError, match="its index cannot be read"):
            source.read_all(source.tensors)
        assert any("its index cannot be read" in problem for problem in source.verify())


def test_what_has_no_reader_is_refused(tmp_path):
    """The error names the kind."""
    path = tmp_path / "a.keras"
    path.write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(ArtefactKindError, match="web page"):
        open_source(path)


def test_of_several_optimizers_none_is_the_one_of_a_file_of_the_model():
    """Which of them would go to `optimizer/` nothing says; alone, one does."""
    model = TrackedObject("model")
    one = TrackedObject("optimizer", built_on=("net/vars/0",))
    paths = ["net/vars/0", "adam/vars/0", "sgd/vars/0"]
    both = Record(tracked={"net": model, "adam": one, "sgd": one})
    assert places_at_root(both, paths) == {
        "vars/0": "net/vars/0", "adam/vars/0": "adam/vars/0", "sgd/vars/0": "sgd/vars/0"
    }  # fmt: skip
    alone = Record(tracked={"net": model, "adam": one})
    assert places_at_root(alone, paths)["optimizer/vars/0"] == "adam/vars/0"


class _Two(ModelSource):
    """Two tensors; notes which were asked for."""

    def __init__(self):
        self.path, self.asked = "two", []
        self.record = Record()
        self.tensors = {p: TensorInfo(p, (), "float32") for p in ("a/0", "b/0")}

    def read_all(self, paths):
        paths = list(paths)
        self.asked += paths
        return dict.fromkeys(paths)


def test_a_group_is_read_alone_or_with_a_check_of_the_rest():
    """A load finds a changed byte also where it reads no tensor."""
    source = _Two()
    SourceView(source, {"a/": ""}).read_all(["0"])
    assert source.asked == ["a/0"]
    SourceView(source, {"a/": ""}, checked=True).read_all(["0"])
    assert source.asked == ["a/0", "b/0", "a/0"]

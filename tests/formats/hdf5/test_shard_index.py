"""The index of sharded weights names files of its own folder, and is told by its content."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from keras_ckpt_tools.errors import CkptError, UnsafeArtefactError
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.hdf5.shard_index import ShardIndex, index_beside, shards_named_by
from keras_ckpt_tools.formats.kinds import Kind, tell

TEXT = json.dumps(
    {
        "metadata": {"total_size": 12.0},
        "weight_map": {
            "/layers/dense/vars": ["w_00000.weights.h5", "w_00001.weights.h5"],
            "/layers/dense_1/vars": "w_00001.weights.h5",
        },
    },
    indent=4,
)


def index_of(**groups) -> ShardIndex:
    """Return an index of these groups."""
    return ShardIndex.of({"weight_map": groups}, "w.weights.json", Limits.of())


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index beside two files that are called like its shards."""
    path = tmp_path / "w.weights.json"
    path.write_text(TEXT)
    for number in range(2):
        (tmp_path / f"w_0000{number}.weights.h5").write_bytes(b"x" * 10)
    return path


def test_an_index_is_told_by_its_content(index, tmp_path):
    """Its size is that of all its files; its name does not count."""
    other = tmp_path / "renamed.txt"
    index.rename(other)
    found = tell(other)
    assert found.kind is Kind.SHARDED_WEIGHTS
    assert found.size == len(TEXT) + 20
    assert found.damage is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"class_name": "Sequential", "config": {"layers": []}}', Kind.MODEL_CONFIG),
        ('{"weight_map": {"dense.weight": "model-00001-of-00002.safetensors"}}', Kind.JSON),
        ('{"weight_map": []}', Kind.JSON),
        ("{}", Kind.JSON),
        ("{ not JSON", Kind.UNKNOWN),
    ],
)
def test_other_json_is_told_apart(text, kind, tmp_path):
    """The config of a model and the indexes of other libraries are none of shards."""
    path = tmp_path / "w.weights.json"
    path.write_text(text)
    assert tell(path).kind is kind


@pytest.mark.parametrize(
    "name",
    ["../w.weights.h5", "/etc/passwd", "a/b.weights.h5", "..", ".", "a\\b.h5", "a\0.h5"]
    + ["\ud800_00000.weights.h5", "a\nb.weights.h5"],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(name, index):
    """Before anything is opened or looked for."""
    with pytest.raises(UnsafeArtefactError, match="outside its directory"):
        index_of(a="w_00000.weights.h5", b=["w_00001.weights.h5", name])
    data = json.loads(TEXT)
    data["weight_map"]["/layers/dense/vars"][1] = name
    index.write_text(json.dumps(data))
    assert isinstance(tell(index).refusal, UnsafeArtefactError)


@pytest.mark.parametrize("shards", [None, 3, [], [None], "", [["w_00000.weights.h5"]], {}])
def test_a_group_has_names_of_files(shards, index):
    """Anything else is an index that Keras never wrote."""
    data = json.loads(TEXT)
    data["weight_map"]["/layers/dense_1/vars"] = shards
    index.write_text(json.dumps(data))
    found = tell(index)
    assert found.kind is Kind.SHARDED_WEIGHTS
    assert "does not name files for" in found.damage


def test_all_shards_that_are_not_there_are_named(index, tmp_path):
    """In one message."""
    for path in tmp_path.glob("*.h5"):
        path.unlink()
    assert tell(index).damage == (
        "2 of its 2 shards are missing: w_00000.weights.h5, w_00001.weights.h5"
    )


def test_an_index_that_was_cut_off_is_damaged(index):
    """It still names its shards."""
    index.write_text(TEXT[:-5])
    found = tell(index)
    assert found.kind is Kind.SHARDED_WEIGHTS
    assert "is not JSON" in found.damage


def test_more_shards_than_a_folder_may_have_are_too_many(index):
    """As the members of an archive are."""
    groups = {f"/{i}/vars": f"w_{i:05}.weights.h5" for i in range(10_001)}
    index.write_text(json.dumps({"weight_map": groups}))
    assert "10,001 members" in tell(index).refusal.what


def test_unnamed_shards_follow_by_number(tmp_path):
    """Keras 3.10 does not name them; another series, or one behind a gap, is none of them."""
    index = index_of(a="w_00000.weights.h5", b="w_00002.weights.h5")
    there = [f"w_0000{i}.weights.h5" for i in (0, 1, 2, 3, 5)] + ["v_00001.weights.h5"]
    assert index.unnamed(there) == ["w_00001.weights.h5", "w_00003.weights.h5"]
    assert index_of(a="weights.h5").unnamed(there) == []


def test_a_shard_is_known_by_the_index_beside_it(index, tmp_path):
    """A file of a name like that which the index does not name is none."""
    shard = str(tmp_path / "w_00001.weights.h5")
    assert index_beside(shard) == str(index)
    (tmp_path / "w_00002.weights.h5").write_bytes(b"x")
    assert index_beside(str(tmp_path / "w_00002.weights.h5")) is None
    names = [path.name for path in tmp_path.iterdir()]
    assert shards_named_by(str(tmp_path), names) == {"w_00000.weights.h5", "w_00001.weights.h5"}


def test_whatever_an_index_says_is_told_or_refused(index):
    """Changed at random, it is another kind, damaged, refused, or an index all the same."""
    drawn = random.Random(7)
    parts = ['"', "{", "}", "[", "]", ",", ":", "null", "..", "/", "1e999", "\\u0000", "é"]
    for _ in range(400):
        text = TEXT
        for _ in range(drawn.randint(1, 4)):
            at = drawn.randrange(len(text))
            text = text[:at] + drawn.choice(parts) + text[at + drawn.randint(0, 9) :]
        index.write_text(text)
        found = tell(index)
        assert found.refusal is None or isinstance(found.refusal, CkptError)

"""The head of a record says what the whole record says, without its tensors and history."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hostile.records import our_weights
from runs_on_disk import SAVED, record_of, weights, written_files

from keras_ckpt_tools.errors import DamagedArtefactError, NewerFormatError
from keras_ckpt_tools.formats.record_head import _cut, read_head
from keras_ckpt_tools.formats.userblock import encode_json, read_at
from keras_ckpt_tools.metadata import Best, TrackedObject


def _same(head, record):
    progress = dataclasses.replace(record.progress, history={}, history_epochs={})
    assert head.progress == progress
    assert (head.kind, head.size, head.versions) == (record.kind, record.size, record.versions)
    assert head.tracked == {name: one.kind for name, one in record.tracked.items()}
    assert head.holds == record.tracked.keys() - record.objects_tracked.keys()
    assert head.state == record.state


@pytest.mark.parametrize("path", written_files(), ids=lambda path: path.name)
def test_head_is_that_of_the_record(path):
    """Of each file that this version writes, and the quick way is the one that is taken."""
    record = record_of(path)
    _same(read_head(read_at(path.read_bytes()), str(path)), record)
    assert _cut(encode_json(record)) is not None


def test_names_that_look_like_keys_of_the_record_do_not_mislead():
    """Metrics, state and objects may be called whatever a user likes, quotes included."""
    odd = {"history": 1.0, "best": 2.0, "tensors": 3.0, ',"best":null': 4.0, '"tensors":[': 5.0}
    series = {name: (1.0, float("inf")) for name in odd}
    record = {
        "state": {"tensors": [{"size": 1}], "best": None, "history": {"best": None}},
        "tracked": {"model": TrackedObject("model", state={"tensors": [1], "history": {}})},
        "versions": {"keras": ',"history":{"best":null'},
    }
    data = weights(
        logs=odd,
        history=series,
        history_epochs=dict.fromkeys(odd, (0, 1)),
        best=Best("best", "max", float("nan"), 1),
        record=record,
    )
    head = read_head(read_at(data), "a")
    assert head.progress.logs == odd
    assert head.progress.best.monitor == "best"
    assert head.state == record["state"]
    assert head.tracked == {"model": "model"}


def test_record_of_another_writer_is_read_whole():
    """Another order of the keys, with spaces between them: slower, and the same."""
    data = our_weights(lambda record: record.update(progress={"step": 7, "logs": {"loss": "NaN"}}))
    head = read_head(read_at(data), "a")
    assert (head.progress.step, str(head.progress.logs["loss"])) == (7, "nan")


@pytest.mark.parametrize(
    "change",
    [
        {"progress": {"step": "x"}},
        {"progress": {"epochs_completed": -1}},
        {"progress": {"logs": {"loss": []}}},
        {"progress": {"best": {"monitor": 1}}},
        {"progress": [1]},
        {"tracked": [1]},
        {"tracked": {"a": {"kind": 1}}},
        {"versions": {"keras": 3}},
        {"state": [1]},
        {"size": "1"},
        {"kind": 3},
    ],
    ids=json.dumps,
)
def test_record_that_lies_about_its_types_is_damaged(change):
    """Whoever forges a record may write anything into it; a list of files must not fail on it."""
    data = our_weights(lambda record: record.update(change))
    with pytest.raises(DamagedArtefactError):
        read_head(read_at(data), "a")


def test_changed_byte_of_history_is_found_though_it_is_not_parsed():
    """The digest covers what is cut out as well."""
    data = bytearray(SAVED.read_bytes())
    place = data.index(b'"history":{"loss":[22')
    data[place + 20] ^= 1
    with pytest.raises(DamagedArtefactError, match="have changed"):
        read_head(read_at(bytes(data)), "a")


def test_later_format_is_said_to_be_one():
    """The remedy is an upgrade, not a copy."""
    with pytest.raises(NewerFormatError):
        read_head(read_at(weights(record={"format_version": 99})), "a")
    assert read_head(read_at(b"\x89HDF\r\n\x1a\n" + bytes(600)), "a") is None

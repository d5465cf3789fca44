"""The head of a record says what the whole record says, without its tensors and history."""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
import pytest
import xxhash
from hostile.records import our_weights
from runs_on_disk import SAVED, record_of, weights, written_files

from keras_ckpt_tools.errors import DamagedArtefactError, NewerFormatError
from keras_ckpt_tools.formats.record.userblock import MAGIC, decode, encode_json, read_at
from keras_ckpt_tools.metadata import Best, TrackedObject
from keras_ckpt_tools.runs.peek import _cut, read_head


def _same(head, record):
    progress = dataclasses.replace(record.progress, history={}, history_epochs={})
    assert head.progress == progress
    assert (head.kind, head.size, head.versions) == (record.kind, record.size, record.versions)
    assert head.tracked == record.tracked
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
    assert head.tracked == record["tracked"]


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


def _file_of(text):
    """Return the head of a file with this JSON as its record."""
    start = struct.pack("<8sQQQ", MAGIC, 1, 8192, len(text))
    return (start + xxhash.xxh3_128_digest(start + text) + text).ljust(8192, b"\0")


ROW = {"path": "a", "shape": [2], "dtype": "int8", "offset": 8192, "nbytes": 2, "digest": "ab"}


def _canonical(**changes):
    """Return the JSON of a record laid out as the package writes it, with parts replaced."""
    parts = {
        "kind": b'"weights"',
        "versions": b"{}",
        "progress": b'{"epochs_completed":2,"logs":{},"history":{"loss":[1.5,"NaN"]},'
        b'"history_epochs":{"loss":[0,1]},"best":null,"run_id":"a"}',
        "tensors": json.dumps([ROW, ROW], separators=(",", ":")).encode(),
        "skeleton_digest": b'"ab"',
        "size": b"9000",
        "format_version": b"1",
    }
    parts |= {name: change(parts[name]) for name, change in changes.items()}
    return b"{" + b",".join(b'"%s":%s' % (n.encode(), p) for n, p in parts.items()) + b"}"


def test_record_laid_out_as_written_is_cut_and_says_the_same():
    """Otherwise a list of thousands parses all of each record."""
    for change in (bytes, lambda p: p.replace(b'"loss"', b'"l\\u006fss"')):
        body = _canonical(progress=change)
        data = _file_of(body)
        assert (_cut(body) is None) == (b"\\" in body)
        head, (record, _) = read_head(read_at(data), "a"), decode(read_at(data), "a")
        assert head.progress.epochs_completed == record.progress.epochs_completed == 2
        assert record.progress.history["loss"][0] == 1.5


TWICE = {
    "in progress": {"progress": lambda p: p[:-1] + b',"epochs_completed":77}'},
    "in history": {
        "progress": lambda p: p.replace(b'"NaN"]', b'2]},"epochs_completed":77,"x":{"a":[1]')
    },
    "behind history": {"progress": lambda p: p.replace(b'"best"', b'"epochs_completed":77,"best"')},
    "two histories": {"progress": lambda p: p.replace(b'"best"', b'"history":{},"best"')},
    "two progresses": {"tensors": lambda t: t + b',"progress":{"epochs_completed":77}'},
    "in the table": {"tensors": lambda t: b'[],"progress":{"epochs_completed":77},"x":[{}'
                     b'],"tensors":' + t},
    "in front of the table": {"versions": lambda v: v + b',"progress":{"epochs_completed":77}'},
    "behind the table": {"size": lambda s: s + b',"kind":"model"'},
    "in versions": {"versions": lambda v: b'{"keras":"1","keras":"2"}'},
}  # fmt: skip


@pytest.mark.parametrize("place", TWICE)
def test_name_that_an_object_has_twice_is_refused_by_list_and_by_load(place):
    """Of two parsers one could take the first, and the other the last."""
    data = _file_of(_canonical(**TWICE[place]))
    for read in (read_head, decode):
        with pytest.raises(DamagedArtefactError, match="twice"):
            read(read_at(data), "a")


def test_list_of_checkpoints_and_progress_never_disagree():
    """Records of random layouts: what the short parser says is what the long one says."""
    random = np.random.default_rng(3)
    bits = [
        *(b'"epochs_completed":%d', b'"step":%d', b'"x":[{"y":%d}]', b'"best":null'),
        *(b'"history":{}', b'"history":{"a":[%d]}'),
        *(b'"history_epochs":{}', b'"history_epochs":{"a":[%d]}'),
        *(b'"progress":{"epochs_completed":%d}', b'"tensors":[]', b'"a":"},\\"best\\":null"'),
    ]
    agreed = 0
    for number in range(3000):
        chosen = random.choice(len(bits), random.integers(1, 8), replace=bool(number % 3))
        inside = b",".join(bits[i] % number if b"%" in bits[i] else bits[i] for i in chosen)

        data = _file_of(_canonical(progress=lambda _, inside=inside: b"{" + inside + b"}"))
        try:
            record, _ = decode(read_at(data), "a")
        except DamagedArtefactError:
            record = None
        try:
            head = read_head(read_at(data), "a")
        except DamagedArtefactError:
            head = None
        if record is not None and head is not None:
            agreed += 1
            assert head.progress == dataclasses.replace(
                record.progress, history={}, history_epochs={}
            ), inside
        assert head is None or record is not None or b'"a":[' in inside, inside
    assert agreed > 300


@pytest.mark.parametrize(
    "change",
    [
        {"progress": {"step": 10**4000}},
        {"progress": {"elapsed_s": 1e300}},
        {"progress": {"saved_at": -1e300}},
        {"progress": {"logs": {"loss": -(10**4000)}}},
        {"progress": {"best": {"monitor": "loss", "value": 10**400}}},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_number_that_nothing_can_show_is_damage(change):
    """It came out as an OverflowError of whoever wanted to print it."""
    data = _file_of(json.dumps(change).encode())
    for read in (read_head, decode):
        with pytest.raises(DamagedArtefactError):
            read(read_at(data), "a")


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

"""The HDF5 structure of a file and its record name the same tensors, or the file is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import zipfile

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
import xxhash

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import DamagedArtefactError
from keras_ckpt_tools.formats.common.contents import Snapshot
from keras_ckpt_tools.formats.hdf5 import structure as hdf5_structure
from keras_ckpt_tools.formats.hdf5.structure import UnfamiliarError, differences
from keras_ckpt_tools.formats.hdf5.writer import write_weights
from keras_ckpt_tools.formats.keras_zip.seal import seal_comment
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.record import userblock
from keras_ckpt_tools.metadata import Record

DTYPES = (
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 "
    "complex128 bfloat16 float8_e4m3fn float8_e5m2 int4"
).split()


def _written(path, arrays, links=()):
    with path.open("wb") as file:
        write_weights(file.write, Snapshot(arrays, links=links), Record("weights"))
    return path


def _edited(data, edit):
    """Return the bytes of an HDF5 file of ours with another record, whose digest is right."""
    body, size = userblock.read_json(userblock.read_at(data), "a")
    record = json.loads(body)
    edit(record)
    text = json.dumps(record, separators=(",", ":")).encode()
    start = struct.pack("<8sQQQ", userblock.MAGIC, 1, size, len(text))
    head = start + xxhash.xxh3_128_digest(start + text) + text
    assert len(head) <= size
    return head.ljust(size, b"\0") + data[size:]


def _exchanged(*keys):
    """Return an edit that exchanges what the record has of the first two tensors of one shape."""

    def edit(record):
        rows = record["tensors"]
        one, other = next(
            (a, b)
            for a in rows
            for b in rows
            if a is not b and a["shape"] == b["shape"] and a["digest"] != b["digest"]
        )
        for key in keys:
            one[key], other[key] = other[key], one[key]

    return edit


_exchange = _exchanged("offset", "digest")


def _reshaped(record):
    row = next(row for row in record["tensors"] if len(row["shape"]) == 2)
    row["shape"] = [16]


def _retyped(record):
    row = next(row for row in record["tensors"] if row["dtype"] == "float32")
    row["dtype"] = "int32"


def _renamed(record):
    record["tensors"][0]["path"] += "0"


def _model():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(4)(keras.layers.Dense(4)(inputs))
    model = keras.Model(inputs, outputs)
    model.set_weights([np.random.default_rng(i).normal(size=w.shape) for i, w in
                       enumerate(model.get_weights())])  # fmt: skip
    return model


def _saved(path, **arguments):
    model = _model()
    callback = kct.ModelCheckpoint(str(path), **arguments)
    callback.set_model(model)
    callback.on_epoch_end(0, {})
    return model


EDITS = [_exchange, _exchanged("path"), _reshaped, _retyped, _renamed]


@pytest.mark.parametrize("edit", EDITS)
def test_weights_file_whose_record_says_otherwise_is_refused(tmp_path, edit):
    """Stock Keras would load another model from it than we do."""
    path = tmp_path / "a.weights.h5"
    model = _saved(path, save_weights_only=True)
    before = model.get_weights()
    path.write_bytes(_edited(path.read_bytes(), edit))
    report = kct.verify(path)
    assert not report
    assert "HDF5 structure" in report.problems[0]
    with pytest.raises(DamagedArtefactError, match="HDF5 structure"):
        kct.load_weights(model, path, strict=False)
    assert all(map(np.array_equal, before, model.get_weights()))


def test_archive_whose_record_says_otherwise_is_refused(tmp_path):
    """The record of a `.keras` is in its weights member, and its seal covers the rest only."""
    path = tmp_path / "a.keras"
    _saved(path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("model.weights.h5")
    edited = _edited(weights, _exchange)
    data = data.replace(weights, edited)
    entries = struct.pack("<I", zipfile.crc32(weights)), struct.pack("<I", zipfile.crc32(edited))
    data = data.replace(*entries)
    start = data.index(edited)
    digest = xxhash.xxh3_128_hexdigest(data[:start] + data[start + len(edited) : -32])
    assert data[-len(seal_comment(digest)) : -32] == seal_comment("")
    path.write_bytes(data[:-32] + digest.encode())
    assert "HDF5 structure" in str(kct.verify(path).problems)
    with pytest.raises(DamagedArtefactError, match="HDF5 structure"):
        kct.safe_load_model(path)


def test_whole_model_h5_whose_record_says_otherwise_is_refused(tmp_path):
    """Its layout is Keras' older one; libhdf5 looks through it anyway."""
    path = tmp_path / "a.h5"
    _saved(path)
    assert kct.verify(path)
    path.write_bytes(_edited(path.read_bytes(), _exchange))
    assert "HDF5 structure" in str(kct.verify(path).problems)
    with pytest.raises(DamagedArtefactError, match="HDF5 structure"):
        kct.safe_load_model(path)


def test_checkpoint_of_a_run_whose_record_says_otherwise_is_refused(tmp_path):
    """Its groups are linked at the root as well; that is no disagreement."""
    model = _model()
    manager = kct.CheckpointManager(tmp_path / "run", model=model)
    path = manager.save()
    assert kct.verify(path)
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(_edited(data, _exchange))
    assert "HDF5 structure" in str(kct.verify(path).problems)
    with pytest.raises(DamagedArtefactError, match="HDF5 structure"):
        manager.restore(path)


def _found_by_both(path):
    with open_source(path) as source:
        assert source._reader.check() == []
        infos = source.record.tensors
        here, there = source._reader.structure(), source.survey.as_found(infos)
        return here, there, infos


@pytest.mark.parametrize("dtype", DTYPES)
def test_own_parser_and_libhdf5_find_the_same_tensors(tmp_path, dtype):
    """Every dtype, scalars, and tensors without bytes."""
    kind = getattr(ml_dtypes, dtype, dtype)
    shapes = [(), (3,), (3, 4), (0, 3), (1, 2, 1, 2)]
    arrays = {f"layers/{dtype}/vars/{i}": np.zeros(s, kind) for i, s in enumerate(shapes)}
    here, there, infos = _found_by_both(_written(tmp_path / "a.weights.h5", arrays))
    assert here == there
    assert len(here) == len(shapes)
    assert differences(here, infos) == []


def test_own_parser_reads_thousands_of_names_in_one_group(tmp_path):
    """Their B-tree has several levels."""
    arrays = {f"vars/{i}": np.full(i % 3, i, "float32") for i in range(3000)}
    arrays |= {f"text/{i}": np.array(["a", "b" * i]) for i in range(1, 9)}
    arrays |= {f"model/layers/dense_{i}/vars/0": np.zeros((2, i), "int8") for i in range(300)}
    links = (("layers", "model/layers"),)
    here, there, infos = _found_by_both(_written(tmp_path / "a.weights.h5", arrays, links))
    assert here == there
    assert differences(here, infos) == []


def test_name_that_is_not_ascii_is_left_to_libhdf5(tmp_path):
    """HDF5 then uses another kind of group, which is not read here; the answer is the same."""
    path = _written(tmp_path / "a.weights.h5", {"modèle/vars/0": np.arange(3.0)})
    with open_source(path) as source:
        source._reader.check()
        with pytest.raises(UnfamiliarError):
            source._reader.structure()
        assert source.verify() == ()
        assert np.array_equal(source.read("modèle/vars/0"), np.arange(3.0))
    path.write_bytes(_edited(path.read_bytes(), _renamed))
    assert "HDF5 structure" in str(kct.verify(path).problems)


def test_tensor_that_only_the_structure_has_is_a_difference(tmp_path):
    """Stock Keras would load it; we would not know of it."""
    path = _written(tmp_path / "a.weights.h5", {"vars/0": np.zeros(2), "vars/1": np.ones(2)})
    with open_source(path) as source:
        source._reader.check()
        found, infos = source._reader.structure(), source.record.tensors
    assert "its record does not" in differences(found, infos[:1])[0]
    twice = differences(found, [*infos, infos[0]])
    assert "twice" in twice[0]
    other = dataclasses.replace(infos[0], offset=infos[1].offset)
    assert "disagree" in differences(found, [other, infos[1]])[0]


def _skeleton(arrays):
    """Return the pieces and the length of the paths of a file that h5py has written."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        for path, value in arrays.items():
            file[path] = value
    return [(512, buffer.getvalue()[512:])], sum(map(len, arrays))


@pytest.mark.parametrize(
    ("arrays", "edit"),
    [
        ({"a/0": np.zeros(2)}, (b"SNOD", b"SNOE")),
        ({"a/0": np.zeros(2)}, (b"TREE", b"TREF")),
        ({"a/0": np.zeros(2)}, (b"HEAP", b"HEAQ")),
        ({"a/0": np.zeros(2)}, (b"\x89HDF", b"\x88HDF")),
        ({"b": np.zeros(2), "a": np.zeros(2)}, (b"a\0\0\0\0\0\0\0", b"c\0\0\0\0\0\0\0")),
        ({"a/0": np.zeros(2)}, (b"a\0\0\0\0\0\0\0", b"/\0\0\0\0\0\0\0")),
    ],
)
def test_what_this_package_never_writes_is_unfamiliar(arrays, edit):
    """Names out of order are found by one reader, and not by the next."""
    pieces, letters = _skeleton(arrays)
    assert len(hdf5_structure.tensors_in(pieces, 512, letters)) == len(arrays)
    assert edit[0] in pieces[0][1]
    changed = [(512, pieces[0][1].replace(*edit))]
    with pytest.raises(UnfamiliarError):
        hdf5_structure.tensors_in(changed, 512, letters)


def test_links_packed_data_and_other_files_are_unfamiliar(tmp_path):
    """libhdf5 knows them, and its survey refuses what leads out of the file."""

    def refused(fill):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", userblock_size=512) as file:
            fill(file)
        with pytest.raises(UnfamiliarError):
            hdf5_structure.tensors_in([(512, buffer.getvalue()[512:])], 512, 100)

    refused(lambda file: file.__setitem__("a", h5py.SoftLink("/b")))
    refused(lambda file: file.__setitem__("a", h5py.ExternalLink("b.h5", "/c")))
    refused(lambda file: file.create_dataset("a", data=np.zeros(9), compression="gzip"))
    refused(lambda file: file.create_dataset("a", data=np.zeros(9), chunks=(3,)))
    refused(lambda file: file.create_dataset("a", (9,), external=[(str(tmp_path / "x"), 0, 72)]))
    refused(lambda file: file.create_dataset("a", data=["text", "of any length"]))


def test_any_changed_byte_gives_tensors_or_unfamiliar():
    """No other error comes out, whatever the bytes are."""
    pieces, letters = _skeleton({f"layers/d{i}/vars/0": np.zeros((2, i)) for i in range(12)})
    data = pieces[0][1]
    random = np.random.default_rng(7)
    for place in random.choice(len(data), 3000):
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        try:
            hdf5_structure.tensors_in([(512, bytes(changed))], 512, letters)
        except UnfamiliarError:
            continue
    for length in range(0, len(data), 97):
        try:
            hdf5_structure.tensors_in([(512, data[:length])], 512, letters)
        except UnfamiliarError:
            continue

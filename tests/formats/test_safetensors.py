"""`.safetensors`: what we write others read, what others write we read, and lies are found."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_ckpt_tools.errors import CkptError, DamagedArtefactError, OverBudgetError
from keras_ckpt_tools.formats.common.dtypes import numpy_dtype, raw_bytes
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.safetensors import DTYPES, notes, write_safetensors
from keras_ckpt_tools.metadata import Record, TensorInfo, TrainingProgress

KNOWN = [name for name in DTYPES.values() if hasattr(np, name) or hasattr(ml_dtypes, name)]


def _written(arrays: dict[str, np.ndarray], noted: dict[str, str] | None = None) -> bytes:
    """Return arrays as a file of ours."""
    stream = io.BytesIO()
    infos = {n: TensorInfo(n, a.shape, a.dtype.name, None, a.nbytes) for n, a in arrays.items()}
    write_safetensors(
        stream.write, infos, lambda order: (arrays[name] for name in order), noted or {}
    )
    return stream.getvalue()


def _read(path: Path, data: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(data)
    with open_source(path) as source:
        return source.read_all(source.tensors)


def _raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _like(one: np.ndarray, other: np.ndarray) -> bool:
    same = (one.dtype, one.shape) == (other.dtype, other.shape)
    return same and bytes(raw_bytes(one)) == bytes(raw_bytes(other))


@st.composite
def _arrays(draw: Any) -> dict[str, np.ndarray]:
    names = draw(st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=5))
    found = {}
    for name in names:
        if name == "__metadata__":
            continue
        try:
            name.encode()
        except UnicodeEncodeError:
            continue  # Half of a pair of surrogates is no text.
        dtype = numpy_dtype(draw(st.sampled_from(KNOWN)))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
        size = int(np.prod(shape, dtype=int)) * dtype.itemsize
        data = bytearray(draw(st.binary(min_size=size, max_size=size)))
        if dtype.kind == "b":
            data = bytearray(byte & 1 for byte in data)
        found[name] = np.frombuffer(data, dtype).reshape(shape)
    return found


@settings(max_examples=40, deadline=None)
@given(_arrays())
def test_every_tensor_comes_back_bit_for_bit(tmp_path_factory, arrays):
    """Any dtype, any shape, any name, any bits: NaN with a payload included."""
    path = tmp_path_factory.mktemp("any") / "a.safetensors"
    if not arrays:
        return
    found = _read(path, _written(arrays))
    assert found.keys() == arrays.keys()
    assert all(_like(found[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("dtype", KNOWN)
def test_the_library_reads_what_we_write(dtype):
    """Its own parser takes header, order and alignment, and has the same bytes."""
    one = np.arange(6).reshape(2, 3).astype(numpy_dtype(dtype))
    data = _written({"layers/dense/vars/0": one, "e": np.zeros((0, 3), "f4")}, {"format": "keras"})
    try:
        found = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError as error:
        pytest.skip(f"this version of the library does not know it: {error}")
    told = found["layers/dense/vars/0"]
    assert DTYPES[told["dtype"]] == dtype
    assert told["shape"] == [2, 3]
    assert bytes(told["data"]) == one.tobytes()


def test_each_tensor_lies_at_a_multiple_of_its_width(tmp_path):
    """Whoever maps the file into memory need not copy, however long its names are."""
    path = tmp_path / "a.safetensors"
    for extra in range(8):
        arrays = {"a" + "x" * extra: np.ones(3, "i1"), "b": np.ones(2), "c": np.ones(1, "f4")}
        path.write_bytes(_written(arrays))
        with open_source(path) as source:
            for name, array in arrays.items():
                assert source.tensors[name].offset % array.dtype.itemsize == 0


def test_we_read_what_the_library_writes(tmp_path):
    """With its metadata, its padding and its order."""
    arrays = {"b": np.arange(5, dtype="i2"), "a": np.eye(3), "s": np.array(2.5, "f2")}
    found = _read(tmp_path / "a", safetensors.numpy.save(arrays, {"by": "them"}))
    assert all(_like(found[name], array) for name, array in arrays.items())


_F4 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
    "no-json": _raw(b"{" + b"x" * 20),
    "a-name-twice": _raw(b'{"a":%b,"a":%b}' % ((json.dumps(_F4).encode(),) * 2), bytes(8)),
    "overlap": _raw({"a": _F4, "b": _F4}, bytes(8)),
    "overlap-and-hole": _raw({"a": _F4, "b": _F4}, bytes(16)),
    "hole": _raw({"a": {**_F4, "data_offsets": [4, 12]}}, bytes(12)),
    "behind-the-end": _raw({"a": {**_F4, "data_offsets": [0, 8]}}, bytes(4)),
    "too-long": _raw({"a": _F4}, bytes(9)),
    "negative": _raw({"a": {**_F4, "data_offsets": [-8, 0]}}, bytes(8)),
    "backwards": _raw({"a": {**_F4, "shape": [-2], "data_offsets": [8, 0]}}, bytes(8)),
    "huge-shape": _raw({"a": {**_F4, "shape": [2**40, 2**40]}}, bytes(8)),
    "zero-and-huge": _raw({"a": {**_F4, "shape": [0, 2**70], "data_offsets": [0, 0]}}),
    "zero-and-large": _raw({"a": {**_F4, "shape": [0, 2**60, 2**60], "data_offsets": [0, 0]}}),
    "shape-of-floats": _raw({"a": {**_F4, "shape": [2.0]}}, bytes(8)),
    "shape-of-bools": _raw({"a": {**_F4, "shape": [2, True]}}, bytes(8)),
    "shape-of-text": _raw({"a": {**_F4, "shape": "2"}}, bytes(8)),
    "many-axes": _raw({"a": {**_F4, "shape": [1] * 100, "data_offsets": [0, 4]}}, bytes(4)),
    "unknown-dtype": _raw({"a": {**_F4, "dtype": "F33"}}, bytes(8)),
    "object-dtype": _raw({"a": {**_F4, "dtype": "object"}}, bytes(8)),
    "dtype-is-a-list": _raw({"a": {**_F4, "dtype": ["F32"]}}, bytes(8)),
    "entry-is-a-number": _raw({"a": 7}),
    "offsets-are-three": _raw({"a": {**_F4, "data_offsets": [0, 8, 9]}}, bytes(8)),
    "metadata-of-numbers": _raw({"__metadata__": {"a": 1}}),
    "deep": _raw(b'{"a":' * 500 + b"1" + b"}" * 500),
    "length-is-the-file": struct.pack("<Q", 100) + b"{}" + bytes(8),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_header_is_told_in_our_words(name, tmp_path):
    """Whatever it claims, nothing of that size is made, and no error but ours comes out."""
    import keras_ckpt_tools as kct

    path = tmp_path / "a.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(CkptError):
        open_source(path)
    assert not kct.inspect(path)
    assert not kct.verify(path)


def test_header_over_the_limit_is_refused(tmp_path):
    """A header of more values than any model has is not parsed."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(_raw({f"a{n}": _F4 for n in range(300)}, bytes(8)))
    with pytest.raises(OverBudgetError):
        open_source(path, limits=Limits(1 << 30, json_nodes=1000))
    path.write_bytes(_raw({"a": {**_F4, "shape": [250], "data_offsets": [0, 1000]}}, bytes(1000)))
    with pytest.raises(OverBudgetError, match="max_bytes=1000"):
        open_source(path, limits=Limits(100))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.integers(0, 255), st.integers(0, 40))
def test_changed_file_is_read_or_refused(tmp_path_factory, place, byte, cut):
    """One byte of the header, or a few bytes of the end: never an error of another kind."""
    data = bytearray(_written({"a": np.eye(2), "b": np.ones(3, "i4")}, {"x": "y"}))
    data[place % len(data)] = byte
    path = tmp_path_factory.mktemp("changed") / "a.safetensors"
    try:
        _read(path, bytes(data[: len(data) - cut]))
    except CkptError:
        return
    assert cut == 0


def test_file_that_is_written_to_is_refused(tmp_path):
    """What was opened is what is read."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(_written({"a": np.eye(2)}))
    with open_source(path) as source:
        path.write_bytes(_written({"a": np.ones((2, 3))}))
        with pytest.raises(DamagedArtefactError):
            source.read_all(["a"])


def test_it_is_inspected_verified_compared_and_loaded(tmp_path):
    """Like any other file with weights; `verify` says that it has no digests."""
    import keras

    import keras_ckpt_tools as kct
    from keras_ckpt_tools.live import state

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    arrays = {path: state.to_numpy(v) + 1 for path, v in state.capture(model).values.items()}
    arrays["layers/dense/vars/1"][0] = np.nan
    progress = TrainingProgress(epochs_completed=3, step=12)
    noted = notes(Record(versions={"keras": "3.10.0"}, progress=progress), None, {})
    path = tmp_path / "größer 模型.safetensors"
    path.write_bytes(_written(arrays, noted))
    report = kct.inspect(path)
    assert report, str(report)
    assert (report.kind, report.progress, report.versions["keras"]) \
        == ("safetensors", progress, "3.10.0")  # fmt: skip
    assert "it has no digests" in str(kct.verify(path))
    assert kct.compare(model, path)
    found = kct.load_weights(model, path)
    assert found.not_finite == ("layers/dense/vars/1",)
    assert np.array_equal(model.layers[0].kernel, arrays["layers/dense/vars/0"])
    assert kct.training_progress(model).epochs_completed == 3
    with pytest.raises(CkptError, match="no config of a model"):
        kct.safe_load_model(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"progress": 7}', '{"progress": {"step": -1}}'])
def test_nonsense_in_our_notes_is_passed_over(text, tmp_path):
    """Somebody else's text under our name costs the progress and not the file."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(_written({"a": np.eye(2)}, {"keras_ckpt_tools.record": text}))
    with open_source(path) as source:
        assert source.record is None
        assert list(source.tensors) == ["a"]

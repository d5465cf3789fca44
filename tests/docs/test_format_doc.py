"""`docs/format.md` is enough to write a reader from.

The reader below is written from that page and imports nothing of the package. It reads and verifies
what the package writes, and finds every kind of damage that the page says can be found.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
MAGIC = bytes.fromhex("93 4B 43 54 0D 0A 1A 0A")
SUPERBLOCK = bytes.fromhex("89 48 44 46 0D 0A 1A 0A")
HEAD = struct.Struct("<8sQQQ16s")


class Damaged(Exception):
    """What the reader found wrong."""


class Reader:
    """Reads one file by `docs/format.md`."""

    def __init__(self, descriptor: int):
        self.fd = descriptor
        self.end = os.fstat(descriptor).st_size
        self.base = 0
        tail = os.pread(descriptor, 51, max(self.end - 51, 0))
        self.comment = tail if tail.startswith(b"keras_ckpt_tools:1:") else b""
        if os.pread(descriptor, 4, 0) == b"PK\x03\x04":
            if not self.comment:
                raise Damaged("no comment of ours at the end of the zip")
            self.base, self.end = self._weights_member()
        self.block, self.record = self._head()

    def at(self, offset: int, length: int) -> bytes:
        return os.pread(self.fd, length, self.base + offset)

    def _weights_member(self) -> tuple[int, int]:
        """Find where the data of `model.weights.h5` begins and ends: plain zip reading."""
        size = os.fstat(self.fd).st_size
        end = os.pread(self.fd, 22, size - len(self.comment) - 22)
        _, _, _, _, count, _, place, _ = struct.unpack("<4s4H2LH", end)
        for _ in range(count):
            fields = struct.unpack("<4s6H3L5H2L", os.pread(self.fd, 46, place))
            method, stored, lengths, header = fields[4], fields[8], fields[10:13], fields[16]
            name = os.pread(self.fd, lengths[0], place + 46)
            if name == b"model.weights.h5":
                assert method == 0, "stored, not compressed"
                local = struct.unpack("<26xHH", os.pread(self.fd, 30, header))
                start = header + 30 + sum(local)
                return start, start + stored
            place += 46 + sum(lengths)
        raise Damaged("no model.weights.h5 in the zip")

    def _head(self) -> tuple[int, dict[str, Any]]:
        head = self.at(0, HEAD.size)
        magic, version, block, length, digest = HEAD.unpack(head)
        if magic != MAGIC:
            raise Damaged("not ours")
        if version != 1:
            raise Damaged("a header version that is not known")
        if block & (block - 1) or not 512 <= block <= 2**30 or 48 + length > block:
            raise Damaged("lengths")
        rest = self.at(48, block - 48)
        if xxhash.xxh3_128_digest(head[:32] + rest[:length]) != digest:
            raise Damaged("digest of the record")
        if rest[length:].strip(b"\0"):
            raise Damaged("zeros behind the record")
        assert self.at(block, 8) == SUPERBLOCK
        return block, json.loads(rest[:length])

    def tensor(self, entry: dict[str, Any]) -> np.ndarray:
        data = b"" if entry["offset"] is None else self.at(entry["offset"], entry["nbytes"])
        if xxhash.xxh3_128_hexdigest(data) != entry["digest"]:
            raise Damaged(f"digest of {entry['path']}")
        return np.frombuffer(data, entry["dtype"]).reshape(entry["shape"])

    def tensors(self) -> dict[str, np.ndarray]:
        return {entry["path"]: self.tensor(entry) for entry in self.record["tensors"]}

    def verify(self) -> None:
        if self.end - self.base != self.record["size"]:
            raise Damaged("length")
        self.tensors()
        skeleton, position = xxhash.xxh3_128(), self.block
        placed = [t for t in self.record["tensors"] if t["offset"] is not None]
        for entry in sorted(placed, key=lambda t: t["offset"]):
            skeleton.update(self.at(position, entry["offset"] - position))
            position = entry["offset"] + entry["nbytes"]
        skeleton.update(self.at(position, self.record["size"] - position))
        if skeleton.hexdigest() != self.record["skeleton_digest"]:
            raise Damaged("skeleton")
        if self.comment:
            size = os.fstat(self.fd).st_size
            around = os.pread(self.fd, self.base, 0)
            around += os.pread(self.fd, size - 32 - self.end, self.end)
            if xxhash.xxh3_128_hexdigest(around) != self.comment[-32:].decode():
                raise Damaged("the archive around the weights")


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Reader]:
    """Open a file for as long as the block runs."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield Reader(descriptor)
    finally:
        os.close(descriptor)


def train(
    build_cnn: Callable[..., Any], digits: Any, tmp_path: Path
) -> tuple[Any, dict[str, Path]]:
    """Return a trained CNN with dropout, and a file of every kind with its state."""
    import keras_ckpt_tools as kct

    model = build_cnn(dropout=0.2)
    paths = {
        "keras": tmp_path / "model.keras",
        "h5": tmp_path / "model.h5",
        "weights": tmp_path / "model.weights.h5",
        "checkpoint": tmp_path / "run" / "ckpt-00000001.weights.h5",
    }
    savers = [
        kct.ModelCheckpoint(paths["keras"], monitor="loss"),
        kct.ModelCheckpoint(paths["h5"], monitor="loss"),
        kct.ModelCheckpoint(paths["weights"], monitor="loss", save_weights_only=True),
        kct.BackupAndRestore(tmp_path / "run", delete_checkpoint=False),
    ]
    model.fit(digits.x_train[:64], digits.y_train[:64], verbose=0, callbacks=savers)
    return model, paths


KINDS = ("keras", "h5", "weights", "checkpoint")


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_of_every_kind_of_file_is_accounted_for(build_cnn, digits, tmp_path, kind):
    """Head, tensors, skeleton and archive verify by the document's rules alone."""
    _, paths = train(build_cnn, digits, tmp_path)
    with reading(paths[kind]) as reader:
        reader.verify()
        kinds = {"keras": "model", "h5": "model", "weights": "weights", "checkpoint": "checkpoint"}
        assert reader.record["kind"] == kinds[kind]
        assert reader.record["format_version"] == 1


@pytest.mark.parametrize("kind", ["keras", "weights", "checkpoint"])
def test_tensors_are_those_of_the_model(build_cnn, digits, tmp_path, kind):
    """What the reader gets is what the model has, and stands where Keras puts it."""
    model, paths = train(build_cnn, digits, tmp_path)
    prefix = "model/" if kind == "checkpoint" else ""
    with reading(paths[kind]) as reader:
        found = reader.tensors()
    kernel, bias = model.get_layer("conv").get_weights()
    assert np.array_equal(found[f"{prefix}layers/conv2d/vars/0"], kernel)
    assert np.array_equal(found[f"{prefix}layers/conv2d/vars/1"], bias)
    assert found["optimizer/vars/0"] == model.optimizer.iterations.numpy()
    seeds = [v for v in model.non_trainable_variables if v.name == "seed_generator_state"]
    assert np.array_equal(found[f"{prefix}random_state/0"], seeds[0].numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_record_says_where_training_was(build_cnn, digits, tmp_path, kind):
    """Progress reads the same in every kind of file."""
    _, paths = train(build_cnn, digits, tmp_path)
    with reading(paths[kind]) as reader:
        progress = reader.record["progress"]
    assert (progress["epochs_completed"], progress["batches_completed"]) == (1, 0)
    assert progress["step"] == 2
    assert progress["history_epochs"]["loss"] == [0]
    assert progress["history"]["loss"] == [progress["logs"]["loss"]]


def test_checkpoint_describes_what_is_tracked_and_links_the_model(build_cnn, digits, tmp_path):
    """Groups, `tracked` and the second paths for stock Keras are as the document says."""
    import h5py

    _, paths = train(build_cnn, digits, tmp_path)
    with reading(paths["checkpoint"]) as reader:
        tracked = reader.record["tracked"]
    assert {name: entry["kind"] for name, entry in tracked.items()} == {
        "model": "model",
        "optimizer": "optimizer",
        "_random": "run",
        "_fit": "run",
        "_metrics": "run",
        "_cadence": "run",
    }
    assert tracked["model"]["build_config"] == {"input_shape": [None, 8, 8, 1]}
    assert tracked["optimizer"]["built_on"][0] == "model/layers/conv2d/vars/0"
    with h5py.File(paths["checkpoint"]) as file:
        assert file["layers"] == file["model/layers"]


def test_state_says_what_json_cannot(tmp_path):
    """Arrays, tuples, long integers, infinities and other keys come in the forms of the table."""
    import keras_ckpt_tools as kct

    class Counter:
        def __init__(self) -> None:
            self.state = {
                "best": float("inf"),
                "long": 2**70,
                "pair": (1, 2),
                "seen": {3: "three"},
                "table": np.arange(4),
            }

        def get_state(self) -> Any:
            return self.state

        def set_state(self, state: Any) -> None:
            self.state = state

    counter = Counter()
    before = counter.state
    manager = kct.CheckpointManager(tmp_path, counter=counter)
    path = manager.save()
    with reading(path) as reader:
        assert reader.record["tracked"]["counter"]["state"] == {
            "best": {"__float__": "inf"},
            "long": {"__int__": str(2**70)},
            "pair": {"__tuple__": [1, 2]},
            "seen": {"__items__": [[3, "three"]]},
            "table": {"__array__": "state/0"},
        }
        assert reader.tensors()["counter/state/0"].tolist() == [0, 1, 2, 3]
    counter.state = None
    manager.restore(path)
    assert np.array_equal(counter.state.pop("table"), before.pop("table"))
    assert counter.state == before


@pytest.mark.parametrize("kind", KINDS)
def test_reader_finds_a_flipped_bit_wherever_it_is(build_cnn, digits, tmp_path, kind):
    """A bit in the head, the skeleton, a tensor or the archive around them does not go unseen."""
    _, paths = train(build_cnn, digits, tmp_path)
    path = paths[kind]
    whole = path.read_bytes()
    random = np.random.default_rng(3)
    for place in {0, len(whole) - 1, *random.integers(len(whole), size=40).tolist()}:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises((Damaged, AssertionError, struct.error)), reading(path) as reader:
            reader.verify()


def test_document_names_every_key_that_is_written(build_cnn, digits, tmp_path):
    """A key that a file has and the page has not would be a hole in the specification."""
    text = DOCUMENT.read_text(encoding="utf-8")
    _, paths = train(build_cnn, digits, tmp_path)
    with reading(paths["checkpoint"]) as reader:
        record = reader.record
    keys = {*record, *record["progress"], *record["versions"]}
    keys |= {key for entry in record["tensors"] for key in entry}
    keys |= {key for entry in record["tracked"].values() for key in entry}
    keys |= {name for name in record["tracked"] if name.startswith("_")}
    keys |= {entry["kind"] for entry in record["tracked"].values()}
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_document_has_the_constants_of_the_reader():
    """The reader above would not notice another number on the page."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for constant in (
        f"magic: `{MAGIC.hex(' ').upper()}`",
        f"the HDF5 superblock: `{SUPERBLOCK.hex(' ').upper()}`",
        "a power of two from 512 to 2^30",
        f"| {HEAD.size} | *J* | the record",
        "| 32 | 16 | digest of the bytes 0 to 31 and the JSON",
        "keras_ckpt_tools:1:DIGEST",
        ".NAME.XXXXXXXX.kct-staged",
    ):
        assert constant in text
    assert HEAD.size == 48


def test_document_has_every_form_of_a_value():
    """What `state` can hold is in the table, and nothing else."""
    from keras_ckpt_tools.training.state import trees

    table = DOCUMENT.read_text(encoding="utf-8").partition("In `state`, an object")[2]
    described = set(re.findall(r"`(__\w+__)`", table.partition("\n## ")[0]))
    written = set(re.findall(r'"(__(?!all)\w+__)"', Path(trees.__file__).read_text("utf-8")))
    assert described == written

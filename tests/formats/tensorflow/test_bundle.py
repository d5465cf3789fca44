"""TensorFlow checkpoints as bytes: what TensorFlow writes we read, and the other way round."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_ckpt_tools.errors import ArtefactNotFoundError, CkptError, DamagedArtefactError
from keras_ckpt_tools.formats.common.dtypes import numpy_dtype
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.tensorflow.bundle import DTYPES, Bundle
from keras_ckpt_tools.formats.tensorflow.bundle_writer import write_bundle
from keras_ckpt_tools.formats.tensorflow.checkpoint import GRAPH, TfCheckpoint
from keras_ckpt_tools.formats.tensorflow.object_graph import parse_graph
from keras_ckpt_tools.formats.tensorflow.protobuf import (
    bytes_field,
    fields,
    number_field,
    read_varint,
    varint,
)
from keras_ckpt_tools.formats.tensorflow.sstable import read_table, write_table

FOLDER = Path(__file__).parents[2] / "files" / "keras2_checkpoints"
NAMES = sorted(DTYPES.values())


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    """Return an array of each dtype, and of odd shapes."""
    numbers = np.arange(6).reshape(2, 3)
    found = {name: (numbers % 2).astype(numpy_dtype(name)) for name in NAMES}
    return found | {"scalar": np.float32(3), "empty": np.zeros((0, 3), "float32")}


def written(path: Path, tensors: dict[str, np.ndarray[Any, Any]], graph: bytes = b"") -> str:
    """Write a checkpoint as we do; return its prefix."""
    prefix = str(path / "ours")
    with open(f"{prefix}.data-00000-of-00001", "wb") as file:
        index, _, _ = write_bundle(file.write, tensors, graph, GRAPH)
    Path(f"{prefix}.index").write_bytes(index)
    return prefix


def test_tensorflow_reads_what_we_write(tmp_path: Path) -> None:
    """Every dtype; also an index of several blocks, and text that it may not know."""
    many = {f"layer/{n:05d}/{'x' * 60}": np.float32(n) for n in range(4000)}
    text = {"text": np.array([b"ab", b"c"])}
    prefix = written(tmp_path, arrays() | many | text)
    reader = tf.train.load_checkpoint(prefix)
    assert len(reader.get_variable_to_shape_map()) == len(arrays()) + len(many) + 2
    for name, array in (arrays() | many).items():
        assert np.array_equal(reader.get_tensor(name), array), name
    assert reader.get_tensor("text").tobytes() == b"abc\0"
    assert Path(f"{prefix}.index").stat().st_size > 1 << 18
    assert np.array_equal(Bundle(prefix).read_all(["int8"])["int8"], arrays()["int8"])


def test_we_read_what_tensorflow_writes(tmp_path: Path) -> None:
    """Every dtype, a scalar, nothing at all; in one data file and in several."""
    tensors = {name: tf.constant(array) for name, array in arrays().items()}
    parts = []
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        parts.append(str(tmp_path / f"part-{number}"))
        tf.raw_ops.SaveV2(
            prefix=parts[-1],
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[tensors[name] for name in names],
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(tmp_path / "whole")
    )
    assert len(list(tmp_path.glob("whole.data-*-of-00002"))) == 2
    bundle = Bundle(str(tmp_path / "whole"))
    found = bundle.read_all(bundle.tensors)
    assert found.keys() == tensors.keys()
    for name, array in found.items():
        assert array.dtype == arrays()[name].dtype
        assert np.array_equal(array, arrays()[name]), name
    assert not list(bundle.problems())


def test_files_that_are_gone_are_named(tmp_path: Path) -> None:
    """The data, and with it what is there instead; or the index, with the nearest prefix."""
    folder = Path(shutil.copytree(FOLDER / "adam", tmp_path / "adam"))
    (folder / "ckpt-3.data-00000-of-00001").unlink()
    with pytest.raises(DamagedArtefactError, match=r"ckpt-3.data-00000-of-00001\. The dir.*-2"):
        Bundle(str(folder / "ckpt-3"))
    with pytest.raises(ArtefactNotFoundError, match=r"nearest prefix is .*ckpt-2") as caught:
        Bundle(str(folder / "ckpt-22"))
    assert caught.value.nearby == ("ckpt-2",)


def test_no_change_of_a_byte_goes_unnoticed_or_ends_in_a_crash(tmp_path: Path) -> None:
    """Each is found, or changes nothing that is read."""
    prefix = written(tmp_path, {"a": np.arange(9.0), "b": np.float32(1)}, b"\x0a\x00")
    expected = TfCheckpoint(prefix).read_all(["a", "b"])
    unnoticed = 0
    for suffix in (".index", ".data-00000-of-00001"):
        path = Path(prefix + suffix)
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
            try:
                found = TfCheckpoint(prefix).read_all(["a", "b"])
            except CkptError:
                continue
            unnoticed += 1
            assert all(np.array_equal(found[name], expected[name]) for name in expected)
        path.write_bytes(whole)
    assert unnoticed < 60  # Zeros between the footer's handles and its magic, and its first handle.


def test_noise_is_refused_and_nothing_else(tmp_path: Path) -> None:
    """Whatever a stranger writes, with checksums that are right: an error of ours."""
    chosen = random.Random(5)
    data = np.zeros(64, np.uint8).tobytes()
    (tmp_path / "x.data-00000-of-00001").write_bytes(data)
    for _ in range(300):
        noise = [
            bytes_field(chosen.randrange(1, 9), chosen.randbytes(chosen.randrange(12)))
            + number_field(chosen.randrange(1, 7), chosen.getrandbits(chosen.choice((3, 40, 64))))
            for _ in range(2)
        ]
        header = number_field(1, chosen.choice((1, 1, 1, 2**40))) + chosen.choice((b"", noise[0]))
        entries = [
            (b"", header),
            (b"a", noise[0]),
            (b"b", b"".join(noise)),
            (GRAPH.encode(), noise[1]),
        ]
        (tmp_path / "x.index").write_bytes(write_table(entries[: chosen.randrange(1, 5)]))
        try:
            checkpoint = TfCheckpoint(str(tmp_path / "x"))
            list(checkpoint.bundle.problems())
        except CkptError:
            continue


def _entry(dtype: int, shape: tuple[int, ...], offset: int, size: int) -> bytes:
    dimensions = b"".join(bytes_field(2, number_field(1, n)) for n in shape)
    told = number_field(1, dtype) + bytes_field(2, dimensions)
    return told + number_field(4, offset) + number_field(5, size)


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([_entry(1, (1 << 40, 1 << 20), 0, 1 << 62)], "its tensors take"),
        ([_entry(1, (100,), 0, 400)], "ends before its last"),
        ([_entry(1, (4,), 0, 16), _entry(1, (4,), 8, 16)], "overlap"),
        ([_entry(1, (5,), 0, 16)], "other bytes than its shape"),
        ([_entry(1, (-1,), 0, 16)], "shape in its index is not known"),
        ([_entry(1, (4,), -8, 16)], "negative"),
        ([_entry(1, (0, 1 << 60, 1 << 60), 0, 0)], "larger than any array"),
        ([_entry(1, (1,) * 100, 0, 4)], "too many axes"),
    ],
)
def test_what_an_index_declares_is_held_against_the_files(
    tmp_path: Path, entries: list[bytes], what: str
) -> None:
    """Before memory of that size is taken."""
    header = number_field(1, 1)
    named = [(f"t{n}".encode(), entry) for n, entry in enumerate(entries)]
    (tmp_path / "x.index").write_bytes(write_table([(b"", header), *named]))
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(64))
    with pytest.raises(CkptError, match=what):
        Bundle(str(tmp_path / "x"))


def test_a_small_table_cannot_become_a_large_one() -> None:
    """Keys repeat their beginnings: a megabyte of them would be terabytes."""
    key = b"k" * 60_000
    block = b"\0" + varint(len(key)) + b"\0" + key
    for n in range(20_000):
        block += varint(len(key)) + b"\x03\0" + n.to_bytes(3, "big")
    block += (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    # A table of ours with its one block replaced.
    from keras_ckpt_tools.formats.tensorflow import sstable

    made = sstable._made_of
    blocks = iter([block])
    sstable._made_of = lambda entries: next(blocks, None) or made(entries)
    try:
        table = write_table([(b"z" * 10, b"")])
    finally:
        sstable._made_of = made
    with pytest.raises(ValueError, match="more entries"):
        list(read_table(table, 500_000))
    with pytest.raises(ValueError, match="more entries"):
        list(read_table(write_table([(bytes([n]), b"") for n in range(9)]), 8))


def test_a_graph_of_many_objects_is_read_in_time() -> None:
    """A chain, and a cycle; what names an object that is not there is refused."""
    count = 20_000
    nodes = [
        bytes_field(1, bytes_field(1, number_field(1, (n + 1) % count) + bytes_field(2, b"next")))
        for n in range(count - 1)
    ]
    told = bytes_field(1, b"VARIABLE_VALUE") + bytes_field(3, b"key")
    nodes.append(bytes_field(1, bytes_field(2, told)))
    root = parse_graph(b"".join(nodes), {"key": (2,)}, count)
    assert root.holds_values
    with pytest.raises(ValueError, match="more objects"):
        parse_graph(b"".join(nodes), {}, count - 1)
    with pytest.raises(ValueError, match="not in it"):
        parse_graph(bytes_field(1, bytes_field(1, number_field(1, 7))), {}, count)


def test_a_message_that_is_cut_off_is_refused() -> None:
    """In a number, in a field, and of a kind that there is not."""
    for data in (b"\xff" * 11, b"\x80", b"\x0a\x05ab", b"\x0b"):
        with pytest.raises(ValueError, match="in it"):
            list(fields(data))
    assert read_varint(varint(-1), 0) == (2**64 - 1, 10)


def test_more_than_may_be_taken_is_refused() -> None:
    """`max_bytes` holds for all tensors together."""
    with pytest.raises(CkptError, match="max_bytes="):
        Bundle(str(FOLDER / "adam" / "ckpt-3"), Limits.of(100))

"""What a file costs its reader grows as its size does, whatever its author thought of.

For each reader here are the worst files within its limits that we know of, made in two sizes. The
lines of this package that run, and the bytes that are held at once, are counted: both are the same
on every machine. `KCT_FUZZ` above its default makes the files sixteen times as large.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from hostile.rawzip import Member, raw_zip

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.common.bounded_json import parse_object
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.hdf5.scan import survey
from keras_ckpt_tools.formats.hdf5.structure import UnfamiliarError, tensors_in
from keras_ckpt_tools.formats.keras_zip.reader import open_archive
from keras_ckpt_tools.formats.keras_zip.seal import BAD_ZIP
from keras_ckpt_tools.formats.kinds import tell
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.orbax import OrbaxCheckpoint
from keras_ckpt_tools.formats.record import userblock
from keras_ckpt_tools.formats.tensorflow.bundle_writer import write_bundle
from keras_ckpt_tools.formats.tensorflow.checkpoint import GRAPH, SUFFIX, TfCheckpoint
from keras_ckpt_tools.formats.tensorflow.protobuf import bytes_field, number_field, varint
from keras_ckpt_tools.formats.tensorflow.sstable import masked_crc, read_table
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.peek import glimpse, read_head
from keras_ckpt_tools.runs.save_history import Place, follow

SCALE = 16 if int(os.environ.get("KCT_FUZZ", "20000")) > 20000 else 1
LIMITS = Limits(1 << 30)
PACKAGE = str(Path(sys.modules["keras_ckpt_tools"].__file__).parent)

# What one byte of a file may cost at most: bytes of memory, and lines of this package that run.
MEMORY_PER_BYTE = 150
LINES_PER_BYTE = 25
# Beside that, what any file may cost.
MEMORY = 1 << 20
LINES = 5_000
GROWTH = 2.4

CASES = {}


def case(*, memory=MEMORY_PER_BYTE):
    """Put a reader and its worst file on the list; what is made is `(path, bytes, read)`."""

    def add(make):
        CASES[make.__name__] = make, memory
        return make

    return add


def _node(*children, key="", slots=()):
    parts = [bytes_field(1, number_field(1, c) + bytes_field(2, n.encode())) for n, c in children]
    if key:
        told = (b"VARIABLE_VALUE", b"", key.encode())
        parts += [bytes_field(2, b"".join(bytes_field(n + 1, t) for n, t in enumerate(told) if t))]
    return bytes_field(1, b"".join(parts))


def _checkpoint(folder, nodes, keys):
    prefix = folder / "ckpt"
    data = io.BytesIO()
    arrays = {key: np.zeros(1, "float32") for key in keys}
    index, _, _ = write_bundle(data.write, arrays, b"".join(nodes), GRAPH)
    (folder / "ckpt.index").write_bytes(index)
    (folder / "ckpt.data-00000-of-00001").write_bytes(data.getvalue())
    return str(prefix), len(index) + len(data.getvalue()), lambda: TfCheckpoint(str(prefix)).paths


@case()
def tensorflow_chain_of_long_names(folder, n):
    """The path of each object has the names of all above it: two megabytes took 3.8 GB."""
    n = 200 * n
    keys = [f"v{i}{SUFFIX}" for i in range(n)]
    nodes = [
        _node(*([("n" * 200, i + 1)] if i < n - 1 else []), key=keys[i]) for i in range(n)
    ]  # fmt: skip
    return _checkpoint(folder, nodes, keys)


@case()
def tensorflow_optimizers_over_one_chain(folder, n):
    """Each was walked through from its beginning to the end of what they share."""
    n = 100 * n
    keys = [f"v{i}{SUFFIX}" for i in range(n)]
    root = _node(*((f"o{i}", 1 + i) for i in range(n)))
    optimizers = [_node(("iter", 1 + n), ("decay", 1 + n)) for _ in range(n)]
    chain = [_node(*([("x" * 200, 2 + n + i)] if i < n - 1 else []), key=keys[i]) for i in range(n)]
    return _checkpoint(folder, [root, *optimizers, *chain], keys)


@case()
def tensorflow_objects_of_two_bytes(folder, n):
    """Each becomes an object of ours."""
    return _checkpoint(folder, [_node()] * (20_000 * n), [f"a{SUFFIX}"])


@case()
def tensorflow_keys_that_share_their_beginning(folder, n):
    """An entry of four bytes is a key of 64 kB."""
    block = b"\0" + varint(30_000) + b"\0" + b"k" * 30_000
    for i in range(1000 * n):
        block += varint(30_000) + b"\4\0" + i.to_bytes(4, "big")
    return _table(folder, [block + struct.pack("<II", 0, 1)])


@case()
def tensorflow_index_that_names_one_block_again_and_again(folder, n):
    """Each time it was read, and its checksum made."""
    restarts = 2000 * n
    return _table(folder, [struct.pack("<I", 0) * restarts + struct.pack("<I", restarts)] * n, 1000)


def _table(folder, blocks, times=1):
    data, entries, number = b"", b"", 0
    for block in blocks:
        place = varint(len(data)) + varint(len(block))
        data += block + b"\0" + struct.pack("<I", masked_crc(block, b"\0"))
        for _ in range(times):
            entries += b"\0\4" + varint(len(place)) + number.to_bytes(4, "big") + place
            number += 1
    entries += struct.pack("<II", 0, 1)
    index = varint(len(data)) + varint(len(entries))
    data += entries + b"\0" + struct.pack("<I", masked_crc(entries, b"\0"))
    data += (b"\0\0" + index).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)

    def read():
        with contextlib.suppress(ValueError):
            list(read_table(data, LIMITS.objects))

    return "", len(data), read


def _zip(folder, data):
    path = folder / "a.keras"
    path.write_bytes(data)

    def read():
        with path.open("rb") as file:
            glimpse(file.fileno(), str(path))
            with contextlib.suppress(*BAD_ZIP):
                open_archive(file, str(path), LIMITS).close()

    return path, len(data), read


@case()
def zip_of_many_members(folder, n):
    """Each has an entry, and a header."""
    return _zip(folder, raw_zip([Member(b"%d" % i) for i in range(400 * n)]))


@case()
def zip_whose_members_are_one(folder, n):
    """A thousand entries name one header, whose name is 60 kB long."""
    first = Member(b"a", local_name=b"a" * 60_000)
    return _zip(folder, raw_zip([first, *(Member(b"%d" % i, offset=0) for i in range(400 * n))]))


@case()
def zip_whose_assets_unpack_to_a_thousand_times_their_size(folder, n):
    """None alone is large enough to be refused."""
    member = {"data": b"x" * 900, "size": 900_000, "method": 8}
    return _zip(folder, raw_zip([Member(b"assets/%d" % i, **member) for i in range(20 * n)]))


@case()
def zip_that_hides_how_long_its_table_is(folder, n):
    """The mark of an end in the real end hid a second one, with another length."""
    table = raw_zip([Member(b"%d" % i) for i in range(400 * n)])[:-22]
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 9, 9, len(table), 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(table), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, 0x06054B50, 0, 0)
    return _zip(folder, table + record + locator + end)


def _record(folder, text):
    size = userblock.block_size(len(text))
    start = struct.pack("<8sQQQ", userblock.MAGIC, 1, size, len(text))
    data = (start + xxhash.xxh3_128_digest(start + text) + text).ljust(size, b"\0")

    def read():
        userblock._parsed.cache_clear()
        for reader in (read_head, userblock.decode):
            with contextlib.suppress(CkptError):
                str(reader(userblock.read_at(data), "a"))

    return "", size, read


@case()
def record_of_empty_lists(folder, n):
    """Three bytes are a list."""
    return _record(folder, b'{"state":{"a":[' + b"[]," * (20_000 * n) + b"0]}}")


@case()
def record_of_empty_histories(folder, n):
    """Each has epochs, too."""
    names = b",".join(b'"%d":[]' % i for i in range(4000 * n))
    return _record(folder, b'{"progress":{"history":{' + names + b"}}}")


@case()
def record_with_a_name_that_stands_twice(folder, n):
    """The name is long, and the message about it is not."""
    name = b'"' + b"n" * (20_000 * n) + b'":1'
    return _record(folder, b'{"state":{' + name + b"," + name + b"}}")


@case()
def record_whose_parts_look_like_those_that_are_cut_out(folder, n):
    """What could be the end of the history is looked for again and again."""
    return _record(folder, b'{"a":[' + b'{"x":1,"history":{"best":null}},' * (2000 * n) + b"0]}")


def _text(name):
    def add(make):
        def made(folder, n):
            text = make(n)

            def read():
                parse_object(text, "config.json", "a", LIMITS)

            return "", len(text), read

        CASES[f"json_{name}"] = made, MEMORY_PER_BYTE
        return make

    return add


_text("of_lists")(lambda n: '{"a":[' + "[]," * (20_000 * n) + "0]}")
_text("of_objects")(lambda n: '{"a":[' + '{"b":{}},' * (7_000 * n) + "0]}")
_text("of_names")(lambda n: "{" + ",".join(f'"{i}":0' for i in range(9000 * n)) + "}")
_text("of_long_numbers")(lambda n: '{"a":[' + ("1" * 4000 + ",") * (20 * n) + "0]}")
_text("of_levels")(lambda n: '{"a":' * (10_000 * n) + "0" + "}" * (10_000 * n))
_text("of_digits")(lambda n: '{"a":' + "1" * (50_000 * n) + "}")


def _safetensors(folder, header):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    path = folder / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)

    def read():
        open_source(path, limits=LIMITS).close()

    return path, len(text), read


@case()
def safetensors_of_empty_tensors(folder, n):
    """They take no bytes, and an entry each."""
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    return _safetensors(folder, {str(i): empty for i in range(1000 * n)})


@case()
def safetensors_of_one_shape(folder, n):
    """With thousands of axes."""
    one = {"dtype": "U8", "shape": [1 << 61] * (9000 * n), "data_offsets": [0, 0]}
    return _safetensors(folder, {"a": one})


@case()
def safetensors_nested(folder, n):
    """The first bytes are parsed to tell what it is."""
    return _safetensors(folder, b'{"a":' + b"[" * (3000 * n) + b"]" * (3000 * n) + b"}")


def _orbax(folder, entries):
    text = json.dumps({"use_ocdbt": True, "tree_metadata": entries}, separators=(",", ":"))
    (folder / "_METADATA").write_text(text)
    return folder, len(text), lambda: OrbaxCheckpoint(tell(folder), LIMITS).variables


@case()
def orbax_of_many_names(folder, n):
    """Each is a tensor."""
    entry = {"key_metadata": [{"key": "a"}], "value_metadata": {"value_type": "x"}}
    return _orbax(folder, {str(i): entry for i in range(1000 * n)})


@case()
def orbax_of_one_long_name(folder, n):
    """A name of thousands of parts."""
    parts = [{"key": "a"}] * (8000 * n)
    return _orbax(folder, {"a": {"key_metadata": parts, "value_metadata": {"value_type": "x"}}})


@case()
def orbax_of_one_wrong_name(folder, n):
    """The message about it does not repeat it."""
    return _orbax(folder, {"a": {"key_metadata": [{"key": ".."}] * (8000 * n)}})


def _structure(folder, fill):
    path = folder / "a.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        fill(file)
    data = path.read_bytes()

    def read():
        with contextlib.suppress(UnfamiliarError):
            tensors_in([(512, data[512:])], 512, 1000)
        with path.open("rb") as file:
            survey(file.fileno(), 0, len(data), str(path), LIMITS)

    return path, len(data), read


@case()
def hdf5_groups_with_two_names_each(folder, n):
    """Of forty groups there are 2 ** 40 paths."""

    def fill(file):
        group = file
        for _ in range(40 + n):
            below = group.create_group("a")
            group["b"] = below
            group = below

    return _structure(folder, fill)


@case()
def hdf5_groups_with_long_names(folder, n):
    """Each path has the names of all groups above it."""

    def fill(file):
        group = file
        for _ in range(100):
            group = group.create_group("n" * 2000)
        for i in range(200 * n):
            group[str(i)] = np.zeros(1)

    return _structure(folder, fill)


@case()
def hdf5_datasets_of_the_same_bytes(folder, n):
    """Each has another name, and none has bytes of its own."""

    def fill(file):
        one = file.create_dataset("a", data=np.zeros(9000 * n))
        for i in range(100 * n):
            file[f"b{i}"] = one

    return _structure(folder, fill)


@case()
def hdf5_datasets_that_were_never_written(folder, n):
    """Each declares a megabyte."""

    def fill(file):
        for i in range(200 * n):
            file.create_dataset(str(i), (130_000,), "float64")

    return _structure(folder, fill)


def _lines_of(read):
    lines = 0

    def inside(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return inside

    def called(frame, event, argument):
        return inside if frame.f_code.co_filename.startswith(PACKAGE) else None

    before = sys.gettrace()
    sys.settrace(called)
    try:
        with contextlib.suppress(CkptError):
            read()
    finally:
        sys.settrace(before)
    return lines


def _memory_of(read):
    tracemalloc.start()
    try:
        with contextlib.suppress(CkptError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", CASES)
def test_cost_of_the_worst_file_grows_as_its_size(name, tmp_path):
    """Only errors of ours come out, and a constant bounds memory and work for each byte."""
    make, memory = CASES[name]
    costs = []
    for number, scale in enumerate((SCALE, 2 * SCALE)):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, size, read = make(folder, scale)
        with contextlib.suppress(CkptError):
            read()  # What is imported and kept at the first time costs once.
        held, lines = _memory_of(read), _lines_of(read)
        assert held <= MEMORY + memory * size, (held / size, size)
        assert lines <= LINES + LINES_PER_BYTE * size, (lines / size, size)
        costs.append((held, lines))
    (held, lines), (held_twice, lines_twice) = costs
    assert held_twice <= GROWTH * held + MEMORY / 4
    assert lines_twice <= GROWTH * lines + LINES / 4


def test_run_that_goes_on_from_a_record_of_endless_saves_goes_on():
    """A record may claim any number of them; they were taken back one by one."""
    saves = ((0, 0, 0, 1 << 60, 1, 0, 10),)
    assert follow(saves, Place(3, 0, 30)) == ((0, 0, 0, 3, 1, 0, 10),)
    still = ((5, 0, 50, 1 << 60, 0, 0, 0),)
    assert follow(still, Place(3, 0, 30)) == ((3, 0, 30),)
    assert TrainingProgress(saves=saves).saves == saves

"""Our own files, damaged or lying. A digest has no key: whoever forges a record can digest it too.

So what a record says is no more trusted than what anyone's file says, and the digests in these are
right wherever the lie is somewhere else. The format is that of docs/format.md.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from hostile.parts import (
    METADATA,
    PAYLOAD,
    archive,
    as_text,
    dense,
    hostile,
    node,
    sequential,
    tensors,
    written,
)
from hostile.rawzip import Member, raw_zip

BLOCK = 8192
MAGIC = b"\x93KCT\r\n\x1a\n"
_DAMAGED = "damaged|record|changed|missing|fit|bytes"

Edit = Callable[[dict[str, Any]], Any]


def _digest(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def our_weights(
    edit: Edit | None = None,
    *,
    head: Callable[[bytes], bytes] | None = None,
    values: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a weights file with our record, which `edit` may change before it is digested."""
    buffer = io.BytesIO()
    values = tensors() if values is None else values
    with h5py.File(buffer, "w", userblock_size=BLOCK) as file:
        for path, value in values.items():
            file[path] = value
        file.require_group("vars")
        places = {path: file[path].id.get_offset() for path in values}
    data = bytearray(buffer.getvalue())
    table, skeleton, position = [], b"", BLOCK
    for path, value in sorted(values.items(), key=lambda item: places[item[0]]):
        place, raw = places[path], value.tobytes()
        skeleton += bytes(data[position:place])
        position = place + len(raw)
        table.append(
            {"path": path, "shape": list(value.shape), "dtype": str(value.dtype), "offset": place,
             "nbytes": len(raw), "digest": _digest(raw)}
        )  # fmt: skip
    record: Any = {
        "format_version": 1,
        "kind": "weights",
        "versions": {"keras": "3.10.0"},
        "tensors": table,
        "skeleton_digest": _digest(skeleton + bytes(data[position:])),
        "size": len(data),
    }
    if edit is not None:
        changed = edit(record)
        record = record if changed is None else changed
    text = record if isinstance(record, bytes) else json.dumps(record).encode()
    start = struct.pack("<8sQQQ", MAGIC, 1, BLOCK, len(text))
    top = start + xxhash.xxh3_128_digest(start + text) + text
    if len(top) > BLOCK:
        return top
    data[:BLOCK] = top.ljust(BLOCK, b"\0")
    return head(bytes(data)) if head is not None else bytes(data)


def our_archive(data: bytes | None = None, config: Any = None) -> bytes:
    """Return a `.keras` of ours: the seal at its end is right, whatever is inside."""
    entries = [
        Member(b"metadata.json", json.dumps(METADATA).encode()),
        Member(b"config.json", as_text(config or sequential()).encode()),
        Member(b"model.weights.h5", our_weights() if data is None else data),
    ]
    whole = raw_zip(entries, comment=b"keras_ckpt_tools:1:" + b"0" * 32)
    start = whole.find(entries[2].data)
    around = whole[:start] + whole[start + len(entries[2].data) : -32]
    return whole[:-32] + _digest(around).encode()


# What these say is used for nothing but what is shown.
_HARMLESS = ("kind-lies", "kind-unknown", "versions-is-a-list")


def _lying(name: str, what: str, edit: Edit, says: str = _DAMAGED) -> None:
    def make(folder: Path) -> Path:
        return written(folder / "model.keras", our_archive(our_weights(edit)))

    # `inspect` goes by the record; a load and `verify` hold it against every byte.
    loads = name in _HARMLESS
    hostile("record", says, weights=True, inspected=False, loads=loads, name=name, what=what)(make)


def _tensor(**changes: Any) -> Edit:
    return lambda record: record["tensors"][0].update(changes)


def _all(**changes: Any) -> Edit:
    return lambda record: record.update(changes)


def _overlap(record: dict[str, Any]) -> None:
    record["tensors"][1].update(record["tensors"][0], path=record["tensors"][1]["path"])


def _huge(shape: list[int]) -> Edit:
    def edit(record: dict[str, Any]) -> None:
        nbytes = 4
        for length in shape:
            nbytes *= length
        record["tensors"][0].update(shape=shape, nbytes=nbytes)

    return edit


for _name, _what, _edit in (
    ("offset-outside", "A tensor behind the end of the file.", _tensor(offset=1 << 40)),
    ("offset-negative", "A tensor in front of the file.", _tensor(offset=-4096)),
    ("offset-in-the-record", "A tensor whose bytes are the record's.", _tensor(offset=48)),
    ("offset-is-text", "An offset that is text.", _tensor(offset="48")),
    ("offset-is-a-fraction", "An offset of 12.5.", _tensor(offset=12.5)),
    ("offset-beyond-64-bits", "An offset of 2**70.", _tensor(offset=1 << 70)),
    ("overlap", "Two tensors of the same bytes.", _overlap),
    ("nbytes-negative", "A tensor of -32 bytes.", _tensor(nbytes=-32)),
    ("nbytes-lies", "A length that is not the shape's.", _tensor(nbytes=4)),
    ("shape-negative", "A shape of (-4, -2).", _tensor(shape=[-4, -2])),
    ("shape-huge", "A tensor of 10**15 numbers.", _huge([10**8, 10**7])),
    ("shape-overflows", "A shape whose product wraps around 64 bits.", _huge([2**32, 2**32])),
    ("shape-of-zero", "A shape with a zero and a 2**62 in it.", _tensor(shape=[0, 2**62])),
    ("shape-is-text", "A shape that is text.", _tensor(shape="42")),
    ("shape-is-nested", "A shape of lists.", _tensor(shape=[[4], [2]])),
    ("shape-is-long", "A shape of 100 dimensions.", _tensor(shape=[1] * 100)),
    ("dtype-object", "A tensor of Python objects.", _tensor(dtype="object")),
    ("dtype-unknown", "A dtype that nobody has.", _tensor(dtype="float33")),
    ("dtype-structured", "A dtype that is a structure.", _tensor(dtype="f4,O")),
    ("dtype-list", "A dtype that is a list.", _tensor(dtype=[["a", "f4"]])),
    ("path-climbs", "A tensor's path that climbs.", _tensor(path="../../etc/passwd")),
    ("path-is-a-number", "A path that is a number.", _tensor(path=7)),
    ("digest-is-wrong", "A digest of other bytes.", _tensor(digest="0" * 32)),
    ("digest-is-missing", "A tensor without a digest.", _tensor(digest="")),
    ("digest-is-null", "A digest that is null.", _tensor(digest=None)),
    ("skeleton-is-wrong", "A wrong digest of the rest.", _all(skeleton_digest="0" * 32)),
    ("tensors-is-an-object", "A table of tensors that is an object.", _all(tensors={"a": 1})),
    ("tensors-are-numbers", "A table of numbers.", _all(tensors=[1, 2])),
    ("tensor-twice", "A tensor that is listed twice.",
     lambda r: r["tensors"].append(dict(r["tensors"][0]))),
    ("tensor-missing", "A tensor that is not listed.", lambda r: r["tensors"].pop()),
    ("tensor-from-nowhere", "A tensor of 10**15 numbers that has no place in the file.",
     lambda r: r["tensors"][0].update(shape=[10**8, 10**7], nbytes=4 * 10**15, offset=None)),
    ("size-lies", "A size that is not the file's.", _all(size=1 << 50)),
    ("size-negative", "A negative size.", _all(size=-1)),
    ("kind-lies", "A record that calls an archive's weights a checkpoint of a run.",
     _all(kind="checkpoint")),
    ("kind-unknown", "A kind that nobody has.", _all(kind="program")),
    ("version-is-text", "A format version that is text.", _all(format_version="1")),
    ("version-is-null", "A format version that is null.", _all(format_version=None)),
    ("versions-is-a-list", "Versions that are a list.", _all(versions=[1])),
    ("progress-is-a-list", "Progress that is a list.", _all(progress=[1])),
    ("progress-lies", "Counters that are text and lists.",
     _all(progress={"epochs_completed": "x", "step": [], "history": {"a": 7}})),
    ("objects-are-numbers", "Custom objects that are numbers.", _all(objects=[1, 2])),
    ("tracked-is-a-list", "Tracked objects that are a list.", _all(tracked=[1])),
    ("record-is-a-list", "A record that is a list.", lambda r: b"[]"),
    ("record-is-deep", "A record nested 4,000 deep.", lambda r: b'{"a":' * 900 + b"1" + b"}" * 900),
    ("record-is-no-json", "A record that is no JSON.", lambda r: b"\xff{"),
    ("progress-says-it-twice", "A record that has two numbers of completed epochs.",
     lambda r: json.dumps(r)[:-1].encode()
     + b', "progress": {"epochs_completed": 2, "epochs_completed": 77}}'),
    ("record-has-two-keys", "A record that names its tensors twice.",
     lambda r: json.dumps(r)[:-1].encode() + b', "tensors": []}'),
):  # fmt: skip
    _lying(_name, _what, _edit, _DAMAGED + "|later|version|holds|kind|nested")

_lying(
    "version-of-the-future",
    "A format version of the future.",
    _all(format_version=99),
    "later keras_ckpt_tools",
)


def _at(offset: int, value: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        struct.pack_into("<Q", changed, offset, value)
        return bytes(changed)

    return change


for _name, _what, _head in (
    ("header-version", "A header of the future.", _at(8, 2)),
    ("block-length", "A user block of 2**62 bytes.", _at(16, 1 << 62)),
    ("json-length", "A JSON of 2**62 bytes.", _at(24, 1 << 62)),
    ("json-length-of-a-gigabyte", "Lengths of a gigabyte in a small file.",
     lambda data: _at(24, (1 << 30) - 100)(_at(16, 1 << 30)(data))),
    ("flipped-bit", "One bit of a weight has changed.",
     lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]),
    ("magic", "The magic is damaged, the rest was written by this package.",
     lambda data: b"\0" + data[1:]),
):  # fmt: skip

    def _make(folder: Path, head: Callable[[bytes], bytes] = _head) -> Path:
        return written(folder / "model.keras", our_archive(our_weights(head=head)))

    hostile("record", _DAMAGED + "|later", weights=True, inspected=False, name=_name, what=_what)(
        _make
    )


@hostile("record", _DAMAGED, weights=True)
def truncated(folder: Path) -> Path:
    """The first half of an archive of this package."""
    data = our_archive()
    return written(folder / "model.keras", data[: len(data) // 2])


@hostile("record", _DAMAGED, weights=True, inspected=False)
def unsealed(folder: Path) -> Path:
    """An archive of this package whose config was changed, with the old seal."""
    data = our_archive(config=sequential(dense(activation="relu")))
    return written(folder / "model.keras", data.replace(b'"relu"', b'"tanh"'))


@hostile("record", "cannot be used|missing|untrusted")
def sealed_anew(folder: Path) -> Path:
    """Our archive whose config was changed to a third-party class, and sealed again."""
    config = sequential(node("Scale", PAYLOAD))
    return written(folder / "model.keras", our_archive(config=config))


@hostile("record", _DAMAGED, weights=True, inspected=False)
def record_in_a_foreign_zip(folder: Path) -> Path:
    """Our weights with false claims about their tensors, in an archive without a seal."""
    return archive(folder, data=our_weights(_tensor(digest="0" * 32)))


def _exchanged(*names: str) -> Edit:
    def edit(record: dict[str, Any]) -> None:
        first, second = record["tensors"][0], record["tensors"][2]
        for name in names:
            first[name], second[name] = second[name], first[name]

    return edit


def _exchanging(name: str, what: str, edit: Edit) -> None:
    def make(folder: Path) -> Path:
        layers = [{**dense(4), "config": {"name": name, "units": 4}} for name in ("dense", "last")]
        values = {
            f"layers/{layer}/vars/{index}": np.full((4, 4)[index:], number, "float32")
            for number, layer in enumerate(("dense", "dense_1"))
            for index in (0, 1)
        }
        data = our_weights(edit, values=values)
        return written(folder / "model.keras", our_archive(data, sequential(*layers)))

    hostile("record", "structure disagree", inspected=False, name=name, what=what)(make)


_exchanging("offsets-exchanged", "A record that has the places of two tensors exchanged.",
            _exchanged("offset", "digest"))  # fmt: skip
_exchanging("paths-exchanged", "A record that has the names of two tensors exchanged.",
            _exchanged("path"))  # fmt: skip

"""HDF5 files that no record covers: damage that libhdf5 meets first, and its own long arms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hostile.parts import archive, h5_model, hostile, tensors, weights, written

_DAMAGED = "damaged|cannot be read|cannot read|fit|missing|lacks"
_KERNEL = "layers/dense/vars/0"


# Whether these fit is known once there is a model to fit.
_AT_LOAD = frozenset(
    """packed-bomb strings long-strings opaque group-as-tensor missing surplus other-shape complex
    tree-sibling named-type""".split()
)
# Within every limit, or told in a warning.
_HARMLESS = frozenset("many-groups many-attributes nan infinite h5-many-names".split())


def _edited(name: str, says: str, what: str, edit: Callable[[Any], None]) -> None:
    """List an archive whose weights file was edited, and a bare weights file alike."""

    def make(folder: Path) -> Path:
        return archive(folder, data=weights(edit=edit))

    inspected, loads = name not in _AT_LOAD, name in _HARMLESS
    hostile("hdf5", says, weights=True, inspected=inspected, loads=loads, name=name, what=what)(
        make
    )


def _replaced(make: Callable[[Any], Any]) -> Callable[[Any], None]:
    def edit(file: Any) -> None:
        del file[_KERNEL]
        made = make(file)
        if made is not None:
            file[_KERNEL] = made

    return edit


def _huge(shape: tuple[int, ...], **how: Any) -> Callable[[Any], None]:
    return _replaced(lambda f: f.create_dataset(_KERNEL, shape, "f4", **how) and None)


def _external(file: Any) -> None:
    file.create_dataset(_KERNEL, (4, 2), "f4", external=[("/etc/passwd", 0, 32)])


def _external_relative(file: Any) -> None:
    file.create_dataset(_KERNEL, (4, 2), "f4", external=[("../secret.bin", 0, h5py.h5f.UNLIMITED)])


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4, 2), "f4")
    layout[...] = h5py.VirtualSource("../other.h5", "x", (4, 2))
    file.create_virtual_dataset(_KERNEL, layout)


def _virtual_fan_in(file: Any) -> None:
    layout = h5py.VirtualLayout((100000, 2), "f4")
    for index in range(200):
        layout[index] = h5py.VirtualSource(f"../{index}.h5", "x", (2,))
    file.create_virtual_dataset(_KERNEL, layout)


def _cycle(file: Any) -> None:
    file["layers/dense/again"] = file["layers"]


def _soft_cycle(file: Any) -> None:
    file["layers/again"] = h5py.SoftLink("/layers/again")


def _many_groups(file: Any) -> None:
    group = file["layers"]
    for index in range(30000):
        group.create_group(f"dense_{index}")


def _deep_groups(file: Any) -> None:
    group = file["layers"]
    for _ in range(3000):
        group = group.create_group("a")


def _many_attributes(file: Any) -> None:
    for index in range(300):
        file["layers"].attrs[f"a{index}"] = "x" * 10000


def _strings(file: Any) -> Any:
    return np.array([b"text"] * 8, "S4").reshape(4, 2)


def _objects(file: Any) -> None:
    file.create_dataset(_KERNEL, data=np.array(["a"] * 8, object).reshape(4, 2),
                        dtype=h5py.string_dtype())  # fmt: skip


def _references(file: Any) -> None:
    dataset = file.create_dataset(_KERNEL, (4, 2), h5py.ref_dtype)
    dataset[0, 0] = file["layers"].ref


def _region(file: Any) -> None:
    file.create_dataset(_KERNEL, (4, 2), h5py.regionref_dtype)


def _compound(file: Any) -> Any:
    return np.zeros((4, 2), [("real", "f4"), ("more", "S5")])


def _vlen(file: Any) -> None:
    file.create_dataset(_KERNEL, (4, 2), h5py.vlen_dtype(np.float32))


def _opaque(file: Any) -> Any:
    return np.zeros((4, 2), "V16")


def _named_type(file: Any) -> Any:
    return np.dtype("f4")


def _plugin_filter(file: Any) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4, 2))
    # An optional filter that is not there is passed over at creation and asked for on reading.
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple((4, 2))
    h5py.h5d.create(file["layers/dense/vars"].id, b"0", h5py.h5t.IEEE_F32LE, space, plist)


def _bomb(file: Any) -> None:
    file.create_dataset(
        _KERNEL, (1 << 28,), "f4", chunks=(1 << 24,), compression="gzip", fillvalue=0
    )


def _packed_bomb(file: Any) -> None:
    dataset = file.create_dataset(
        "layers/dense/vars/2", (1 << 26,), "i1", chunks=(1 << 22,), compression="gzip"
    )
    dataset[...] = 0


def _other_link(file: Any) -> None:
    file[_KERNEL] = h5py.ExternalLink("../other.h5", "/x")


def _folder_link(file: Any) -> None:
    del file["layers/dense"]
    file["layers/dense"] = h5py.ExternalLink("../other.h5", "/dense")


def _dangling(file: Any) -> None:
    file[_KERNEL] = h5py.SoftLink("/nowhere")


def _aside(file: Any) -> None:
    file["aside"] = file[_KERNEL][...]
    del file[_KERNEL]
    file[_KERNEL] = h5py.SoftLink("/aside")


for _name, _says, _what, _edit in (
    (
        "external-storage",
        "external|outside",
        "A kernel whose bytes are those of /etc/passwd.",
        _replaced(_external),
    ),
    (
        "external-storage-relative",
        "external|outside",
        "The same by a relative name, without end.",
        _replaced(_external_relative),
    ),
    ("virtual", "virtual|outside", "A kernel that is a view of another file.", _replaced(_virtual)),
    (
        "virtual-fan-in",
        "virtual|outside",
        "A view of two hundred other files.",
        _replaced(_virtual_fan_in),
    ),
    (
        "external-link",
        "link",
        "A kernel that is a link to another file.",
        _replaced(_other_link),
    ),
    ("external-link-to-group", "link", "A layer that is a link to another file.", _folder_link),
    ("dangling-link", "link", "A kernel that is a link to nowhere.", _replaced(_dangling)),
    ("soft-link", "link", "A kernel that is a link within the file.", _aside),
    ("cycle", "cycle|link|twice|loop", "A group that holds itself.", _cycle),
    ("soft-cycle", "link|cycle", "A link to itself.", _soft_cycle),
    (
        "many-groups",
        "groups|objects|too many|more than",
        "Thirty thousand groups, which takes two seconds.",
        _many_groups,
    ),
    ("deep-groups", "deep|nested", "Groups nested 3,000 deep.", _deep_groups),
    (
        "many-attributes",
        "attribute|unexpected|objects|large",
        "Three megabytes of attributes.",
        _many_attributes,
    ),
    ("huge-shape", "bytes|large|size|shape", "A kernel of 2**60 numbers.", _huge((1 << 60,))),
    (
        "huge-chunked",
        "bytes|large|size|shape",
        "A chunked kernel of 10**15 numbers, none of them written.",
        _huge((10**6, 10**9), chunks=(1, 10)),
    ),
    (
        "overflowing-shape",
        "bytes|large|size|shape|damaged",
        "A shape whose product wraps around 64 bits.",
        _huge((1 << 32, 1 << 28), chunks=(1, 1)),
    ),
    ("gigabyte-of-fill", "shape|bytes|size", "A kernel of 1 GB of fill values.", _replaced(_bomb)),
    (
        "packed-bomb",
        "unexpected|surplus|bytes|compress|expand",
        "A surplus tensor of 64 MB, packed to 64 kB.",
        _packed_bomb,
    ),
    ("strings", "dtype|string|numbers", "Text where numbers are expected.", _replaced(_strings)),
    ("long-strings", "dtype|string|object|numbers", "Text of any length.", _replaced(_objects)),
    ("references", "dtype|reference|numbers|object", "Object references.", _replaced(_references)),
    ("regions", "dtype|reference|numbers|object", "Region references.", _replaced(_region)),
    ("compound", "dtype|compound|numbers", "Records in place of numbers.", _replaced(_compound)),
    ("ragged", "dtype|object|numbers|variable", "Lists in place of numbers.", _replaced(_vlen)),
    ("opaque", "dtype|numbers|opaque", "Opaque bytes in place of numbers.", _replaced(_opaque)),
    (
        "named-type",
        "missing|type|dataset|lacks",
        "A type in place of a tensor.",
        _replaced(_named_type),
    ),
    (
        "group-as-tensor",
        "missing|lacks",
        "A group in place of a tensor.",
        _replaced(lambda file: file.create_group(_KERNEL) and None),
    ),
    (
        "filter-plugin",
        "filter|cannot|damaged",
        "A filter that libhdf5 would load a library for.",
        _replaced(_plugin_filter),
    ),
    ("missing", "missing|lacks", "The kernel is not there.", _replaced(lambda file: None)),
    (
        "surplus",
        "unexpected|surplus",
        "A tensor that no layer has.",
        lambda file: file.create_dataset("layers/dense/vars/2", data=np.ones(3, "f4")) and None,
    ),
    (
        "other-shape",
        "shape",
        "The kernel has another shape.",
        _replaced(lambda file: np.ones((2, 4), "f4")),
    ),
    (
        "complex",
        "dtype",
        "Complex numbers where real ones are expected.",
        _replaced(lambda file: np.ones((4, 2), "c8")),
    ),
    (
        "nan",
        "finite|NaN",
        "The kernel is NaN.",
        _replaced(lambda file: np.full((4, 2), np.nan, "f4")),
    ),
    (
        "infinite",
        "finite|inf",
        "The kernel is infinite.",
        _replaced(lambda file: np.full((4, 2), np.inf, "f4")),
    ),
):
    _edited(_name, _says, _what, _edit)


@functools.cache
def _whole() -> bytes:
    return weights(tensors(**{"layers/dense/vars/2": np.ones(1000, "f4")}))


def _damaged(name: str, what: str, change: Callable[[bytearray], Any]) -> None:
    def make(folder: Path) -> Path:
        data = bytearray(_whole())
        changed = change(data)
        return archive(folder, data=bytes(data if changed is None else changed))

    hostile(
        "hdf5",
        _DAMAGED + "|unexpected|libhdf5",
        weights=True,
        inspected=name not in _AT_LOAD,
        name=name,
        what=what,
    )(make)


def _put(data: bytearray, place: int, value: bytes) -> None:
    data[place : place + len(value)] = value


def _signature(data: bytearray, mark: bytes, offset: int, value: bytes) -> None:
    place = bytes(data).find(mark)
    assert place >= 0, mark
    data[place + offset : place + offset + len(value)] = value


_FAR = b"\xfe\xff\xff\xff\xff\xff\xff\x7f"
for _name, _what, _change in (
    ("truncated", "The first half of a weights file.", lambda d: d[: len(d) // 2]),
    ("superblock-version", "A superblock of version 255.", lambda d: d.__setitem__(8, 255)),
    ("superblock-offsets", "Offsets of 255 bytes.", lambda d: d.__setitem__(13, 255)),
    ("superblock-root", "A root group behind the end.",
     lambda d: _put(d, 64, _FAR)),
    ("end-of-file", "An end far behind the file's.", lambda d: d.__setitem__(slice(40, 48), _FAR)),
    ("heap-size", "A heap of 2**63 bytes.",
     lambda d: _signature(d, b"HEAP", 8, _FAR)),
    ("heap-free-list", "A free list that leaves the heap.",
     lambda d: _signature(d, b"HEAP", 16, _FAR)),
    ("heap-address", "A heap elsewhere.",
     lambda d: _signature(d, b"HEAP", 24, _FAR)),
    ("tree-level", "A B-tree of 255 levels.",
     lambda d: _signature(d, b"TREE", 5, b"\xff")),
    ("tree-entries", "A B-tree node of 65,535 entries.",
     lambda d: _signature(d, b"TREE", 6, b"\xff\xff")),
    ("tree-sibling", "A B-tree node that is its own sibling.",
     lambda d: _signature(d, b"TREE", 8, bytes(d).find(b"TREE").to_bytes(8, "little") * 2)),
    ("symbols", "A symbol table of 65,535 entries.",
     lambda d: _signature(d, b"SNOD", 6, b"\xff\xff")),
    ("symbol-address", "A symbol's header elsewhere.",
     lambda d: _signature(d, b"SNOD", 16, _FAR)),
    ("zeros-inside", "A page of zeros amid the structure.",
     lambda d: d.__setitem__(slice(512, 1536), bytes(1024))),
    ("ones-inside", "A page of ones amid the structure.",
     lambda d: d.__setitem__(slice(800, 1200), b"\xff" * 400)),
):  # fmt: skip
    _damaged(_name, _what, _change)


def _h5(name: str, says: str, what: str, data: Callable[[], bytes]) -> None:
    loads = name in _HARMLESS
    hostile("hdf5", says, name=name, what=what, weights=True, inspected=False, loads=loads)(
        lambda folder: written(folder / "model.h5", data())
    )


def _kernel_elsewhere(file: Any) -> None:
    del file["model_weights/dense/net/dense/kernel"]
    file["model_weights/dense/net/dense/kernel"] = h5py.ExternalLink("../other.h5", "/x")


def _names_elsewhere(file: Any) -> None:
    file["model_weights/dense"].attrs["weight_names"] = ["../../../x", "net/dense/bias"]


def _many_names(file: Any) -> None:
    for index in range(400):
        file["model_weights"].attrs[f"layer_names{index}"] = "x" * 50000


for _name, _says, _what, _data in (
    ("h5-truncated", "truncated|damaged", "The first half of an `.h5` model.",
     lambda: h5_model()[:4000]),
    ("h5-external-link", "link", "An `.h5` model whose kernel is a link to another file.",
     lambda: h5_model(edit=_kernel_elsewhere)),
    ("h5-names-elsewhere", _DAMAGED + "|weights|names", "Names of weights that climb.",
     lambda: h5_model(edit=_names_elsewhere)),
    ("h5-many-names", _DAMAGED + "|attributes|names|large", "20 MB of names in attributes.",
     lambda: h5_model(edit=_many_names)),
):  # fmt: skip
    _h5(_name, _says, _what, _data)

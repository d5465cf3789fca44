"""Find the tensors in the HDF5 structure of a file written by this package.

Stock Keras finds a tensor through HDF5, this package through the record. If the two named different
bytes, one file would be two models, and no digest would show it. So both are compared before a
tensor is returned. With libhdf5 this would need a child process, which takes longer than most
loads. But the skeleton of a file written by this package consists of few kinds of blocks: a
superblock, symbol tables, and datasets whose data is in one piece. This module reads exactly these.
Anything else raises `UnfamiliarError`, which does not mean damage: the caller then uses libhdf5 in
the child process.

All reads together are limited by the size of the skeleton, and all paths by those in the record, so
a malicious file costs no more time and memory than an ordinary one of its size.

Source: the HDF5 File Format Specification, version 1.1 of the superblock's structures: II.A,
III.A.1 (B-trees), III.B (symbol table nodes), III.C (symbol table entries), III.D (local heaps),
III.E (global heaps), IV.A (object headers, version 1).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from keras_ckpt_tools.metadata import TensorInfo

# What h5py writes: addresses and lengths of 8 bytes, and nodes of this many entries.
_SUPERBLOCK = b"\x89HDF\r\n\x1a\n" + bytes((0, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0))
_SUPERBLOCK_REST = struct.Struct("<4Q")
_ROOT = struct.Struct("<QI4xQQ")
_ENTRY = struct.Struct("<QQI20x")
_STAB = struct.Struct("<QQ")
_TREE = struct.Struct("<4sBBH16x")
_TREE_ENTRIES, _TREE_SIZE = 32, 24 + 8 * 65
_NODE = struct.Struct("<4sBxH")
_NODE_ENTRIES, _NODE_SIZE = 8, 8 + 8 * 40
_HEAP = struct.Struct("<4s4xQ8xQ")
_GLOBAL_HEAP = struct.Struct("<4s4xQ")
_GLOBAL_OBJECT = struct.Struct("<HHxxxxQ")
_HEADER = struct.Struct("<BxxxxxxxI4x")
# The header of a group without attributes: one message, 24 bytes, the addresses of its table.
_ONLY_TABLE = bytes((1, 0, 24, 0, 0, 0, 17, 0, 16, 0, 0, 0, 0, 0))
_COUNT = struct.Struct("<xxH")
_MESSAGE = struct.Struct("<HHBxxx")
_ATTRIBUTE = struct.Struct("<BxHHH")
_VLEN = struct.Struct("<IQI")
_LAYOUT = struct.Struct("<BBQQ")
_NOWHERE = (1 << 64) - 1
_MOST_AXES = 32
_MOST_LEVELS = 128
_MOST_TREE_LEVELS = 8

(_NIL, _DATASPACE, _DATATYPE, _FILL, _LAYOUT_MESSAGE, _ATTRIBUTE_MESSAGE, _CONTINUATION, _TABLE,
 _MODIFIED) = 0, 1, 3, 5, 8, 12, 16, 17, 18  # fmt: skip
_OF_DATASETS = {_DATASPACE, _DATATYPE, _FILL, _LAYOUT_MESSAGE, _MODIFIED}

# Messages that describe a type, as h5py makes them, without the zeros at the end.
_SINGLE, _DOUBLE = "11201f000400000000002000170800177f", "11203f000800000000004000340b0034ff03"
_TYPES = {
    "180200000100000010080000010000000000080046414c534500000054525545000000000001": ("bool", 1),
    **{f"1008{'00' * 2}{n:02x}{'00' * 5}{8 * n:02x}": (f"int{8 * n}", n) for n in (1, 2, 4, 8)},
    **{f"1000{'00' * 2}{n:02x}{'00' * 5}{8 * n:02x}": (f"uint{8 * n}", n) for n in (1, 2, 4, 8)},
    "11200f0002000000000010000a05000a0f": ("float16", 2),
    _SINGLE: ("float32", 4),
    _DOUBLE: ("float64", 8),
}
for _part, _name, _size in ((_SINGLE, "complex64", 8), (_DOUBLE, "complex128", 16)):
    _real = "72".ljust(80, "0") + _part.ljust(40, "0")
    _imaginary = "69".ljust(16, "0") + f"{_size // 2:02x}".ljust(64, "0") + _part
    _TYPES[f"16020000{_size:02x}000000{_real}{_imaginary}"] = (_name, _size)
_BY_MESSAGE = {bytes.fromhex(text).rstrip(b"\0"): found for text, found in _TYPES.items()}
# Text of varying length in UTF-8, and one value of it: how h5py writes an attribute.
_TEXT = bytes.fromhex("19010100100000001000000001000000" + "00000800")
_ONE = bytes.fromhex("0100000000000000")


class UnfamiliarError(ValueError):
    """The file has something that this package does not write; libhdf5 may understand it."""


FoundTensor = tuple[tuple[int, ...], str, int | None, int]
"""Shape, dtype, offset and bytes of a tensor, as the HDF5 structure has them."""


def differences(
    found: Mapping[str, FoundTensor], infos: Iterable[TensorInfo], packed: bool = False
) -> list[str]:
    """Return how the tensors in the structure differ from those in a record, as sentences.

    Args:
        found: The tensors in the structure, by path.
        infos: The tensors in the record.
        packed: Whether the record may leave out what does not lie in the file in one piece.
    """
    problems = []
    seen = set()
    for info in infos:
        path = info.path
        there = found.get(path)
        if there is None:
            problems.append(
                f"its record names the tensor {path[:100]!r}, but its HDF5 structure does not"
            )
        elif there != (info.shape, info.dtype, info.offset if info.nbytes else None, info.nbytes):
            here = (info.shape, info.dtype, info.offset, info.nbytes)
            problems.append(
                f"its record and its HDF5 structure disagree about {path[:100]!r}: {_said(here)} "
                f"in the record, {_said(there)} in the structure"
            )
        if path in seen:
            problems.append(f"its record names the tensor {path[:100]!r} twice")
        seen.add(path)
    problems += [
        f"its HDF5 structure names the tensor {path[:100]!r}, but its record does not"
        for path, one in found.items()
        if path not in seen and not (packed and one[3] and one[2] is None)
    ]
    return problems


def _said(one: FoundTensor) -> str:
    shape, dtype, offset, _ = one
    return f"{dtype[:40]}{list(shape)} " + ("" if offset is None else f"at byte {offset}")


def tensors_in(
    pieces: Sequence[tuple[int, bytes]], start: int, letters: int
) -> dict[str, FoundTensor]:
    """Return the tensors that the structure of an HDF5 file names, by path.

    Args:
        pieces: `(offset, bytes)` of all that is not the data of a tensor, in order.
        start: Offset of the superblock.
        letters: How long all paths in the record are together.

    Raises:
        UnfamiliarError: the structure has something that this package does not write.
    """
    try:
        return _Walk(pieces, start, letters).run()
    except (struct.error, UnicodeDecodeError, RecursionError) as error:
        raise UnfamiliarError(str(error)) from error


class _Group(NamedTuple):
    tree: int
    heap: int


_Names = list[tuple[bytes, int]]
"""The names in a group and the addresses of the objects, in the order of names."""


class _Walk:
    """One walk through a structure. Addresses count from the superblock.

    A file has thousands of tensors, and each costs a load some microseconds here. So an object
    header that differs from an earlier one in nothing but the address of its data is not read a
    second time.
    """

    def __init__(self, pieces: Sequence[tuple[int, bytes]], start: int, letters: int):
        self._starts = [offset - start for offset, _ in pieces]
        self._data = [data for _, data in pieces]
        self._base = start
        # Blocks of a sound file lie apart; those of a crafted one may share bytes, without end.
        self._bytes = 2 * sum(map(len, self._data)) + (1 << 16)
        self._letters = 64 * letters + (1 << 20)
        self._texts: dict[int, dict[int, bytes]] = {}
        self._alike: dict[int, dict[bytes, FoundTensor]] = {}
        self._found: dict[str, FoundTensor] = {}

    def run(self) -> dict[str, FoundTensor]:
        data, at = self._at(0, 96)
        base, _, _, driver = _SUPERBLOCK_REST.unpack_from(data, at + 24)
        if data[at : at + 24] != _SUPERBLOCK or (base, driver) != (self._base, _NOWHERE):
            raise UnfamiliarError("another superblock")
        root, cached, tree, heap = _ROOT.unpack_from(data, at + 64)
        top = self._object(root)
        if cached != 1 or not isinstance(top, _Group) or top != _Group(tree, heap):
            raise UnfamiliarError("another root")
        children = self._children(top)
        # A checkpoint links the groups of `model` at the root too, where stock Keras finds them.
        models: set[tuple[bytes, int]] = set()
        for name, address in children:
            if name == b"model":
                model = self._object(address)
                if isinstance(model, _Group):
                    below = self._children(model)
                    models = {*below}
                    self._take("model/", below, 1)
                else:
                    self._found["model"] = model
        own = [one for one in children if one not in models and one[0] != b"model"]
        self._take("", own, 0)
        return self._found

    def _take(self, prefix: str, children: _Names, level: int) -> None:
        if level > _MOST_LEVELS:
            raise UnfamiliarError("deep groups")
        self._letters -= len(prefix) * len(children)
        if self._letters < 0:
            raise UnfamiliarError("long paths")
        for name, address in children:
            path = prefix + name.decode()
            one = self._object(address)
            if isinstance(one, _Group):
                self._take(f"{path}/", self._children(one), level + 1)
            else:
                self._found[path] = one

    def _at(self, address: int, length: int) -> tuple[bytes, int]:
        """Return the piece with the bytes at an address, and where they are in it."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            raise UnfamiliarError("a block in front of the superblock")
        data, at = self._data[index], address - self._starts[index]
        self._bytes -= length
        if at + length > len(data) or self._bytes < 0:
            raise UnfamiliarError("a block that is cut off or shared")
        return data, at

    def _children(self, group: _Group) -> _Names:
        data, at = self._at(group.heap, _HEAP.size)
        mark, size, where = _HEAP.unpack_from(data, at)
        if mark != b"HEAP":
            raise UnfamiliarError("another heap")
        data, at = self._at(where, size)
        return self._tree(group.tree, data[at : at + size], None)

    def _name(self, heap: bytes, offset: int) -> bytes:
        end = heap.find(b"\0", offset)
        if end < 0:
            raise UnfamiliarError("a name without an end")
        self._bytes -= end - offset  # Names may share bytes, too.
        if self._bytes < 0:
            raise UnfamiliarError("names that are shared")
        return heap[offset:end]

    def _tree(self, address: int, heap: bytes, level: int | None) -> _Names:
        """Return all below a node of a B-tree.

        libhdf5 finds a name only where the keys lead to it, so these have to be in order as well.
        """
        data, at = self._at(address, _TREE_SIZE)
        mark, kind, depth, used = _TREE.unpack_from(data, at)
        wrong = depth > _MOST_TREE_LEVELS if level is None else depth != level
        if mark != b"TREE" or kind or used > _TREE_ENTRIES or wrong:
            raise UnfamiliarError("another B-tree")
        numbers = struct.unpack_from(f"<{2 * used + 1}Q", data, at + _TREE.size)
        key = self._name(heap, numbers[0])
        names: _Names = []
        for index in range(1, 2 * used, 2):
            child = numbers[index]
            below = self._tree(child, heap, depth - 1) if depth else self._node(child, heap)
            following = self._name(heap, numbers[index + 1])
            if not below or key >= below[0][0] or below[-1][0] > following:
                raise UnfamiliarError("names that are not in order")
            names += below
            key = following
        return names

    def _node(self, address: int, heap: bytes) -> _Names:
        data, at = self._at(address, _NODE_SIZE)
        mark, version, used = _NODE.unpack_from(data, at)
        if mark != b"SNOD" or version != 1 or used > _NODE_ENTRIES:
            raise UnfamiliarError("another node of symbols")
        names: _Names = []
        last = b""
        for offset, header, cached in _ENTRY.iter_unpack(data[at + 8 : at + 8 + used * 40]):
            name = self._name(heap, offset)
            if cached > 1 or name <= last or b"/" in name:
                raise UnfamiliarError("a link, or names that are not in order")
            names.append((name, header))
            last = name
        return names

    def _object(self, address: int) -> _Group | FoundTensor:
        data, at = self._at(address, _HEADER.size)
        version, size = _HEADER.unpack_from(data, at)
        end = at + _HEADER.size + size
        self._bytes -= size
        if version != 1 or end > len(data) or self._bytes < 0:
            raise UnfamiliarError("another object header")
        raw = data[at:end]
        if raw[2:4] + raw[8:12] + raw[16:24] == _ONLY_TABLE:
            return _Group(*_STAB.unpack_from(raw, 24))
        for place, alike in self._alike.items():
            known = alike.get(raw[:place] + raw[place + 8 :])
            if known is not None:
                shape, dtype, _, nbytes = known
                address = int.from_bytes(raw[place : place + 8], "little")
                return shape, dtype, self._base + address, nbytes
        return self._read_object(raw)

    def _read_object(self, raw: bytes) -> _Group | FoundTensor:
        (count,) = _COUNT.unpack_from(raw)
        said: dict[int, bytes] = {}
        places: dict[int, int] = {}
        noted: str | None = None
        chunks = [(raw, _HEADER.size, len(raw))]
        plain = True
        for data, begin, end in chunks:
            at = begin
            while at < end:
                kind, size, flags = _MESSAGE.unpack_from(data, at)
                at += _MESSAGE.size
                count -= 1
                if at + size > end or flags > 1:
                    raise UnfamiliarError("a message of another kind")
                body = data[at : at + size]
                if kind == _CONTINUATION:
                    where, length = _STAB.unpack_from(body)
                    further, first = self._at(where, length)
                    chunks.append((further, first, first + length))
                    plain = False
                elif kind == _ATTRIBUTE_MESSAGE:
                    text = self._attribute(body)
                    if text is not None and noted is not None:
                        raise UnfamiliarError("two dtypes")
                    noted, plain = noted if text is None else text, False
                elif kind != _NIL:
                    if kind in said:
                        raise UnfamiliarError("a message that is there twice")
                    said[kind], places[kind] = body, at
                at += size
        if count:
            raise UnfamiliarError("messages that are missing")
        if said.keys() == {_TABLE}:
            return _Group(*_STAB.unpack_from(said[_TABLE]))
        if not {_DATASPACE, _DATATYPE, _LAYOUT_MESSAGE} <= said.keys() <= _OF_DATASETS:
            raise UnfamiliarError("an object of another kind")
        shape, dtype, address, nbytes = _dataset(said, noted)
        found = shape, dtype, self._base + address if nbytes else None, nbytes
        if plain and nbytes:
            place = places[_LAYOUT_MESSAGE] + 2
            self._alike.setdefault(place, {})[raw[:place] + raw[place + 8 :]] = found
        return found

    def _attribute(self, data: bytes) -> str | None:
        """Return the text of the attribute `dtype`; `None` for any other."""
        version, name, kind, space = _ATTRIBUTE.unpack_from(data)
        if version != 1 or not name:
            raise UnfamiliarError("another attribute")
        at = _ATTRIBUTE.size
        if data[at : at + name].rstrip(b"\0") != b"dtype":
            return None
        at += -(-name // 8) * 8
        found = data[at : at + kind]
        at += -(-kind // 8) * 8
        if found != _TEXT[: len(found)] or data[at : at + space] != _ONE:
            raise UnfamiliarError("a dtype that is no text")
        at += -(-space // 8) * 8
        length, where, index = _VLEN.unpack_from(data, at)
        text = self._collection(where).get(index, b"")
        if len(text) < length or not length:
            raise UnfamiliarError("a text that is not there")
        return text[:length].decode()

    def _collection(self, address: int) -> dict[int, bytes]:
        """Return the texts in a part of the global heap, by number."""
        if address in self._texts:
            return self._texts[address]
        data, at = self._at(address, _GLOBAL_HEAP.size)
        mark, size = _GLOBAL_HEAP.unpack_from(data, at)
        if mark != b"GCOL":
            raise UnfamiliarError("another global heap")
        data, at = self._at(address, size)
        end = at + size
        at += _GLOBAL_HEAP.size
        texts: dict[int, bytes] = {}
        while at + _GLOBAL_OBJECT.size <= end:
            index, _, length = _GLOBAL_OBJECT.unpack_from(data, at)
            at += _GLOBAL_OBJECT.size
            if not index:
                break
            if at + length > end or index in texts:
                raise UnfamiliarError("a text that is cut off")
            texts[index] = data[at : at + length]
            at += -(-length // 8) * 8
        self._texts[address] = texts
        return texts


def _dataset(said: Mapping[int, bytes], noted: str | None) -> tuple[tuple[int, ...], str, int, int]:
    shape = _shape(said[_DATASPACE])
    dtype, itemsize = _type(said[_DATATYPE])
    if not dtype and noted is None:
        raise UnfamiliarError("bytes without a dtype")
    version, kind, address, stored = _LAYOUT.unpack_from(said[_LAYOUT_MESSAGE])
    nbytes = itemsize
    for axis in shape:
        nbytes *= axis
    if (version, kind) != (3, 1) or stored != nbytes or (address == _NOWHERE) != (not nbytes):
        raise UnfamiliarError("data in another layout")
    return shape, noted or dtype, address, nbytes


def _shape(message: bytes) -> tuple[int, ...]:
    version, rank, flags = struct.unpack_from("<BBB", message)
    if version != 1 or rank > _MOST_AXES or flags > 1:
        raise UnfamiliarError("another dataspace")
    return struct.unpack_from(f"<{rank}Q", message, 8)


def _type(message: bytes) -> tuple[str, int]:
    """Return name and bytes of an element's type; an empty name for bytes without a meaning."""
    found = _BY_MESSAGE.get(message.rstrip(b"\0"))
    if found is not None:
        return found
    (size,) = struct.unpack_from("<I", message, 4)
    if message[:4] == b"\x13\x01\0\0" and not any(message[8:]):
        return f"|S{size}", size
    if message[:4] == b"\x15\0\0\0" and not any(message[8:]):
        return "", size
    raise UnfamiliarError("a type that is not written here")

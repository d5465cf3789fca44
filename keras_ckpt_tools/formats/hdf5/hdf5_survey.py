"""Scan an HDF5 file: its structure, and every byte once.

Runs in the child process (`hdf5_child.py`), under its limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_ckpt_tools.formats.hdf5.window import Window

# Those that come with HDF5 or h5py. Any other would be code that is loaded because a file says so.
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}
_SLAB = 4 << 20
_LISTED = 20
# No filter that may be used packs tighter than deflate, with a thousand bytes in one.
_TIGHTEST = 1100
_MOST_CHUNKS = 2_000_000
# What all datasets may declare that were never written, and so take no bytes in the file.
_UNWRITTEN = 64 << 20
# A file of this package names the groups of its model twice.
_MOST_NAMES = 2


class Over(Exception):
    """A limit: its name, what is needed, what is allowed."""


class _Holder:
    """What h5py's reader of attributes asks for."""

    def __init__(self, obj: Any):
        self.id = obj


class Survey:
    """Goes through a file once."""

    def __init__(self, file: Any, part: Window, limits: dict[str, int]):
        import h5py
        import numpy

        self._h5, self._np = h5py, numpy
        self._file, self._part, self._limits = file, part, limits
        self._objects = self._attribute_bytes = self._bytes = 0
        self._tensors: list[list[Any]] = []
        self._refused: list[str] = []
        self._not_finite: list[str] = []
        self._vars: set[str] = set()
        self._names: dict[str, str] = {}
        self._visits: dict[int, int] = {}
        self._letters = self._stored = 0

    def run(self) -> dict[str, Any]:
        root = self._file.id
        group = self._h5.h5g.open(root, b"/")
        attributes = self._attributes(group, "/", keep=True)
        members = self._group(group, "", 0, ())
        return {
            "attributes": attributes,
            "members": members,
            "with_vars": sorted(self._vars),
            "names": self._names,
            "tensors": self._tensors,
            "refused": self._refused,
            "not_finite": self._not_finite,
        }

    def _count(self, number: int = 1) -> None:
        self._objects += number
        self._hold("objects", "it has", self._objects)

    def _hold(self, limit: str, what: str, needed: int) -> None:
        if needed > self._limits[limit]:
            raise Over(limit, what, int(needed), self._limits[limit])

    def _refuse(self, path: str, what: str) -> None:
        if len(self._refused) < _LISTED:
            self._refused.append(f"{path} is {what}")

    def _group(self, group: Any, prefix: str, level: int, above: tuple[int, ...]) -> list[str]:
        h5 = self._h5
        self._hold("levels", "its groups have", level)
        self._count(group.get_num_objs())
        names: list[str] = []
        for raw in list(group):
            name = raw.decode("utf-8", "backslashreplace")
            path = f"{prefix}{name}"
            self._letters += len(path)
            if self._letters > (1 << 20) + 16 * self._part.length:
                raise ValueError("its paths are longer together than any model's")
            names.append(name)
            if name == "vars":
                self._vars.add(prefix.rstrip("/"))
            link = group.links.get_info(raw).type
            if link != h5.h5l.TYPE_HARD:
                kinds = {h5.h5l.TYPE_SOFT: "a soft link", h5.h5l.TYPE_EXTERNAL: "an external link"}
                self._refuse(path, kinds.get(link, "a link of a user-defined kind"))
                continue
            info = h5.h5o.get_info(group, raw)
            visits = self._visits[info.addr] = self._visits.get(info.addr, 0) + 1
            if visits > _MOST_NAMES:
                # Each would be gone through again, and all below it.
                self._refuse(path, "an object with more than two names")
                continue
            if info.type == h5.h5o.TYPE_GROUP:
                inner = h5.h5g.open(group, raw)
                if info.addr in above:
                    self._refuse(path, "a group that contains itself")
                    continue
                called = self._attributes(inner, path).get("name")
                if name == "vars" and isinstance(called, str):
                    self._names[prefix.rstrip("/")] = called
                self._group(inner, f"{path}/", level + 1, (*above, info.addr))
            elif info.type == h5.h5o.TYPE_DATASET:
                self._dataset(h5.h5d.open(group, raw), path, visits > 1)
            else:
                self._refuse(path, "a named datatype")
        return names

    def _attributes(self, obj: Any, path: str, *, keep: bool = False) -> dict[str, Any]:
        h5 = self._h5
        kept: dict[str, Any] = {}
        number = h5.h5a.get_num_attrs(obj)
        self._count(number)
        for index in range(number):
            attribute = h5.h5a.open(obj, index=index)
            name = attribute.name.decode("utf-8", "backslashreplace")
            bad = self._bad_type(attribute.get_type())
            if bad:
                self._refuse(f"{path}@{name}", f"an attribute with {bad}")
                continue
            size = attribute.get_type().get_size() * math.prod(attribute.shape)
            self._attribute_bytes += size
            self._hold("attribute_bytes", "its attributes take", self._attribute_bytes)
            value = h5.AttributeManager(_Holder(obj))[attribute.name] if size else ""
            self._attribute_bytes += _length_of_strings(value)
            self._hold("attribute_bytes", "its attributes take", self._attribute_bytes)
            if keep or name in ("dtype", "name"):
                kept[name] = _as_text(value)
        return kept

    def _bad_type(self, kind: Any) -> str | None:
        h5t = self._h5.h5t
        if kind.committed():
            return "a named datatype"
        found = kind.get_class()
        if found in (h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.BITFIELD, h5t.OPAQUE):
            return None
        if found == h5t.ENUM:
            return None if kind.dtype == bool else "an enumeration"
        if found == h5t.COMPOUND:
            return None if kind.get_nmembers() == 2 and kind.dtype.kind == "c" else "a compound"
        return {
            h5t.REFERENCE: "references to objects",
            h5t.VLEN: "data of variable length",
            h5t.ARRAY: "arrays for elements",
        }.get(found, "a type that Keras never writes")

    def _dataset(self, dataset: Any, path: str, again: bool) -> None:
        h5 = self._h5
        creation = dataset.get_create_plist()
        layout, kind = creation.get_layout(), dataset.get_type()
        bad = self._bad_type(kind)
        filters = [creation.get_filter(i) for i in range(creation.get_nfilters())]
        foreign = [str(f[0]) for f in filters if f[0] not in _FILTERS]
        if layout == h5.h5d.VIRTUAL:
            bad = "parts of other files (a virtual dataset)"
        elif creation.get_external_count():
            bad = "its data in another file"
        elif foreign:
            bad = f"data packed by a filter that HDF5 would load as a plug-in ({foreign[0]})"
        if bad:
            self._refuse(path, f"a dataset with {bad}")
            return
        noted = self._attributes(dataset, path).get("dtype")
        null = dataset.get_space().get_simple_extent_type() == h5.h5s.NULL
        shape = () if null else tuple(int(n) for n in dataset.shape)
        dtype = kind.dtype
        size = 0 if null else math.prod(shape) * kind.get_size()
        self._bytes += size
        self._hold("max_bytes", "its tensors take", self._bytes)
        stored = dataset.get_storage_size()
        self._stored += 0 if again else stored
        if self._stored > self._part.length:
            raise ValueError("its datasets share their bytes")
        if self._bytes > _TIGHTEST * 2 * self._stored + _UNWRITTEN:
            raise ValueError(f"it declares {self._bytes:,} bytes and has {self._stored:,}")
        if size > 1 << 20 and size > _TIGHTEST * max(stored, 1):
            raise ValueError(f"{path} declares {size:,} bytes and has {stored:,}")
        offset = dataset.get_offset() if layout == h5.h5d.CONTIGUOUS and size else None
        direct = offset is not None and dtype.kind in "iufcSV" and _is_plain(h5, kind, dtype)
        if offset is not None and offset + size > self._part.length:
            raise ValueError(f"{path} ends after the end of the file")
        name = noted if isinstance(noted, str) and noted else dtype.name
        self._tensors.append([path, shape, name, offset, size, dtype.str if direct else None])
        if again:
            return
        finite = True
        for array in self._pieces(dataset, shape, dtype, layout, size, offset if direct else None):
            self._bytes += _length_of_strings(array)
            self._hold("max_bytes", "its tensors take", self._bytes)
            finite = finite and _is_finite(self._np, array, name)
        if not finite:
            self._not_finite.append(path)

    def _pieces(
        self, dataset: Any, shape: Any, dtype: Any, layout: int, size: int, offset: int | None
    ) -> Iterator[Any]:
        """Yield all data, a few megabytes at a time."""
        np, h5 = self._np, self._h5
        if size == 0:
            return
        if offset is not None:
            step = _SLAB // dtype.itemsize * dtype.itemsize or dtype.itemsize
            for start in range(0, size, step):
                data = self._part.read_at(offset + start, min(step, size - start))
                yield np.frombuffer(data, dtype)
            return
        high = h5.Dataset(dataset)
        if layout == h5.h5d.CHUNKED:
            chunk = dataset.get_create_plist().get_chunk()
            self._hold(
                "chunk_bytes", "a piece of its data takes", math.prod(chunk) * dtype.itemsize
            )
            pieces = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
            if pieces > _MOST_CHUNKS:
                raise ValueError(f"a dataset is in {pieces:,} pieces")
            for place in high.iter_chunks():
                yield high[place]
            return
        if not shape or size <= _SLAB:
            yield high[()]
            return
        for place in _slabs(shape, dtype.itemsize):
            yield high[place]


def _slabs(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[Any, ...]]:
    row = math.prod(shape[1:]) * itemsize
    if row > _SLAB and len(shape) > 1:
        for index in range(shape[0]):
            for inner in _slabs(shape[1:], itemsize):
                yield (index, *inner)
        return
    step = max(_SLAB // max(row, 1), 1)
    for start in range(0, shape[0], step):
        yield (slice(start, start + step),)


def _is_plain(h5: Any, kind: Any, dtype: Any) -> bool:
    """Return whether the bytes in the file are those that NumPy would have."""
    return bool(h5.h5t.py_create(dtype).equal(kind)) or dtype.kind == "V"


def _is_finite(np: Any, array: Any, name: str) -> bool:
    if array.dtype.kind in "fc":
        with np.errstate(all="ignore"):
            # A sum of finite numbers can overflow; one of others is never finite.
            return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())
    if name == "bfloat16" and array.dtype.itemsize == 2 and array.dtype.kind == "V":
        exponent = np.frombuffer(array.tobytes(), "<u2") & 0x7F80
        return not bool((exponent == 0x7F80).any())
    return True


def _length_of_strings(value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    if getattr(getattr(value, "dtype", None), "kind", "") == "O":
        return sum(len(item) for item in value.flat if isinstance(item, (str, bytes)))
    return 0


def _as_text(value: Any) -> Any:
    """Return an attribute as text; what is no text only as the fact that it is there."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    item = getattr(value, "item", None)
    if getattr(value, "shape", None) == () and item is not None:
        return _as_text(item()) if isinstance(item(), (str, bytes)) else None
    return None

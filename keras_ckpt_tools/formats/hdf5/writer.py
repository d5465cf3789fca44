"""Write an HDF5 file with a record in front.

The bytes are written once, from first to last: record, skeleton and buffers, with their digests
computed in the same pass. This works for a staging file and for a member of a zip, and needs no
memory beyond the snapshot. The file is a plain Keras file; see `layout` for why libhdf5 is not
called.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash

from keras_ckpt_tools.formats.common.contents import Snapshot
from keras_ckpt_tools.formats.common.dtypes import (
    dtype_name,
    hdf5_dtype,
    in_native_order,
    is_of_numpy,
    numpy_dtype,
    raw_bytes,
)
from keras_ckpt_tools.formats.common.finite import NAN, spoiled, worst_in
from keras_ckpt_tools.formats.hdf5.layout import Dataset, Layout, Structure, lay_out
from keras_ckpt_tools.formats.record.tensor_table import Rows, TensorTable
from keras_ckpt_tools.formats.record.userblock import block_size, digest_of, encode, encode_json
from keras_ckpt_tools.metadata import OptimizerState, Record, TensorInfo
from keras_ckpt_tools.showing.byte_counts import counted
from keras_ckpt_tools.storage.throttle import PIECE, rest

Write = Callable[[Any], Any]
Array = np.ndarray[Any, Any]

# Stands in for numbers that are known only after the layout: no file is longer than this.
_LONGEST = 10**15
# Pieces below the first size are joined up to the second.
_SMALL = 64 << 10
_JOINED = 1 << 20
_KEPT_PLANS = 8


def write_weights(
    write: Write, snapshot: Snapshot, record: Record, directory: str | None = None
) -> Record:
    """Write a snapshot and its record as one HDF5 file.

    Args:
        write: Takes the next bytes of the file.
        snapshot: The tensors.
        record: What else the file says about itself; the tables of bytes are filled in here.
        directory: Where the layout may put an empty file for a moment.

    Returns:
        The record as it stands in the file.
    """
    arrays = {path: _storable(array) for path, array in snapshot.arrays.items()}
    record = dataclasses.replace(
        record,
        names=snapshot.called,
        optimizers=optimizers_in(snapshot, record),
        tensors=(),
        skeleton_digest=digest_of(),
        size=_LONGEST,
    )
    buffers = [_buffer(array) for array in arrays.values()]
    digests, worst = [], {}
    for (path, array), buffer in zip(arrays.items(), buffers, strict=True):
        digest, found = _looked_at(buffer, array)
        digests.append(digest)
        if found:
            worst[path] = found
    record = dataclasses.replace(record, not_finite=spoiled(worst, record))
    plan = _plan(_Outline.of(arrays, snapshot), len(encode_json(record)), directory)
    record = dataclasses.replace(
        record,
        tensors=TensorTable(plan.rows, digests),
        skeleton_digest=plan.skeleton_digest,
        size=plan.layout.size,
    )
    write(encode(record, plan.block))
    write = counted(write)
    for piece in plan.pieces(buffers):
        write(piece)
        rest()
    return record


def optimizers_in(snapshot: Snapshot, record: Record) -> dict[str, OptimizerState]:
    """Return whose state there is; what a tracked optimizer was built on is on record already."""
    return {
        group: OptimizerState(one.class_name) if group in record.tracked else one
        for group, one in snapshot.optimizers.items()
    }


def _storable(array: Array) -> Array:
    """Return strings as bytes of one length: only those lie in one piece in HDF5."""
    if array.dtype.kind in "OU":
        return np.char.encode(array.astype(str), "utf-8")
    return array if array.dtype.isnative else in_native_order(array)


class _Outline(NamedTuple):
    """All that the structure of a file depends on, in a form that is compared fast, at every save.

    Attributes:
        paths: The tensors, in the order of the snapshot.
        shapes: The shape of each.
        dtypes: The type of each.
        names: Names of objects by the path of their group.
        links: Second paths of groups.
    """

    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype[Any], ...]
    names: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, arrays: Mapping[str, Array], snapshot: Snapshot) -> _Outline:
        found = arrays.values()
        shapes, dtypes = tuple(a.shape for a in found), tuple(a.dtype for a in found)
        return cls(tuple(arrays), shapes, dtypes, tuple(snapshot.names.items()), snapshot.links)

    def infos(self, offsets: Mapping[str, int | None]) -> Iterator[TensorInfo]:
        """Yield the entries of the record, without digests."""
        for path, shape, dtype in zip(self.paths, self.shapes, self.dtypes, strict=True):
            nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            yield TensorInfo(path, shape, dtype_name(dtype), offsets.get(path), nbytes)

    def structure(self, block: int) -> Structure:
        """Return what the file is laid out by."""
        return Structure(
            datasets=tuple(
                Dataset(path, shape, hdf5_dtype(dtype), dtype_attributes(dtype_name(dtype)))
                for path, shape, dtype in zip(self.paths, self.shapes, self.dtypes, strict=True)
            ),
            group_attributes=tuple((path, "name", name) for path, name in self.names),
            links=self.links,
            userblock=block,
        )


class _Plan:
    """Where in a file of one structure everything goes, and what is the same in each of them."""

    def __init__(self, outline: _Outline, block: int, directory: str | None):
        self.block = block
        self.layout = lay_out(outline.structure(block), directory)
        self.rows = Rows(tuple(outline.infos(self.layout.offsets)))
        self.skeleton_digest = digest_of(*(chunk for _, chunk in self.layout.skeleton))
        self._runs = list(_runs(self.layout, self.rows.infos))

    def pieces(self, buffers: Sequence[Any]) -> Iterator[Any]:
        """Yield all behind the user block, skeleton and data, in the order of the file."""
        for run in self._runs:
            if isinstance(run, int):
                yield from _pieces_of(buffers[run])
            else:
                yield b"".join([buffers[i] if isinstance(i, int) else i for i in run])


def _runs(layout: Layout, infos: Sequence[TensorInfo]) -> Iterator[int | list[int | bytes]]:
    """Yield what is written at once: a tensor by its number, or small neighbours.

    Each write goes through several hands.
    """
    places: list[tuple[int, int, int | bytes]] = [
        (offset, len(chunk), chunk) for offset, chunk in layout.skeleton
    ]
    places += [
        (info.offset, info.nbytes, number)
        for number, info in enumerate(infos)
        if info.offset is not None
    ]
    run: list[int | bytes] = []
    size = 0
    for _, nbytes, place in sorted(places, key=lambda one: one[0]):
        alone = nbytes >= _SMALL and isinstance(place, int)
        if run and (alone or size >= _JOINED):
            yield run
            run, size = [], 0
        if isinstance(place, int) and alone:
            yield place
        else:
            run.append(place)
            size += nbytes
    if run:
        yield run


def _pieces_of(buffer: Any) -> Iterator[memoryview]:
    view = raw_bytes(np.asarray(buffer))
    return (view[start : start + PIECE] for start in range(0, len(view), PIECE))


def _buffer(array: Array) -> Any:
    """Return what holds the bytes of an array: those of ml_dtypes are no buffers."""
    return np.ascontiguousarray(array) if is_of_numpy(array.dtype) else raw_bytes(array)


def _looked_at(buffer: Any, array: Array) -> tuple[str, str]:
    """Return the digest of a tensor, and whether it has NaN or infinity; see `worst_in`.

    Piece by piece, so that the second look finds the bytes where the first has left them.
    """
    if buffer.nbytes < PIECE:
        return str(xxhash.xxh3_128_hexdigest(buffer)), worst_in(array)
    state = xxhash.xxh3_128()
    typed = (buffer if is_of_numpy(array.dtype) else array).reshape(-1)
    count = PIECE // array.dtype.itemsize
    found = ""
    for number, piece in enumerate(_pieces_of(buffer)):
        state.update(piece)
        if found != NAN:
            found = worst_in(typed[number * count : (number + 1) * count]) or found
        rest()
    return state.hexdigest(), found


class _Kept(NamedTuple):
    room: int
    by_block: dict[int, _Plan]


_plans: OrderedDict[_Outline, _Kept] = OrderedDict()


def _plan(outline: _Outline, rest_of_record: int, directory: str | None) -> _Plan:
    """Return the plan for a structure; kept, because a run saves the same one again and again.

    Args:
        outline: The structure.
        rest_of_record: Bytes of the record without its table of tensors.
        directory: See `write_weights`.
    """
    kept = _plans.get(outline)
    if kept is None:
        # Of the offsets it is only known that they are no longer than this.
        farthest = dict.fromkeys(outline.paths, _LONGEST)
        room = TensorTable(Rows(tuple(outline.infos(farthest))), [digest_of()] * len(outline.paths))
        kept = _Kept(len(room.json()), {})
    # The latest last. Several threads may write, and each of these steps is one.
    _plans.pop(outline, None)
    _plans[outline] = kept
    while len(_plans) > _KEPT_PLANS:
        with contextlib.suppress(KeyError):
            _plans.popitem(last=False)
    block = block_size(rest_of_record + kept.room)
    if block not in kept.by_block:
        kept.by_block[block] = _Plan(outline, block, directory)
    return kept.by_block[block]


def dtype_attributes(name: str) -> tuple[tuple[str, str], ...]:
    """Return the attribute by which Keras knows a dtype that HDF5 does not.

    >>> dtype_attributes("bfloat16"), dtype_attributes("float32")
    ((('dtype', 'bfloat16'),), ())
    """
    return (("dtype", name),) if not is_of_numpy(numpy_dtype(name)) else ()

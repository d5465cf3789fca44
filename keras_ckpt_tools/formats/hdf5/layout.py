"""Compute where each byte of an HDF5 file goes.

An HDF5 file of plain datasets consists of a skeleton (superblock, groups, attributes, headers) and
the data of each tensor, in one piece. The positions depend only on names, shapes and dtypes. So
libhdf5 lays out an empty file once (early allocation, no fill: the file is sparse and no data is
written). The skeleton and the offsets are cached, and later saves make no HDF5 call: they write
skeleton, record and buffers. The result is the same as if libhdf5 had written the data too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import h5py
import numpy as np

from keras_ckpt_tools.formats.common.extents import ALIGNMENT, gaps_between
from keras_ckpt_tools.formats.hdf5.deferred_errors import telling


class Dataset(NamedTuple):
    """A tensor to be laid out: its HDF5 path, shape, type and attributes."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Structure(NamedTuple):
    """All that a layout depends on.

    Attributes:
        datasets: The tensors, in order of creation.
        group_attributes: `(path, name, value)` for attributes of groups; makes the group too.
        links: `(path, target)` for second names of groups.
        userblock: Length of the user block.
    """

    datasets: tuple[Dataset, ...]
    group_attributes: tuple[tuple[str, str, str], ...]
    links: tuple[tuple[str, str], ...]
    userblock: int


@dataclass(frozen=True)
class Layout:
    """Where everything goes.

    Attributes:
        skeleton: `(offset, bytes)` of all that is not data, in order.
        offsets: Where the data of each tensor starts; tensors without bytes are left out.
        size: Length of the file.
    """

    skeleton: tuple[tuple[int, bytes], ...]
    offsets: Mapping[str, int]
    size: int


def lay_out(structure: Structure, directory: str | None = None) -> Layout:
    """Return the layout of a structure.

    Args:
        structure: What is to be laid out.
        directory: Where a sparse file of the final length may be put for a moment.
    """
    # A file without a name: a kill leaves none.
    with _file_without_a_name(directory) as skeleton:
        with (
            telling(skeleton) as patient,
            h5py.File(
                patient,
                "w",
                userblock_size=structure.userblock,
                # What is read into memory in one piece is then aligned there too.
                alignment_threshold=ALIGNMENT,
                alignment_interval=ALIGNMENT,
            ) as file,
        ):
            offsets = _create(file, structure)
        skeleton.flush()
        size = os.fstat(skeleton.fileno()).st_size
        data = sorted((offsets[d.path], d.nbytes) for d in structure.datasets if d.nbytes)
        gaps = tuple(
            (start, os.pread(skeleton.fileno(), end - start, start))
            for start, end in gaps_between(data, structure.userblock, size)
        )
    return Layout(gaps, {d.path: offsets[d.path] for d in structure.datasets if d.nbytes}, size)


def _file_without_a_name(directory: str | None) -> Any:
    try:
        return tempfile.TemporaryFile(dir=directory)
    except OSError:
        if directory is None:
            raise
        return tempfile.TemporaryFile()


def _create(file: h5py.File, structure: Structure) -> dict[str, int]:
    groups = {"": file}
    for path, name, value in structure.group_attributes:
        _group(groups, path).attrs[name] = value
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    offsets = {}
    for dataset in structure.datasets:
        parent, _, name = dataset.path.rpartition("/")
        space = h5py.h5s.create_simple(dataset.shape) if dataset.shape else _scalar()
        kind = h5py.h5t.py_create(dataset.dtype, logical=True)
        group = _group(groups, parent)
        made = h5py.h5d.create(group.id, name.encode(), kind, space, creation)
        for key, attribute in dataset.attributes:
            h5py.Dataset(made).attrs[key] = attribute
        if dataset.nbytes:
            offsets[dataset.path] = made.get_offset()
    for path, target in structure.links:
        file[path] = file[target]
    return offsets


def _group(groups: dict[str, h5py.Group], path: str) -> h5py.Group:
    # Kept, because asking HDF5 whether a group is there takes longer than making it.
    if path not in groups:
        parent, _, name = path.rpartition("/")
        groups[path] = _group(groups, parent).create_group(name)
    return groups[path]


def _scalar() -> h5py.h5s.SpaceID:
    return h5py.h5s.create(h5py.h5s.SCALAR)

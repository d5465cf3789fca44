"""Identify zip and HDF5 files, and detect truncation.

`kinds` calls these functions; they return the name of a `Kind` and visible damage. A truncated zip
has lost its directory, so its local headers are followed: they show in which member it ends and how
long that should be. An HDF5 superblock contains the end of the file, which finds a truncated
download without libhdf5; the contents are scanned in a child process (see `hdf5/scan.py`).
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from keras_ckpt_tools.errors import CkptError, DamagedArtefactError
from keras_ckpt_tools.formats.common.bounded_json import parse_object
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.hdf5.scan import Look, Survey, survey
from keras_ckpt_tools.formats.hdf5.shard_index import ShardIndex, is_index
from keras_ckpt_tools.formats.keras_zip.reader import open_archive
from keras_ckpt_tools.formats.keras_zip.records import (
    ENTRY_MARK,
    LOCAL,
    LOCAL_MARK,
    in_64_bits,
)
from keras_ckpt_tools.formats.keras_zip.seal import BAD_ZIP

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_TABLE_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_SCAN = 1 << 20
_LISTED = 20


@dataclass(frozen=True)
class Finding:
    """What was found in a container.

    Attributes:
        kind: Name of its `Kind`.
        damage: What is visibly wrong, or `None`.
        refusal: The error for what must not be opened, or `None`.
        survey: What is in an HDF5 file, where it was looked through.
        beside: Bytes of other files that belong to it.
    """

    kind: str
    damage: str | None = None
    refusal: CkptError | None = None
    survey: Survey | None = None
    beside: int = 0


def tell_zip(file: BinaryIO, size: int, path: str, limits: Limits) -> Finding:
    """Tell what kind of zip a file is, and its damage."""
    try:
        with open_archive(file, path, limits) as archive:
            names = archive.namelist()
    except DamagedArtefactError as error:
        return Finding("KERAS", error.how)
    except CkptError as error:
        return Finding("KERAS", refusal=error)
    except (*BAD_ZIP, NotImplementedError, OverflowError, struct.error) as error:
        names, end = _follow_local_headers(file, size)
        kind = _kind_of_members(names)
        if end > size:
            return Finding(kind, f"truncated at {size:,} of at least {end:,} bytes")
        file.seek(end)
        if not names or file.read(4) in (b"", ENTRY_MARK):
            return Finding(kind, f"truncated at {size:,} bytes, before its end")
        return Finding(kind, f"no zip that can be read ({error})")
    kind = _kind_of_members(names)
    if kind == "KERAS":
        lacks = [name for name in ("config.json", "model.weights.h5") if name not in names]
        if lacks:
            return Finding(kind, " and ".join(lacks) + " missing in the archive")
    return Finding(kind)


def _kind_of_members(names: list[str]) -> str:
    if set(names) & {"config.json", "metadata.json", "model.weights.h5"}:
        return "KERAS"
    if any(name.endswith("data.pkl") for name in names):
        return "PICKLE"
    if names and all(name.endswith(".npy") for name in names):
        return "NPZ"
    return "UNKNOWN"


def _follow_local_headers(file: BinaryIO, size: int) -> tuple[list[str], int]:
    names: list[str] = []
    offset = 0
    while offset < size:
        file.seek(offset)
        raw = file.read(LOCAL.size)
        if len(raw) < LOCAL.size or not raw.startswith(LOCAL_MARK):
            break
        _, _, flags, _, _, _, _, packed, _, name_length, extra_length = LOCAL.unpack(raw)
        name = file.read(name_length)
        extra = file.read(extra_length)
        if len(name) == name_length:
            names.append(name.decode("utf-8", "replace"))
        packed, _ = in_64_bits(packed, 0, extra)
        if flags & 8 and not packed:
            return names, offset  # Lengths follow the data; they are unknown here.
        offset += LOCAL.size + name_length + extra_length + packed
    return names, offset


def superblock_at(file: BinaryIO, size: int) -> int | None:
    """Return the offset of a file's HDF5 superblock (0, 512, 1024, 2048, ...), or `None`."""
    offset = 0
    while offset + len(HDF5_MAGIC) <= size:
        file.seek(offset)
        if file.read(len(HDF5_MAGIC)) == HDF5_MAGIC:
            return offset
        offset = offset * 2 or 512
    return None


def tell_hdf5(
    file: BinaryIO, base: int, size: int, path: str, limits: Limits, look: Look = survey
) -> Finding:
    """Tell what kind of HDF5 file a file is, and its damage; a process of its own looks into it."""
    end = end_of_hdf5(file, base)
    if end is None:
        return Finding(_guess_hdf5(file), "its HDF5 superblock cannot be read")
    if end > size:
        return Finding(_guess_hdf5(file), f"truncated at {size:,} of {end:,} bytes")
    try:
        found = look(file.fileno(), 0, size, path, limits)
    except DamagedArtefactError as error:
        return Finding(_guess_hdf5(file), error.how)
    except CkptError as error:
        return Finding(_guess_hdf5(file), refusal=error)
    return Finding(_kind_of_hdf5(found), survey=found)


def tell_json(file: BinaryIO, path: str, limits: Limits) -> Finding:
    """Tell what a JSON object is about: the shards of weights, a model, or something else."""
    file.seek(0)
    text = file.read(limits.json_bytes + 1)
    try:
        data = parse_object(text, "JSON", path, limits)
    except CkptError as error:
        # What is left of an index still names its shards.
        if b'"weight_map"' not in text[:_SCAN] or b".weights.h5" not in text[:_SCAN]:
            return Finding("UNKNOWN")
        if isinstance(error, DamagedArtefactError):
            return Finding("SHARDED_WEIGHTS", error.how)
        return Finding("SHARDED_WEIGHTS", refusal=error)
    if is_index(data):
        return _tell_shards(data, path, limits)
    described = isinstance(data.get("class_name"), str) and isinstance(data.get("config"), dict)
    return Finding("MODEL_CONFIG" if described else "JSON")


def _tell_shards(data: dict[str, Any], path: str, limits: Limits) -> Finding:
    try:
        index = ShardIndex.of(data, path, limits)
    except DamagedArtefactError as error:
        return Finding("SHARDED_WEIGHTS", error.how)
    except CkptError as error:
        return Finding("SHARDED_WEIGHTS", refusal=error)
    folder = os.path.dirname(path) or "."
    size, lacking = 0, []
    for name in (*index.shards, *index.unnamed(os.listdir(folder))):
        try:
            size += os.stat(os.path.join(folder, name)).st_size
        except OSError:
            lacking.append(name)
    if not lacking:
        return Finding("SHARDED_WEIGHTS", beside=size)
    more = f" and {len(lacking) - _LISTED} more" if len(lacking) > _LISTED else ""
    number = f"{len(lacking)} of its {len(index.shards)} shards"
    verb = "is" if len(lacking) == 1 else "are"
    damage = f"{number} {verb} missing: {', '.join(lacking[:_LISTED])}{more}"
    return Finding("SHARDED_WEIGHTS", damage, beside=size)


def end_of_hdf5(file: BinaryIO, base: int) -> int | None:
    """Return where an HDF5 file says that it ends, or `None` where it does not say."""
    file.seek(base)
    block = file.read(128)
    if len(block) < 48:
        return None
    version = block[8]
    if version in (0, 1):
        width, first = block[13], 24 if version == 0 else 28
        addresses = block[first:]
    elif version in (2, 3):
        width, addresses = block[9], block[12:]
    else:
        return None
    if width not in (4, 8) or len(addresses) < 3 * width:
        return None
    # Base address, one more address, end of file: in all four versions, in this order. The end
    # counts from the start of the file.
    return int.from_bytes(addresses[2 * width : 3 * width], "little")


def _kind_of_hdf5(found: Survey) -> str:
    attributes, members = set(found.attributes), found.members
    if "model_config" in attributes or "model_weights" in members:
        return "H5_MODEL"
    if any(name == "layer_names" or name.startswith("layer_names") for name in attributes):
        return "H5_WEIGHTS_LEGACY"
    if members & {"vars", "layers", "_layer_checkpoint_dependencies", "optimizer"}:
        return "H5_WEIGHTS"
    # One of several shards may begin anywhere in the model.
    return "H5_WEIGHTS" if found.with_vars else "UNKNOWN"


def _guess_hdf5(file: BinaryIO) -> str:
    # Attributes stand near the start of the file; what is left of it may still name them.
    file.seek(0)
    start = file.read(_SCAN)
    if b"model_config" in start:
        return "H5_MODEL"
    return "H5_WEIGHTS_LEGACY" if b"layer_names" in start else "H5_WEIGHTS"


def is_tensorflow_index(file: BinaryIO, size: int) -> bool:
    """Return whether a file ends as the index of a TensorFlow checkpoint does."""
    if size < 48:
        return False
    file.seek(size - len(_TABLE_MAGIC))
    return file.read() == _TABLE_MAGIC


def is_safetensors(head: bytes, size: int) -> bool:
    """Return whether a file begins as safetensors do: a length, then a JSON object."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    length = int.from_bytes(head[:8], "little")
    if not 2 <= length <= size - 8:
        return False
    if length + 8 > len(head):
        return True
    try:
        return isinstance(json.loads(head[8 : 8 + length]), dict)
    except (ValueError, RecursionError):
        return False


def is_pickle(file: BinaryIO, head: bytes, size: int) -> bool:
    """Return whether a file is a pickle of protocol 2 or later. Nothing of it is loaded."""
    if len(head) < 3 or head[0] != 0x80 or not 2 <= head[1] <= 5:
        return False
    file.seek(size - 1)
    # Joblib and old PyTorch files append arrays after the pickle; they open with these opcodes.
    return file.read(1) == b"." or head[2:3] in b"\x95}(c]\x8aK"

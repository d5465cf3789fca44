"""Write the data and index of a TensorFlow checkpoint, without TensorFlow.

TensorFlow's own writer needs the tensors as TensorFlow objects, chooses its own file names, and
renames the files before they are synced. Here, the data is written from the memory that the
snapshot shares with the variables to a file that the caller opened and will commit. The digests of
the record are computed in the same pass.

Source: TensorFlow's `tensor_bundle.proto` and `tensor_bundle.cc`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import google_crc32c
import numpy as np

from keras_ckpt_tools.formats.common.dtypes import dtype_name, in_native_order, raw_bytes
from keras_ckpt_tools.formats.record.userblock import digest_of
from keras_ckpt_tools.formats.tensorflow.bundle import DTYPES, STRING
from keras_ckpt_tools.formats.tensorflow.protobuf import (
    bytes_field,
    fixed32_field,
    number_field,
    varint,
)
from keras_ckpt_tools.formats.tensorflow.sstable import mask, write_table
from keras_ckpt_tools.metadata import TensorInfo

_NUMBERS = {name: number for number, name in DTYPES.items()}
_UINT8 = _NUMBERS["uint8"]
_PRODUCER = 1


def storable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array as it is written: text as bytes of one length, numbers in our byte order."""
    if array.dtype.kind in "OU":
        return np.char.encode(array.astype(str), "utf-8")
    return in_native_order(array)


def write_bundle(
    write: Callable[[Any], Any], tensors: Mapping[str, np.ndarray[Any, Any]], graph: bytes, key: str
) -> tuple[bytes, dict[str, TensorInfo], bytes]:
    """Write the one data file of a checkpoint.

    Args:
        write: Takes the next bytes of that file.
        tensors: Arrays by key. Bytes and other types that TensorFlow has no word for are written as
            bytes, with a dimension more.
        graph: The graph of objects.
        key: Its key.

    Returns:
        The bytes of the index; where each tensor is, by key; and what was written behind them.
    """
    entries: list[tuple[bytes, bytes]] = []
    infos: dict[str, TensorInfo] = {}
    at = 0
    for name in sorted(tensors):
        array = tensors[name]
        data = np.frombuffer(raw_bytes(array), np.uint8)
        dtype = dtype_name(array.dtype)
        number, shape = _NUMBERS.get(dtype, _UINT8), array.shape
        if dtype not in _NUMBERS:
            shape = (*shape, array.dtype.itemsize)
        crc = mask(google_crc32c.value(data))
        entries.append((name.encode(), _entry(number, shape, at, data.nbytes, crc)))
        infos[name] = TensorInfo(name, array.shape, dtype, at, data.nbytes, digest_of(data))
        write(data.data)
        at += data.nbytes
    length = len(graph).to_bytes(4, "little")
    checksum = mask(google_crc32c.value(length)).to_bytes(4, "little")
    text = varint(len(graph)) + checksum + graph
    crc = google_crc32c.extend(google_crc32c.value(length), checksum + graph)
    entries.append((key.encode(), _entry(STRING, (), at, len(text), mask(crc))))
    write(text)
    header = number_field(1, 1) + bytes_field(3, number_field(1, _PRODUCER))
    return write_table([(b"", header), *sorted(entries)]), infos, text


def _entry(dtype: int, shape: tuple[int, ...], offset: int, size: int, crc: int) -> bytes:
    dimensions = b"".join(bytes_field(2, number_field(1, n)) for n in shape)
    return (
        number_field(1, dtype)
        + bytes_field(2, dimensions)
        + number_field(4, offset)
        + number_field(5, size)
        + fixed32_field(6, crc)
    )

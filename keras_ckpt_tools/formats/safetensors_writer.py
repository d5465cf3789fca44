"""Write `.safetensors` files: tensors -> *write* -> commit.

Written here and not by the `safetensors` package: the format is a header and the tensors' bytes one
after the other, and the package wants all tensors in memory at once and opens the target itself.
Here they are read and written a few at a time into a staged file, `bfloat16` and `float8` included,
and no package more is needed. That the package reads what this writes, its tests show.

Source: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.formats.dtypes import in_native_order, numpy_dtype, raw_bytes
from keras_ckpt_tools.formats.safetensors_file import CONFIG, DTYPES, METADATA, RECORD
from keras_ckpt_tools.metadata import Record, TensorInfo

__all__ = ["NAMES", "notes", "write_safetensors"]

NAMES = {name: code for code, name in DTYPES.items()}
"""What the format calls a dtype."""

_ALIGNMENT = 8


def write_safetensors(
    write: Callable[[Any], Any],
    tensors: Mapping[str, TensorInfo],
    arrays: Callable[[list[str]], Iterable[np.ndarray[Any, Any]]],
    noted: Mapping[str, str],
) -> None:
    """Write tensors as one file.

    Args:
        write: Takes the next bytes of the file.
        tensors: What there is, by name; each of a dtype in `NAMES`.
        arrays: Returns the arrays of these names in that order; a large one in pieces.
        noted: Texts for `__metadata__`.
    """
    # As the library orders them: the widest first, so that each lies at a multiple of its width.
    order = sorted(tensors, key=lambda name: (-numpy_dtype(tensors[name].dtype).itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(noted)} if noted else {}
    position = 0
    for name in order:
        info = tensors[name]
        end = position + _nbytes(info)
        header[name] = {
            "dtype": NAMES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // _ALIGNMENT) * _ALIGNMENT)
    write(len(text).to_bytes(8, "little") + text)
    for array in arrays(order):
        write(raw_bytes(in_native_order(array)))


def _nbytes(info: TensorInfo) -> int:
    return int(np.prod(info.shape, dtype=np.int64)) * numpy_dtype(info.dtype).itemsize


def notes(record: Record, config: str | None, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return what a file is to say about itself beside its tensors.

    >>> sorted(notes(Record(), None, {}))
    ['format', 'keras_ckpt_tools.record']
    """
    plain = record.to_json()
    told = {name: plain[name] for name in ("kind", "versions", "progress", "objects")}
    found = {"format": "keras", RECORD: json.dumps(told)}
    if config is not None:
        found |= {CONFIG: config, METADATA: json.dumps(dict(metadata))}
    return found

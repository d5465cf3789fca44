"""Read and write `.safetensors` files.

A file consists of a length, a JSON object and the bytes of the tensors. Because it may be
untrusted, the header is measured before it is parsed, and no memory is allocated before the tensors
are known to be inside the file, without overlaps and gaps. The reader is a `Source`, so it works
for all functions that read weights.

The format has no digests: truncation is detected, changed numbers are not. `export` stores progress
and config as text in `__metadata__`; it is checked like a record, and ignored if it is invalid.

Source: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from keras_ckpt_tools.errors import CkptError, damaged
from keras_ckpt_tools.formats.common.bounded_json import parse_object
from keras_ckpt_tools.formats.common.dtypes import (
    hdf5_dtype,
    in_native_order,
    numpy_dtype,
    raw_bytes,
)
from keras_ckpt_tools.formats.common.finite import not_finite_in
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.common.safe_open import identity_of
from keras_ckpt_tools.formats.hdf5.window import pread_into
from keras_ckpt_tools.formats.kinds import Artefact
from keras_ckpt_tools.formats.record.validation import check_types
from keras_ckpt_tools.formats.tensor_source import ModelSource
from keras_ckpt_tools.metadata import Record, TensorInfo

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Names of dtypes in such files, and NumPy's or ml_dtypes' for them."""

# What `export` notes in `__metadata__`: our record without its tables, Keras' config and metadata.
RECORD = "keras_ckpt_tools.record"
CONFIG = "keras.config"
METADATA = "keras.metadata"

_MOST_HEADER = 100_000_000  # The library's own limit.
_MOST_AXES = 32  # NumPy's before 2.0.
_LONGEST_AXIS = 1 << 62


class SafetensorsSource(ModelSource):
    """One open `.safetensors` file.

    Attributes:
        noted: The texts in `__metadata__`.
    """

    covered = False  # There are no digests.

    def __init__(self, artefact: Artefact, limits: Limits):
        super().__init__(artefact, limits)
        self._fd = self._stack.enter_context(artefact.open()).fileno()
        self._identity = identity_of(self._fd)
        self._end = self._identity.size
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        length = int.from_bytes(os.pread(self._fd, 8, 0), "little")
        if not 2 <= length <= self._end - 8:
            raise damaged(self.path, "its header is longer than the file")
        if length > _MOST_HEADER:
            raise over_budget(self.path, "its header has", "bytes", length, _MOST_HEADER)
        self._base = 8 + length
        header = parse_object(os.pread(self._fd, length, 8), "header", self.path, self.limits)
        self._read_notes(header.pop("__metadata__", {}))
        self._read_table(header)

    def _read_notes(self, noted: Any) -> None:
        if not isinstance(noted, dict) or not all(isinstance(v, str) for v in noted.values()):
            raise damaged(self.path, "its __metadata__ has more than texts")
        self.noted: dict[str, str] = noted
        self.config = self._document(CONFIG)
        self.metadata = self._document(METADATA) or {}
        self.record = _record_of(self._document(RECORD))

    def _document(self, name: str) -> dict[str, Any] | None:
        try:
            return parse_object(self.noted[name], name, self.path, self.limits)
        except (KeyError, CkptError):
            return None  # Somebody else may use the same name for something else.

    def _read_table(self, header: Mapping[str, Any]) -> None:
        table = [self._info(name, told) for name, told in header.items()]
        table.sort(key=lambda info: (info.offset or 0, info.nbytes))
        position = self._base
        for info in table:
            if info.offset != position:
                how = f"{info.path[:100]!r} overlaps another tensor, or there is a hole before it"
                raise damaged(self.path, how)
            position += info.nbytes
        if position > self._end:
            raise damaged(self.path, f"truncated at {self._end:,} of {position:,} bytes")
        if position < self._end:
            raise damaged(self.path, f"{self._end - position:,} bytes too long")
        if position - self._base > self.limits.max_bytes:
            needed, allowed = position - self._base, self.limits.max_bytes
            raise over_budget(self.path, "its tensors take", "max_bytes", needed, allowed)
        self.tensors = {info.path: info for info in table}

    def _info(self, name: str, told: Any) -> TensorInfo:
        try:
            kind, shape, (start, end) = told["dtype"], told["shape"], told["data_offsets"]
            numbers = (*shape, start, end)
        except (TypeError, ValueError, KeyError) as error:
            raise damaged(self.path, f"its header makes no sense about {name[:100]!r}") from error
        dtype = DTYPES.get(kind) if isinstance(kind, str) else None
        if dtype is None or not (hasattr(np, dtype) or hasattr(ml_dtypes, dtype)):
            raise damaged(
                self.path, f"{name[:100]!r} is of a type that is not read: {str(kind)[:50]}"
            )
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
        if not whole or not all(0 <= n < _LONGEST_AXIS for n in numbers) or len(shape) > _MOST_AXES:
            raise damaged(self.path, f"its header makes no sense about {name[:100]!r}")
        itemsize = numpy_dtype(dtype).itemsize
        # An axis of no length hides what the others multiply to, and NumPy looks at these.
        if math.prod(n for n in shape if n) * itemsize >= _LONGEST_AXIS:
            raise damaged(self.path, f"its header makes no sense about {name[:100]!r}")
        nbytes = math.prod(shape) * itemsize
        if end - start != nbytes:
            raise damaged(self.path, f"the length of {name[:100]!r} is not that of its shape")
        return TensorInfo(name, tuple(shape), dtype, self._base + start, nbytes)

    def place_of(self, path: str) -> tuple[int, int, str] | None:
        self.check_unchanged()
        info = self.tensors[path]
        return self._fd, info.offset or 0, hdf5_dtype(numpy_dtype(info.dtype)).str

    def read_all(self, paths: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        arrays = {path: self._read(self.tensors[path]) for path in paths}
        self.check_unchanged()
        self.not_finite += not_finite_in(arrays.items())
        return arrays

    def _read(self, info: TensorInfo) -> np.ndarray[Any, Any]:
        array = np.empty(info.shape, numpy_dtype(info.dtype))
        view, offset = raw_bytes(array), info.offset or 0
        while view:
            read = pread_into(self._fd, view, offset)
            if not read:
                raise damaged(self.path, "it has become shorter")
            view, offset = view[read:], offset + read
        return array


def _record_of(noted: Mapping[str, Any] | None) -> Record | None:
    if noted is None:
        return None
    try:
        record = Record.from_json({**noted, "tensors": (), "tracked": {}})
        check_types(record)
    except (TypeError, ValueError, AttributeError, KeyError):
        return None
    done = record.progress
    counts = (done.epochs_completed, done.batches_completed, done.step)
    return record if all(isinstance(n, int) and n >= 0 for n in counts) else None


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
    """Return the metadata of a file.

    >>> sorted(notes(Record(), None, {}))
    ['format', 'keras_ckpt_tools.record']
    """
    plain = record.to_json()
    told = {name: plain[name] for name in ("kind", "versions", "progress", "objects")}
    found = {"format": "keras", RECORD: json.dumps(told)}
    if config is not None:
        found |= {CONFIG: config, METADATA: json.dumps(dict(metadata))}
    return found

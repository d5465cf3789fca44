"""Write a whole model as `.h5`, Keras' older format.

Keras' own writer writes the model into a staged file with a user block. Then the file is read once,
and the record with all digests is written into the user block. `legacy_completion` adds what that
writer leaves out, or refuses the model.

Keras' writer removes the optimizer from the live model's compile config. A save must not change the
model, so the writer gets a copy of that config.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.formats.common.extents import gaps_between
from keras_ckpt_tools.formats.hdf5.deferred_errors import telling
from keras_ckpt_tools.formats.hdf5.tensors import read_table
from keras_ckpt_tools.formats.record.userblock import block_size, digest_of, encode, encode_json
from keras_ckpt_tools.live.legacy_completion import (
    complete_config,
    refusal,
    require_representable,
    vocabularies_in_config,
)
from keras_ckpt_tools.metadata import Record, TensorInfo

# A line of the record's table of tensors, generously; the block is doubled where it was too small.
_BYTES_PER_TENSOR = 300


def write_legacy_model(file: BinaryIO, model: Any, record: Record) -> Record:
    """Write a model into an empty file that is open for reading and writing.

    Args:
        file: Where to write.
        model: A built model of the Sequential or Functional kind.
        record: What the file says about itself; the tables of bytes are filled in here.

    Returns:
        The record as it stands in the file.

    Raises:
        UntrackedStateError: it has what such a file cannot hold.
    """
    require_representable(model)
    tensors = len(model.weights) * 4  # Adam and its kin keep up to three numbers for each weight.
    block = block_size(len(encode_json(record)) + _BYTES_PER_TENSOR * (tensors + 8))
    while True:
        file.seek(0)
        file.truncate()
        with (
            telling(file) as patient,
            h5py.File(patient, "w", userblock_size=block) as hdf5,
            _compile_config_untouched(model),
            vocabularies_in_config(model),
        ):
            _write_as_keras(model, hdf5)
            complete_config(model, hdf5)
            hdf5.flush()
            table = read_table(hdf5)
        file.flush()
        described = _describe(file.fileno(), record, table, block)
        if block_size(len(encode_json(described))) <= block:
            break
        block *= 2
    file.seek(0)
    file.write(encode(described, block))
    return described


def _write_as_keras(model: Any, hdf5: h5py.File) -> None:
    try:
        internals.save_model_to_hdf5(model, hdf5)
    except (NotImplementedError, TypeError, ValueError) as error:
        # Of two variables of one name, of dtypes that HDF5 has not, of a loss without a name.
        said = str(error).partition("\n")[0]
        what = f"Keras' writer of that format fails: {type(error).__name__}: {said}"
        where = f"model {model.name!r} ({type(model).__name__})"
        raise refusal([(where, what, "use another format")]) from error


@contextlib.contextmanager
def _compile_config_untouched(model: Any) -> Iterator[None]:
    """Give the writer a copy of the model's compile arguments to change."""
    kept: Any = getattr(model, "_compile_config", None)
    config = getattr(kept, "config", None)
    if not isinstance(config, dict):
        yield
        return
    kept.config = dict(config)
    try:
        yield
    finally:
        kept.config = config


def _describe(descriptor: int, record: Record, table: dict[str, TensorInfo], block: int) -> Record:
    size = os.fstat(descriptor).st_size
    # What has no place of its own (strings of varying length) counts as skeleton.
    placed = {info.offset: info for info in table.values() if info.offset is not None}
    data = [(offset, placed[offset].nbytes) for offset in sorted(placed)]
    return dataclasses.replace(
        record,
        tensors=tuple(
            dataclasses.replace(info, digest=_digest(descriptor, info))
            for info in table.values()
            if info.offset is not None or not info.nbytes
        ),
        skeleton_digest=digest_of(
            *(
                os.pread(descriptor, end - start, start)
                for start, end in gaps_between(data, block, size)
            )
        ),
        size=size,
    )


def _digest(descriptor: int, info: TensorInfo) -> str:
    return digest_of(os.pread(descriptor, info.nbytes, info.offset or 0))

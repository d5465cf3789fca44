"""The record in front of an HDF5 file."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_ckpt_tools.errors import DamagedArtefactError, NewerFormatError
from keras_ckpt_tools.formats.record.userblock import (
    MAGIC,
    block_size,
    decode,
    encode,
    encode_json,
    read_at,
)
from keras_ckpt_tools.metadata import Record, TensorInfo, TrainingProgress

RECORD = Record(
    kind="checkpoint",
    versions={"keras": "3.15.1"},
    progress=TrainingProgress(epochs_completed=3, logs={"loss": float("inf")}),
    tensors=(TensorInfo("a/vars/0", (2, 3), "float32", 4096, 24, "0" * 32),),
)


def _block() -> bytes:
    return encode(RECORD, block_size(len(encode_json(RECORD))))


def test_a_record_comes_back_as_it_was() -> None:
    """What was encoded is decoded, infinities included."""
    block = _block()
    assert decode(read_at(block), "a.h5") == (RECORD, len(block))


def test_a_block_is_as_long_as_hdf5_allows() -> None:
    """User blocks are powers of two, from 512 bytes up."""
    sizes = {block_size(n) for n in range(0, 100_000, 777)}
    assert all(size >= 512 and size & (size - 1) == 0 for size in sizes)


def test_a_record_that_does_not_fit_is_refused() -> None:
    """The writer has to lay the file out again; nothing is cut off."""
    with pytest.raises(OverflowError):
        encode(RECORD, 512)


def test_bytes_of_somebody_else_are_no_record() -> None:
    """A plain HDF5 file, or anything else, has none."""
    assert decode(read_at(b"\x89HDF\r\n\x1a\n" + bytes(600)), "a.h5") is None
    assert decode(read_at(b""), "a.h5") is None


@given(st.data())
def test_every_flipped_bit_is_found(data: st.DataObject) -> None:
    """Magic, lengths, digest, JSON and padding are all covered."""
    whole = bytearray(_block() + b"\x89HDF\r\n\x1a\n")
    bit = data.draw(st.integers(0, len(_block()) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises((DamagedArtefactError, NewerFormatError)):
        decode(read_at(bytes(whole)), "a.h5")


@given(st.integers(min_value=len(MAGIC), max_value=len(_block()) - 1))
def test_every_truncation_is_found(length: int) -> None:
    """A block that ends early is damaged, wherever it ends."""
    with pytest.raises(DamagedArtefactError, match="damaged"):
        decode(read_at(_block()[:length]), "a.h5")


def test_a_later_header_says_to_upgrade() -> None:
    """A file of a later version is not taken for a damaged one."""
    block = bytearray(_block())
    struct.pack_into("<Q", block, 8, 2)
    with pytest.raises(NewerFormatError, match="pip install --upgrade") as caught:
        decode(read_at(bytes(block)), "a.h5")
    assert (caught.value.found, caught.value.supported) == (2, 1)


def test_a_later_record_says_to_upgrade() -> None:
    """The record has a version of its own."""
    later = dataclasses.replace(RECORD, format_version=99)
    block = encode(later, block_size(len(encode_json(later))))
    with pytest.raises(NewerFormatError, match="version 99"):
        decode(read_at(block), "a.h5")

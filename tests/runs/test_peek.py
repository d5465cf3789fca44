"""A few bytes of a file tell ours from others', and the damage that shows."""

from __future__ import annotations

import os
import struct

import pytest
from hostile.parts import h5_model, members, written, zipped
from hostile.records import our_archive
from runs_on_disk import SAVED, archive, progress_of, weights

from keras_ckpt_tools.formats.kinds import Kind, tell
from keras_ckpt_tools.formats.record.userblock import decode
from keras_ckpt_tools.runs.peek import glimpse, reader_of


def _glimpse(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return glimpse(descriptor, str(path))
    finally:
        os.close(descriptor)


ARCHIVE = archive("{epoch}.keras", **progress_of(4))
OURS = SAVED.read_bytes()


@pytest.mark.parametrize("data", [OURS, ARCHIVE, our_archive(), weights(record={"kind": "model"})])
def test_ours_is_told_as_it_is_elsewhere(tmp_path, data):
    """The same kind as `tell` finds, with a head, and no damage."""
    path = written(tmp_path / "file", data)
    found = _glimpse(path)
    assert found.kind is tell(path).kind
    assert found.head is not None
    assert found.damage == ""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (OURS[:-1], "truncated at 42,755 of 42,756 bytes"),
        (OURS + b"x", "1 bytes too long"),
        (OURS[:100], "ends"),
        (OURS[:60] + b"!" + OURS[61:], "have changed"),
        (ARCHIVE[:-1], "within its last ones"),
        (ARCHIVE[:-3] + b"g" + ARCHIVE[-2:], "the digest at its end has changed"),
        (ARCHIVE[: len(ARCHIVE) // 2], "truncated at"),
        (zipped(members())[:-40], "before its end"),
        (h5_model()[:-50], "truncated at"),
        (h5_model()[:20], "truncated"),
    ],
)
def test_damage_that_shows_is_told(tmp_path, data, says):
    """Of ours by the record, of others by where a zip or an HDF5 file says that it ends."""
    found = _glimpse(written(tmp_path / "file", data))
    assert says in found.damage, found


def test_files_of_others_have_no_damage_and_no_head(tmp_path):
    """Nor is anything looked through: their kind is what the first bytes say."""
    for data, kind in ((zipped(members()), Kind.KERAS), (h5_model(), Kind.H5_WEIGHTS),
                       (b"text", Kind.UNKNOWN)):  # fmt: skip
        found = _glimpse(written(tmp_path / "file", data))
        assert (found.kind, found.head, found.damage) == (kind, None, "")
        assert found.note


def test_archive_beyond_4_gb_is_found_by_its_long_numbers(tmp_path):
    """Where a number has no room, the zip says so and has it elsewhere."""
    end = ARCHIVE.rindex(b"PK\x05\x06")
    count, extent, begin = struct.unpack_from("<HII", ARCHIVE, end + 10)
    entry = ARCHIVE.rindex(b"PK\x01\x02")
    packed, at = (struct.unpack_from("<I", ARCHIVE, entry + k)[0] for k in (20, 42))
    extra = struct.pack("<HHQQQ", 1, 24, packed, packed, at)
    long_entry = bytearray(ARCHIVE[entry:end])
    for place in (20, 24, 42):
        struct.pack_into("<I", long_entry, place, 0xFFFFFFFF)
    struct.pack_into("<H", long_entry, 30, len(extra))
    tail = bytearray(ARCHIVE[end:])
    struct.pack_into("<HII", tail, 10, count, extent + len(extra), 0xFFFFFFFF)
    data = ARCHIVE[:entry] + bytes(long_entry) + extra
    numbers = (count, count, extent + len(extra), begin)
    data += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, *numbers)
    data += struct.pack("<4sIQI", b"PK\x06\x07", 0, len(data) - 56, 1) + bytes(tail)
    assert begin < entry
    found = _glimpse(written(tmp_path / "file", data))
    assert found.head is not None, found
    assert found.head.progress.step == 40


def test_reader_gives_the_whole_record(tmp_path):
    """For those who want the history as well."""
    for data in (ARCHIVE, OURS):
        descriptor = os.open(written(tmp_path / "file", data), os.O_RDONLY)
        try:
            record, _ = decode(reader_of(descriptor, "file"), "file")
        finally:
            os.close(descriptor)
        assert record.progress.history
    descriptor = os.open(written(tmp_path / "file", b"text"), os.O_RDONLY)
    assert reader_of(descriptor, "file") is None
    os.close(descriptor)

"""Whatever a zip says twice, it has to say the same; the corpus in `tests/hostile` has the lies."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hostile.rawzip import Member, plain, raw_zip

from keras_ckpt_tools.formats.keras_zip.reader import contradictions
from keras_ckpt_tools.formats.keras_zip.records import end_record


def found_in(path, data):
    """Return what is wrong with a zip of these bytes."""
    path.write_bytes(data)
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        return contradictions(file.fileno(), archive, end_record(file.fileno()))


def streamed(content):
    """Return a zip that was written to a pipe: lengths stand behind the data."""

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, data):
            self.data += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return bytes(pipe.data)


def forced(content):
    """Return a zip with zip64 fields and a comment."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"a comment"
        for name, data in content.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    return buffer.getvalue()


CONTENT = {"config.json": b"{}", "assets/": b"", "model.weights.h5": b"x" * 5000}


@pytest.mark.parametrize("write", [lambda c: raw_zip(plain(c)), streamed, forced])
def test_archive_that_agrees_with_itself_has_no_problem(write, tmp_path):
    """However it was written: in one go, to a pipe, or with fields for large files."""
    assert found_in(tmp_path / "a.zip", write(CONTENT)) == []


def test_each_contradiction_is_named(tmp_path):
    """In front, between, behind, and in the count."""
    good = raw_zip(plain(CONTENT))
    path = tmp_path / "a.zip"
    assert "in front of 'config.json'" in found_in(path, b"#!/bin/sh\n" + good)[0]
    with pytest.raises(zipfile.BadZipFile, match="behind its end"):
        found_in(path, good + b"\0")
    assert "says that it has 2" in found_in(path, raw_zip(plain(CONTENT), count=2))[-1]
    members = [Member(b"a", b"1234", local_size=3), Member(b"b")]
    assert "described in two ways" in found_in(path, raw_zip(members))[0]
    between = raw_zip([Member(b"a", b"1234", packed=2, size=2, crc=0)])
    assert any("in front of its table" in problem for problem in found_in(path, between))


def _end(count=1, length=0, offset=0, comment=b"", mark=b"PK\x05\x06"):
    return struct.pack("<4s4H2IH", mark, 0, 0, count, count, length, offset, len(comment)) + comment


def _end_64(at, count, length, offset, there=None):
    record = struct.pack(
        "<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, offset
    )
    return record + struct.pack("<4sIQI", b"PK\x06\x07", 0, at if there is None else there, 1)


MARK = int.from_bytes(b"PK\x05\x06", "little")
TWO_WAYS = {
    "mark within the record": _end(length=0xFFFFFFFF, offset=MARK, comment=b"a"),
    "mark across two numbers": _end(length=0x4B500000, offset=0x0605, comment=b"a"),
    "second record in the comment": _end(comment=_end()),
    "bytes behind": _end() + b"x",
    "zip64 says another length": _end_64(0, 1, 1 << 30, 0) + _end(length=5),
    "zip64 says another offset": _end_64(0, 1, 5, 7) + _end(length=5, offset=6),
    "zip64 says another count": _end_64(0, 2, 5, 7) + _end(length=5, offset=7),
    "zip64 is elsewhere": _end_64(0, 1, 1 << 30, 0, there=9) + _end(1, 0xFFFFFFFF, 0xFFFFFFFF),
    "zip64 is not there": bytes(56) + _end_64(0, 1, 9, 0)[56:] + _end(1, 0xFFFFFFFF, 0xFFFFFFFF),
}


@pytest.mark.parametrize("name", TWO_WAYS)
def test_end_that_can_be_read_in_two_ways_is_refused(name, tmp_path):
    """What is measured is then not what `zipfile` reads."""
    path = tmp_path / "a.zip"
    path.write_bytes(TWO_WAYS[name])
    with path.open("rb") as file, pytest.raises(zipfile.BadZipFile):
        end_record(file.fileno())


def test_length_of_a_table_is_known_wherever_it_stands(tmp_path):
    """A bound on it was side-stepped by a mark of an end within the real end."""
    path = tmp_path / "a.zip"
    for data, length in (
        (_end(length=7, comment=b"c" * 300), 7),
        (_end(length=7, offset=MARK), 7),
        (_end_64(0, 1, 1 << 40, 9) + _end(1, 0xFFFFFFFF, 0xFFFFFFFF), 1 << 40),
    ):
        path.write_bytes(data)
        with path.open("rb") as file:
            assert end_record(file.fileno()).length == length
    path.write_bytes(b"PK\x03\x04")
    with path.open("rb") as file:
        assert end_record(file.fileno()) is None

"""Whatever a zip says twice, it has to say the same; the corpus in `tests/hostile` has the lies."""

from __future__ import annotations

import io
import zipfile

import pytest
from hostile.rawzip import Member, plain, raw_zip

from keras_ckpt_tools.formats.archive_layout import contradictions


def found_in(path, data):
    """Return what is wrong with a zip of these bytes."""
    path.write_bytes(data)
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        return contradictions(file.fileno(), archive)


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
    assert "behind its end" in found_in(path, good + b"\0")[0]
    assert "says that it has 2" in found_in(path, raw_zip(plain(CONTENT), count=2))[0]
    members = [Member(b"a", b"1234", local_size=3), Member(b"b")]
    assert "described in two ways" in found_in(path, raw_zip(members))[0]
    between = raw_zip([Member(b"a", b"1234", packed=2, size=2, crc=0)])
    assert any("in front of its table" in problem for problem in found_in(path, between))

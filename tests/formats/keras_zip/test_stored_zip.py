"""Archives of ours are what the standard library, and the check of strangers' archives, expect."""

import io
import os
import zipfile
import zlib
from pathlib import Path

import pytest

from keras_ckpt_tools.formats.keras_zip import stored_zip
from keras_ckpt_tools.formats.keras_zip.reader import contradictions
from keras_ckpt_tools.formats.keras_zip.records import end_record
from keras_ckpt_tools.formats.keras_zip.stored_zip import ALIGNMENT, Member, StoredZip

_LARGE_DATA = os.urandom(3 * ALIGNMENT + 7)


def _write(path: Path) -> Member:
    with open(path, "wb") as file:
        archive = StoredZip(file)
        archive.add("metadata.json", b"{}")
        with archive.open("model.weights.h5") as (member, write):
            write(_LARGE_DATA[:5])
            write(memoryview(_LARGE_DATA[5:]))
            write(b"")
        archive.add("assets/Wörter.txt", b"")
        archive.finish(b"a comment")
    return member


def test_the_standard_library_reads_it(tmp_path: Path) -> None:
    """Names, contents, checksums and the comment."""
    _write(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["metadata.json", "model.weights.h5", "assets/Wörter.txt"]
        assert archive.read("model.weights.h5") == _LARGE_DATA
        assert zlib.crc32(_LARGE_DATA) == archive.getinfo("model.weights.h5").CRC
        assert archive.read("assets/Wörter.txt") == b""
        assert archive.comment == b"a comment"


def test_a_large_member_begins_on_a_page(tmp_path: Path) -> None:
    """Its place is told as it is in the file."""
    member = _write(tmp_path / "a.zip")
    assert member.start % ALIGNMENT == 0
    assert (tmp_path / "a.zip").read_bytes()[member.start : member.end] == _LARGE_DATA


def test_nothing_contradicts_itself(tmp_path: Path) -> None:
    """What is refused in archives of others is not in ours."""
    _write(tmp_path / "a.zip")
    with open(tmp_path / "a.zip", "rb") as file, zipfile.ZipFile(file) as archive:
        assert contradictions(file.fileno(), archive, end_record(file.fileno())) == []


@pytest.mark.parametrize("limit", ["_LARGE", "_MOST_ENTRIES"])
def test_what_is_too_large_for_32_bits_is_read_as_well(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits are lowered, because a file of four gigabytes takes a while to write."""
    monkeypatch.setattr(stored_zip, limit, 1)
    _write(tmp_path / "a.zip")
    with open(tmp_path / "a.zip", "rb") as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.read("model.weights.h5") == _LARGE_DATA
        assert b"PK\6\6" in (tmp_path / "a.zip").read_bytes()
        assert contradictions(file.fileno(), archive, end_record(file.fileno())) == []


def test_an_error_of_the_disk_is_raised() -> None:
    """Whoever stages the file removes it then."""

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        StoredZip(Full()).add("a", b"1")

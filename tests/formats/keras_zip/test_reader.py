"""A zip is read only where all that it says about its members agrees, and stays within it."""

from __future__ import annotations

import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keras_ckpt_tools.errors import DamagedArtefactError, OverBudgetError, UnsafeArtefactError
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.keras_zip.reader import extract, open_archive, read_member
from keras_ckpt_tools.formats.keras_zip.records import end_record

LIMITS = Limits.of(8 << 20)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a zip of names and bytes."""

    def write(
        members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_STORED
    ) -> Path:
        path = tmp_path / "a.zip"
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
            warnings.simplefilter("ignore")  # Of two members with one name.
            for name, data in members:
                archive.writestr(name, data)
        return path

    return write


def check(path: Path, **limits: Any) -> list[str]:
    """Open an archive and return its names."""
    with path.open("rb") as file, open_archive(file, str(path), LIMITS) as archive:
        return archive.namelist()


def test_an_ordinary_archive_is_opened_and_extracted(make, tmp_path):
    """Folders, packed members and empty ones are what Keras and zip programs write."""
    members = [("config.json", b"{}"), ("assets/", b""), ("assets/a/words.txt", b"one\ntwo")]
    path = make(members, zipfile.ZIP_DEFLATED)
    with path.open("rb") as file, open_archive(file, str(path), LIMITS) as archive:
        assert read_member(archive, "config.json", 100) == b"{}"
        extract(archive, archive.namelist()[1:], str(tmp_path / "out"))
        assert end_record(file.fileno()).length > 100
    assert (tmp_path / "out/assets/a/words.txt").read_bytes() == b"one\ntwo"


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "assets/../../evil", "C:evil", "a\\..\\evil", "a/.."]
)
def test_names_that_lead_out_are_refused(name, make):
    """Whatever would do the extracting."""
    info = zipfile.ZipInfo("x")
    info.filename = name
    with pytest.raises(UnsafeArtefactError, match="lead out of it"):
        check(make([(info, b"x")]))


def test_links_are_refused(make):
    """A zip can hold symbolic links; some programs make them when they unpack."""
    info = zipfile.ZipInfo("assets/words.txt")
    info.external_attr = 0o120777 << 16
    with pytest.raises(UnsafeArtefactError, match=r"'assets/words.txt' is a link or a device"):
        check(make([(info, b"/etc/passwd")]))


def test_two_members_of_one_name_are_damage(make):
    """One reader takes the first, another the last."""
    with pytest.raises(DamagedArtefactError, match=r"the same name 'config.json'"):
        check(make([("config.json", b"{}"), ("config.json", b"[]")]))


def test_members_that_overlap_are_damage(make):
    """A bomb can use the same bytes for many members."""
    path = make([("a", b"x" * 100), ("b", b"y" * 100)])
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    struct.pack_into("<I", data, entry + 42, 0)  # The second begins where the first does.
    path.write_bytes(data)
    with pytest.raises(DamagedArtefactError, match=r"overlap|another name"):
        check(path)


def test_a_member_that_is_called_otherwise_at_its_place_is_damage(make):
    """The table of contents says one name, the member another."""
    path = make([("config.json", b"{}")])
    data = bytearray(path.read_bytes())
    data[data.index(b"config.json")] = ord("k")
    path.write_bytes(data)
    with pytest.raises(DamagedArtefactError, match="another name in its local header"):
        check(path)


def test_a_member_that_begins_before_the_file_is_damage(make):
    """Of an archive that lost bytes in the middle, all places are too far on."""
    path = make([("a", b"x" * 100), ("b", b"y" * 100)])
    data = path.read_bytes()
    path.write_bytes(data[:40] + data[90:])
    with pytest.raises(DamagedArtefactError, match="begins outside the file"):
        check(path)


@pytest.mark.parametrize(
    ("place", "value", "said"), [(8, 1, "encrypted"), (10, 12, "packed by method 12")]
)
def test_members_that_keras_never_writes_are_named(place, value, said, make):
    """Encrypted, or packed by a method that needs another library."""
    path = make([("config.json", b"{}")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + place] = value
    path.write_bytes(data)
    with pytest.raises(DamagedArtefactError, match=said):
        check(path)


def test_a_member_that_unpacks_to_too_much_is_refused(make):
    """A thousand bytes for one: no vocabulary or config packs like that."""
    with pytest.raises(OverBudgetError, match="unpacks to 4,000,000 bytes"):
        check(make([("assets/words.txt", b"0" * 4_000_000)], zipfile.ZIP_DEFLATED))


def test_all_members_together_keep_to_max_bytes(make):
    """Each is small enough."""
    path = make([(f"model{i}", b"x" * (1 << 20)) for i in range(9)])
    with pytest.raises(OverBudgetError, match=r"unpack to 9,437,184 bytes") as caught:
        check(path)
    assert "max_bytes=9437184" in caught.value.remedy


def test_too_many_members_are_refused_before_they_are_listed(make):
    """The length of the table of contents says so."""
    path = make([("a", b"")])
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x05\x06") + 12, 0x7FFFFFFF)
    path.write_bytes(data)
    with pytest.raises(OverBudgetError, match="table of contents takes 2,147,483,647"):
        check(path)


def test_a_member_longer_than_it_declares_is_not_read_on(make):
    """What is read is what was allowed."""
    path = make([("config.json", b"x" * 1000)])
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        with pytest.raises(zipfile.BadZipFile, match="1,000 bytes"):
            read_member(archive, "config.json", 999)
        archive.getinfo("config.json").file_size = 10
        with pytest.raises(zipfile.BadZipFile):
            read_member(archive, "config.json", 999)

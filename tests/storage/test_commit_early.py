"""The disk may begin before a file is whole, and the file is the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keras_ckpt_tools.storage import commit
from keras_ckpt_tools.storage.commit import synced_early


def test_what_is_written_is_what_was_given(tmp_path: Path) -> None:
    """With the system's own call, whatever it says to it."""
    pieces = [os.urandom(size) for size in (1, 5 << 20, 9 << 20, 100, 3 << 20)]
    with (tmp_path / "a").open("wb") as file:
        write = synced_early(file)
        for piece in pieces:
            assert write(memoryview(piece)) == len(piece)
    assert (tmp_path / "a").read_bytes() == b"".join(pieces)


def test_it_begins_every_few_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for a small file not at all: that is synced at once in any case."""
    asked: list[int] = []
    monkeypatch.setattr(commit, "_begin", lambda: asked.append)
    with (tmp_path / "a").open("wb") as file:
        write = synced_early(file)
        for _ in range(7):
            write(bytes(1 << 20))
        assert asked == []
        for _ in range(13):
            write(bytes(1 << 20))
        assert asked == [file.fileno()] * 2


def test_another_way_to_write_is_used(tmp_path: Path) -> None:
    """A member of an archive is counted and checked by what writes it."""
    taken: list[bytes] = []
    with (tmp_path / "a").open("wb") as file:
        synced_early(file, taken.append)(b"abc")
    assert taken == [b"abc"]


def test_a_system_that_refuses_is_no_matter() -> None:
    """The call is made, here on what is no file, and nothing is raised."""
    reader, writer = os.pipe()
    try:
        commit._begin()(writer)
    finally:
        os.close(reader)
        os.close(writer)

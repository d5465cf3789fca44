"""A file whose writes happen in a thread behaves like any other."""

from __future__ import annotations

import io
import os
import random
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from keras_ckpt_tools.storage.write_behind import WriteBehind, in_pieces

pytestmark = pytest.mark.usefixtures("small_pieces")


class _Refusing(io.BytesIO):
    """A disk that takes so many bytes, and no more."""

    def __init__(self, room: int):
        super().__init__()
        self._room = room

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._room:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_what_is_written_is_in_the_file(tmp_path: Path) -> None:
    """In order, whatever the lengths, and of any kind of buffer."""
    chosen, expected = random.Random(5), []
    with open(tmp_path / "a", "w+b") as file, WriteBehind(file) as behind:
        for _ in range(200):
            data = chosen.randbytes(chosen.choice([0, 1, 999, 1000, 1001, 5000]))
            wrapped = chosen.choice([bytes, bytearray, memoryview])(data)
            assert behind.write(wrapped) == len(data)
            expected.append(data)
    assert (tmp_path / "a").read_bytes() == b"".join(expected)


def test_a_buffer_of_numbers_counts_in_bytes() -> None:
    """As the file of a NumPy array."""
    import numpy as np

    file = io.BytesIO()
    with WriteBehind(file) as behind:
        assert behind.write(np.arange(1000, dtype="float32")) == 4000
    assert file.getvalue() == np.arange(1000, dtype="float32").tobytes()


def test_position_and_content_are_those_of_the_file() -> None:
    """Seeking, telling and reading wait for what was written before."""
    with WriteBehind(io.BytesIO()) as behind:
        assert behind.readable()
        assert behind.writable()
        assert behind.seekable()
        behind.write(b"a" * 5000)
        assert behind.tell() == 5000
        assert behind.seek(-3000, os.SEEK_CUR) == 2000
        behind.write(b"b" * 10)
        assert behind.seek(1999) == 1999
        assert behind.read(12) == b"a" + b"b" * 10 + b"a"
        assert behind.seek(0, os.SEEK_END) == 5000


def test_a_zip_on_top_is_whole(tmp_path: Path) -> None:
    """`zipfile` goes back to write lengths and checksums where they belong."""
    members = {f"member-{n}": random.Random(n).randbytes(n * 997) for n in range(20)}
    with (
        open(tmp_path / "a.zip", "w+b") as file,
        WriteBehind(file) as behind,
        zipfile.ZipFile(behind, "w") as archive,
    ):
        for name, data in members.items():
            with archive.open(name, "w") as member:
                in_pieces(member.write)(data)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == members


def test_pieces_make_the_whole() -> None:
    """Large buffers are handed on in parts, by reference."""
    data, seen = bytes(range(256)) * 20, []
    in_pieces(seen.append)(data)
    assert len(seen) > 1
    assert all(piece.obj is data for piece in seen)
    assert b"".join(seen) == data


@pytest.mark.parametrize("call", ["write", "flush", "seek", "tell", "close"])
def test_an_error_is_raised_at_the_next_call(call: str) -> None:
    """And at the end once more: whoever overlooks it must not take the file for whole."""
    behind = WriteBehind(_Refusing(1500))
    behind.write(bytes(3000))
    behind._pieces.join()
    arguments = {"write": (b"x",), "seek": (0,)}.get(call, ())
    with pytest.raises(OSError, match="No space left"):
        getattr(behind, call)(*arguments)
    if call != "close":
        with pytest.raises(OSError, match="No space left"):
            behind.close()
    assert behind.closed


def test_nothing_is_written_after_an_error() -> None:
    """What comes after a hole is of no use."""
    file = _Refusing(1500)
    behind = WriteBehind(file)
    behind.write(bytes(3000))
    behind._pieces.join()
    for call in (lambda: behind.write(b"x"), behind.close):
        with pytest.raises(OSError, match="No space left"):
            call()
    assert file.getvalue() == bytes(1000)


def test_its_thread_ends_with_it() -> None:
    """Also after an error."""
    before = threading.active_count()
    with WriteBehind(io.BytesIO()) as behind:
        behind.write(b"x")
    with pytest.raises(OSError, match="No space left"), WriteBehind(_Refusing(0)) as behind:
        behind.write(b"x")
    assert threading.active_count() == before


def test_closing_twice_is_no_error() -> None:
    """As for any file; the file below stays open."""
    file = io.BytesIO()
    behind = WriteBehind(file)
    behind.write(b"x")
    behind.close()
    behind.close()
    assert file.getvalue() == b"x"


def test_it_writes_itself_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.12 has it while the interpreter exits, and the last saves are finished."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    file = io.BytesIO()
    with WriteBehind(file) as behind:
        behind.write(bytes(5000))
        assert behind.tell() == 5000
    assert file.getvalue() == bytes(5000)
    with pytest.raises(OSError, match="No space left"), WriteBehind(_Refusing(10)) as behind:
        behind.write(bytes(5000))

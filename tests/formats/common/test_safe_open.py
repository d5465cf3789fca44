"""Only regular files and plain directories are opened; nothing leads out of a directory."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from keras_ckpt_tools.errors import OverBudgetError, UnsafeArtefactError
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.common.safe_open import (
    copy_tree,
    identity_of,
    open_member,
    open_regular,
)

LIMITS = Limits.of(1000)


@pytest.fixture
def folder(tmp_path: Path):
    """An open directory."""
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_a_link_to_a_file_is_followed_and_its_target_is_what_is_open(tmp_path):
    """Caches of models are made of links."""
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "model.keras").symlink_to("blob")
    descriptor = open_regular(str(tmp_path / "model.keras"))
    assert descriptor is not None
    assert os.read(descriptor, 10) == b"x"
    os.close(descriptor)


def test_pipes_sockets_and_devices_are_not_opened(tmp_path):
    """Opening a pipe would wait for a writer."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", "/dev/zero", "/dev/null"):
            assert open_regular(str(path)) is None


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_members_are_regular_files(what, tmp_path, folder):
    """A link in an unpacked archive leads wherever its maker wanted."""
    {
        "link": lambda: (tmp_path / "config.json").symlink_to("/etc/hostname"),
        "pipe": lambda: os.mkfifo(tmp_path / "config.json"),
        "folder": (tmp_path / "config.json").mkdir,
    }[what]()
    with pytest.raises(UnsafeArtefactError, match=r"'config.json' in the directory is a link"):
        open_member(folder, "config.json", "a")
    assert open_member(folder, "not there", "a") is None


def test_a_tree_is_copied(tmp_path, folder):
    """With its folders, and nothing else."""
    (tmp_path / "assets/deep").mkdir(parents=True)
    (tmp_path / "assets/deep/words.txt").write_text("one")
    assert copy_tree(folder, "assets", str(tmp_path / "copy"), "a", LIMITS)
    assert (tmp_path / "copy/assets/deep/words.txt").read_text() == "one"
    assert not copy_tree(folder, "nothing", str(tmp_path / "other"), "a", LIMITS)


@pytest.mark.parametrize("inside", ["link", "linked folder", "pipe", "deep"])
def test_a_tree_with_anything_else_is_refused(inside, tmp_path, folder):
    """Wherever in it that is."""
    assets = tmp_path / "assets"
    assets.mkdir()
    {
        "link": lambda: (assets / "words.txt").symlink_to("/etc/hostname"),
        "linked folder": lambda: (assets / "more").symlink_to("/etc"),
        "pipe": lambda: os.mkfifo(assets / "words.txt"),
        "deep": lambda: (assets / "/".join("d" * 40)).mkdir(parents=True),
    }[inside]()
    with pytest.raises(UnsafeArtefactError):
        copy_tree(folder, "assets", str(tmp_path / "copy"), "a", LIMITS)


def test_a_tree_that_is_a_link_itself_is_refused(tmp_path, folder):
    """The whole folder of assets could be somebody's home."""
    (tmp_path / "assets").symlink_to("/etc")
    with pytest.raises(UnsafeArtefactError):
        copy_tree(folder, "assets", str(tmp_path / "copy"), "a", LIMITS)


def test_a_tree_keeps_to_the_budget(tmp_path, folder):
    """All files together."""
    (tmp_path / "assets").mkdir()
    for name in "abc":
        (tmp_path / "assets" / name).write_bytes(b"x" * 400)
    with pytest.raises(OverBudgetError, match="its assets take 1,200 bytes"):
        copy_tree(folder, "assets", str(tmp_path / "copy"), "a", LIMITS)


def test_an_identity_changes_with_the_content_and_with_the_file(tmp_path):
    """So that what was looked at is told from what is there now."""
    path = tmp_path / "a"
    path.write_bytes(b"one")
    with path.open("rb") as file:
        before = identity_of(file.fileno())
        os.utime(path, ns=(0, 12345))
        assert identity_of(file.fileno()) != before
    other = tmp_path / "b"
    other.write_bytes(b"one")
    with path.open("rb") as one, other.open("rb") as two:
        assert identity_of(one.fileno()) != identity_of(two.fileno())

"""`docs/architecture.md` is true: its modules, the files of its walks; and it stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import keras_ckpt_tools

DOCUMENT = Path(__file__).parents[2] / "docs" / "architecture.md"
PACKAGE = Path(keras_ckpt_tools.__file__).parent
TEXT = DOCUMENT.read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the text below a `## ` heading."""
    assert f"\n## {title}\n" in TEXT
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def listed() -> list[str]:
    """Return the modules in the tables below `## Modules`, with their folders."""
    found = []
    for part in section("Modules").split("\n### ")[1:]:
        folder = re.match(r"`([\w/]+/)`", part)
        prefix = folder[1] if folder else ""
        found += [prefix + name for name in re.findall(r"^\| `(\w+\.py)` \|", part, re.M)]
    return found


def test_every_module_is_in_the_document_and_the_other_way_round():
    """A module that came or went without its line here makes the map wrong."""
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    # A folder's `__init__.py` is the folder, which the table of layers describes.
    assert sorted(listed()) == sorted(f for f in files if not f.endswith("/__init__.py"))


@pytest.mark.parametrize(
    "title",
    [
        "A tensor, from variable to disk",
        "A path, from `safe_load_model` to the model",
        "An epoch number, from `fit()` to the file and back",
    ],
)
def test_a_walk_names_files_that_exist(title):
    """A name without a folder is in the folder of the file before it."""
    folder, missing = PACKAGE, []
    named = re.findall(r"`([\w/]+\.py)`", section(title))
    for name in named:
        folder = (PACKAGE / name).parent if "/" in name else folder
        if not (PACKAGE / name).exists() and not (folder / name).exists():
            missing.append(name)
    assert missing == []
    assert len(named) >= 5


def test_the_layers_are_the_folders_of_the_package():
    """A folder without its layer would have no rule for its imports."""
    folders = set(re.findall(r"`(\w+)/`", section("Layers").partition("\n\nA module")[0]))
    assert folders == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_the_document_is_short():
    """A newcomer reads all of it. Counted are words outside code blocks, tables included."""
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.M | re.S)
    assert len([word for word in prose.split() if re.search(r"\w", word)]) < 2500

"""`docs/architecture.md` lists the modules that there are, each once, under its folder."""

from __future__ import annotations

import re
from pathlib import Path

import keras_ckpt_tools

DOCUMENT = Path(__file__).parents[1] / "docs" / "architecture.md"
PACKAGE = Path(keras_ckpt_tools.__file__).parent


def listed() -> list[str]:
    """Return the modules in the tables below `## Modules`, with their folders."""
    text = DOCUMENT.read_text(encoding="utf-8")
    modules = text.partition("\n## Modules\n")[2].partition("\n## ")[0]
    found = []
    for section in modules.split("\n### ")[1:]:
        folder = re.match(r"`([\w/]+/)`", section)
        prefix = folder[1] if folder else ""
        found += [prefix + name for name in re.findall(r"^\| `(\w+\.py)` \|", section, re.M)]
    return found


def test_every_module_is_in_the_document_and_the_other_way_round():
    """A module that came or went without its line here makes the map wrong."""
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    # A folder's `__init__.py` is the folder, which the table of floors describes.
    assert sorted(listed()) == sorted(f for f in files if not f.endswith("/__init__.py"))

"""The examples of `docs/tensorflow.md` run as printed, from the first to the last."""

from __future__ import annotations

from pathlib import Path

import pytest
from readme_blocks import sections

DOCUMENT = Path(__file__).parents[2] / "docs" / "tensorflow.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, in an empty directory; each can go by what came before it."""
    monkeypatch.chdir(tmp_path)
    found = sections(DOCUMENT.read_text(encoding="utf-8"))
    assert [section.title for section in found] == ["Reading", "Writing"]
    names: dict[str, object] = {}
    for section in found:
        exec(compile(section.code, DOCUMENT, "exec"), names)

"""The examples of `docs/in_training.md` run as printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from readme_blocks import Section, run, sections

DOCUMENT = Path(__file__).parents[2] / "docs" / "in_training.md"
SECTIONS = sections(DOCUMENT.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_section_runs_as_printed(section: Section) -> None:
    """Each section is a program that a reader can copy and run, and asserts what it says."""
    done = run(section, DOCUMENT.name)
    assert done.returncode == 0, done.stdout


def test_there_are_examples() -> None:
    """The test above has something to run."""
    assert len(SECTIONS) == 3

"""The guides in `docs/` run as printed: each section of one is a program of its own.

A guide is a page that says so in its first lines, with the comment `GUIDE`; in other pages a block
may show a few lines out of a program.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from readme_blocks import run, sections

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = "<!-- Each section of this page is run by tests/test_docs.py. -->"
PROGRAMS = [
    (page.name, section)
    for page in sorted(DOCS.glob("*.md"))
    if GUIDE in (text := page.read_text(encoding="utf-8"))
    for section in sections(text)
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "section"), PROGRAMS, ids=[f"{page}: {section.title}" for page, section in PROGRAMS]
)
def test_section_of_a_page_runs_as_printed(page, section):
    """A reader can copy it; what it writes goes with its directory."""
    done = run(section, page)
    assert done.returncode == 0, done.stdout


def test_pages_have_examples():
    """The test above has something to run: each way of moving here is one."""
    titles = [section.title for page, section in PROGRAMS if page == "migrating.md"]
    assert len(titles) == 5
    text = (DOCS / "migrating.md").read_text(encoding="utf-8")
    assert text.count("*Before:*") == text.count("*After:*") == len(titles)

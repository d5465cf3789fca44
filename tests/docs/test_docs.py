"""The pages in `docs/` run as printed: each section of one is a program of its own.

A page that is run here has the comment `GUIDE` in its first lines. Four others are run elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from readme_blocks import BLOCK, run, sections

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDE = "<!-- Each section of this page is run by tests/docs/test_docs.py. -->"
PROGRAMS = [
    (page.name, section)
    for page in sorted(DOCS.glob("*.md"))
    if GUIDE in (text := page.read_text(encoding="utf-8"))
    for section in sections(text)
]
ELSEWHERE = {
    "errors.md": "test_errors_page.py",
    "in_training.md": "test_in_training_doc.py",
    "orbax.md": "test_docs.py",
    "tensorflow.md": "test_tensorflow_doc.py",
}


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


def test_the_orbax_page_runs_as_printed(monkeypatch):
    """It opens a checkpoint of this repository, so it runs in the repository."""
    pytest.importorskip("tensorstore", reason="extra `orbax`")
    monkeypatch.chdir(ROOT)
    (section,) = sections((DOCS / "orbax.md").read_text(encoding="utf-8"))
    exec(compile(section.code, DOCS / "orbax.md", "exec"), {"__name__": "reader"})


def test_every_page_with_examples_is_run():
    """A block that no test runs would soon be wrong."""
    texts = {page.name: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}
    with_examples = {name for name, text in texts.items() if BLOCK.search(text)}
    assert with_examples == {name for name, _ in PROGRAMS} | set(ELSEWHERE)
    for page, test in ELSEWHERE.items():
        assert f'"{page}"' in (ROOT / "tests" / "docs" / test).read_text(encoding="utf-8")

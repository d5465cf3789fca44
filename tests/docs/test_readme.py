"""The README's examples run as printed, and the runner notices one that does not."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from readme_blocks import Section, main, run, sections

README = Path(__file__).parents[2] / "README.md"
SECTIONS = sections(README.read_text(encoding="utf-8")) if README.exists() else []

TEXT = textwrap.dedent(
    """\
    # Title

    ```python
    first = 1
    ```

    ## Two blocks

    ```python
    import os
    assert os.listdir() == []
    second = 2
    ```
    ```bash
    ## no heading
    ```
    ### Still the same section

    ```python
    assert second == 2
    ```

    ## No examples
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_readme_section_runs_as_printed(section):
    """Each section of the README is a program that a reader can copy and run."""
    done = run(section, README.name)
    assert done.returncode == 0, done.stdout


def test_readme_has_examples():
    """The test above has something to run."""
    assert len(SECTIONS) >= 3


def test_blocks_are_grouped_by_section_and_keep_their_lines():
    """Smaller headings do not divide a section, and each line keeps its number."""
    found = sections(TEXT)
    assert [section.title for section in found] == ["Title", "Two blocks"]
    lines = TEXT.splitlines()
    for section in found:
        for number, line in enumerate(section.code.splitlines()):
            assert line in ("", lines[number])
    assert "assert second == 2" in found[1].code


def test_runner_passes_what_runs_and_shows_what_fails(tmp_path, capsys):
    """A failing block makes the exit status 1 and is shown with its line in the Markdown file."""
    good = tmp_path / "good.md"
    good.write_text(TEXT)
    assert main(str(good)) == 0
    bad = tmp_path / "bad.md"
    bad.write_text(TEXT + "```python\nraise SystemError('so it goes')\n```\n")
    assert main(str(bad)) == 1
    line = bad.read_text().splitlines().index("raise SystemError('so it goes')") + 1
    shown = capsys.readouterr().out
    assert "FAILED No examples" in shown
    assert f'bad.md", line {line}' in shown


def test_runner_fails_where_there_is_nothing_to_run(tmp_path):
    """A file without examples is a mistake, not a success."""
    empty = tmp_path / "empty.md"
    empty.write_text("# Nothing\n")
    assert main(str(empty)) == 1


def test_section_is_run_in_an_empty_directory():
    """An example that leaves files behind leaves them in a directory that goes again."""
    before = set(Path.cwd().iterdir())
    assert run(Section("writes", "open('left.txt', 'w').close()\n"), "x.md").returncode == 0
    assert set(Path.cwd().iterdir()) == before

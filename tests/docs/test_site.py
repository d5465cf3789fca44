"""The documentation builds without a warning: every link, anchor, page and name is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site strictly; the exit status counts the warnings."""
    pytest.importorskip("mkdocs", reason="the site is built where it is made: extra `docs`")
    # Not with `--quiet`: what MkDocs does not print, `--strict` does not count.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    options = ["--config-file", str(config), "--site-dir", str(site)]
    return subprocess.run(
        [*command, *options],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """A broken link, a page outside the navigation and an unknown name are warnings."""
    done = build(_ROOT / ".mkdocs.yml", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout
    reference = (tmp_path / "reference.html").read_text(encoding="utf-8")
    assert "background" in reference
    assert "max_to_keep" in reference
    assert "<blockquote>" not in reference, "an example of a docstring is not shown as code"


@pytest.mark.parametrize(
    ("page", "text", "warning"),
    [
        ("index.md", "[a link to nothing](nowhere.md)", "nowhere.md"),
        ("index.md", "[a link to no heading](fit.md#nowhere)", "#nowhere"),
        ("new_page.md", "# A page that the navigation lacks", "new_page.md"),
    ],
)
def test_a_broken_page_fails_the_build(tmp_path: Path, page: str, text: str, warning: str) -> None:
    """The test above can fail."""
    docs = tmp_path / "docs"
    shutil.copytree(_ROOT / "docs", docs)
    with open(docs / page, "a", encoding="utf-8") as file:
        file.write(f"\n\n{text}\n")
    # Without the reference page, which has nothing to do with it and takes most of the time.
    (docs / "reference.md").write_text("# Reference\n", encoding="utf-8")
    config = tmp_path / "mkdocs.yml"
    config.write_text((_ROOT / ".mkdocs.yml").read_text(encoding="utf-8"), encoding="utf-8")
    done = build(config, tmp_path / "site")
    assert done.returncode != 0
    assert warning in done.stdout
    assert "Aborted with 1 warnings in strict mode" in done.stdout

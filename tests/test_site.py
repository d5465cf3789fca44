"""The documentation builds without a warning: every link, anchor and name in it is there."""

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """A link to nothing, a page outside the navigation and an unknown name are errors."""
    pytest.importorskip("mkdocs", reason="the site is built where it is made: extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet"]
    options = ["--strict", "--config-file", str(_ROOT / ".mkdocs.yml"), "--site-dir", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference.html").read_text(encoding="utf-8")
    assert "background" in reference
    assert "max_to_keep" in reference

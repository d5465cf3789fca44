"""Each message on the page of errors is given by what the page says, and each cure runs."""

import json
import subprocess
import sys
from pathlib import Path

import errors_page
import pytest

_PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
_TITLES = list(errors_page.sections(_PAGE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def given() -> dict[str, dict[str, str]]:
    """What each section gave, run in a process of its own."""
    command = [sys.executable, errors_page.__file__, str(_PAGE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("title", _TITLES)
def test_the_message_is_given_and_the_cure_runs(
    title: str, given: dict[str, dict[str, str]]
) -> None:
    """Keras' and TensorFlow's own words: people search for these."""
    assert title.replace("`", "") in given[title]["said"].replace("`", "")
    assert given[title]["wrong"] == ""

"""The demo works as a reader would run it, and says so where training did not go on as it should.

These run `examples/demo.py` for real: processes are trained, killed and started again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNS = ("fit()", "loop by epoch", "loop by step")

pytestmark = pytest.mark.slow


def run_demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the demo without a terminal, as in a CI job."""
    return subprocess.run(
        [sys.executable, str(folder / "demo.py"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )


def test_demo_is_killed_four_times_and_ends_with_a_table(tmp_path):
    """All runs go on after each SIGKILL, the best model loads, and nothing is reported wrong."""
    place = tmp_path / "place"
    done = run_demo(EXAMPLES, "--directory", str(place))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("killed by SIGKILL") == 4
    assert done.stdout.count("started again, goes on with") == 4
    table = done.stdout.partition("What the runs came to")[2]
    rows = {name: re.search(rf"{re.escape(name)}\s+6\s+450\s+(\d)", table) for name in RUNS}
    assert [row and row[1] for row in rows.values()] == ["2", "1", "1"], done.stdout
    assert "0 problems" in done.stdout
    accuracies = [float(a) for a in re.findall(r"accuracy (0\.\d+) on held-out", done.stdout)]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.9
    # Nothing that was staged by a killed process is left.
    assert [p.name for p in place.rglob(".*")] == []


def test_demo_fails_where_a_run_starts_over(tmp_path):
    """A resume at the wrong epoch is told, and makes the exit status 1."""
    broken = tmp_path / "examples"
    shutil.copytree(EXAMPLES, broken, ignore=shutil.ignore_patterns("__pycache__"))
    program = broken / "train_fit.py"
    text = program.read_text(encoding="utf-8")
    assert text.count('"backup")') == 1
    program.write_text(text.replace('"backup")', '"backup"), resume="never"'), encoding="utf-8")
    done = run_demo(broken)
    assert done.returncode == 1, done.stdout
    assert "wrong: went on at (0, 0), expected (2, 0)" in done.stdout


def test_demo_does_not_touch_a_directory_that_is_not_empty(tmp_path):
    """Whoever names the wrong directory loses nothing."""
    (tmp_path / "thesis.txt").write_text("three years")
    done = run_demo(EXAMPLES, "--directory", str(tmp_path))
    assert done.returncode == 2
    assert os.listdir(tmp_path) == ["thesis.txt"]

"""What fuzzing shares: one process that opens mutants, for all formats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_PATIENCE_S = 3600


@pytest.fixture(scope="session")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that opens mutants of a format; it says what was wrong, and that it lives."""
    folder = tmp_path_factory.mktemp("fuzz")
    running: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "worker.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def run(form: str, seed: int, first: int, count: int) -> dict[str, Any]:
        if not running or running[-1].poll() is not None:
            running.append(start())
        process = running[-1]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([form, seed, first, count]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            status = process.wait()
            at = (folder / "now").read_text(encoding="utf-8")
            return {"wrong": [[at, f"the process ended with status {status}"]], "done": 0}
        return dict(json.loads(line))

    yield run
    for process in running:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.wait(30)

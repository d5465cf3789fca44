"""What the tests of the command line share: the real command, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def keras_ckpt() -> Callable[..., Any]:
    """A function that runs `keras-ckpt` with arguments, as a shell does."""

    def run(*arguments: Any, **options: Any) -> Any:
        command = [sys.executable, "-m", "keras_ckpt_tools", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
            **options,
        )

    return run


@pytest.fixture
def cli() -> Callable[..., Any]:
    """A function that calls `keras-ckpt` with arguments in this process, without a terminal."""
    from click.testing import CliRunner

    from keras_ckpt_tools.cli import main

    def call(*arguments: Any, **options: Any) -> Any:
        done = CliRunner().invoke(main, [str(one) for one in arguments], **options)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return call

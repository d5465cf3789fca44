"""`keras-ckpt completion` gives a shell what it needs; tried in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_printed(cli, shell):
    """It calls this program, and not whatever the tests were started with."""
    done = cli("completion", shell)
    assert done.exit_code == 0
    assert f"_KERAS_CKPT_COMPLETE={shell}_complete" in done.stdout
    assert "keras-ckpt" in done.stdout
    assert cli("completion", "cmd").exit_code == 2


@pytest.mark.skipif(not shutil.which("bash"), reason="needs a bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["res"], ["resume-info"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["prune", "--keep-l"], ["--keep-last"]),
        (["prune", "run", "--mode", ""], ["min", "max"]),
    ],
)
def test_bash_completes(tmp_path, words, expected):
    """Commands, options and their values."""
    program = tmp_path / "keras-ckpt"
    program.write_text(f"#!{sys.executable}\nfrom keras_ckpt_tools.cli import main\nmain()\n")
    program.chmod(0o755)
    quoted = " ".join(f"'{word}'" for word in ["keras-ckpt", *words])
    script = (
        f'eval "$(keras-ckpt completion bash)"\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(words)}\n'
        "_keras_ckpt_completion keras-ckpt\nprintf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert done.stdout.split() == expected, done

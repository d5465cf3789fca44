"""No command that only reads imports Keras or TensorFlow; seen in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs_on_disk import manager_run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (["ls"], []),
        (["ls", "--json"], []),
        (["prune", "--keep-last", "1", "--dry-run"], ["numpy"]),
        (["resume-info"], ["numpy"]),
        (["resume-info", "--json"], ["numpy"]),
        (["completion", "bash"], []),
    ],
    ids=" ".join,
)
def test_command_imports_no_framework(tmp_path, arguments, loaded):
    """NumPy only where bytes of tensors are read, rich and h5py never."""
    if arguments[0] != "completion":
        arguments = [*arguments, str(manager_run(tmp_path, [1, 2, 3]))]
    code = (
        "import sys\nfrom keras_ckpt_tools.cli import main\n"
        f"try:\n    main({arguments!r})\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "found = {'keras', 'tensorflow', 'h5py', 'rich', 'numpy'} & set(sys.modules)\n"
        "print(); print(sorted(found))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == repr(loaded), done.stdout

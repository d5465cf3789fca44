"""What the recorder writes down is what the kernel is told: compared with `strace`, where it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torture.scenarios import SCENARIOS, Scenario

_PROGRAM = """
import os, sys
from torture.recorder import recording
from torture.scenarios import SCENARIOS

root = sys.argv[1]
save = SCENARIOS[int(sys.argv[2])].start(root)
save(1)
with recording(root) as recorder:
    os.access(root + "/begin", os.F_OK)
    save(2)
    os.access(root + "/end", os.F_OK)
for operation in recorder.trace:
    sys.stdout.write(f"{operation.kind} {len(operation.data)}\\n")
"""
_CALLS = (
    "access,open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,"
    "ftruncate,truncate,fallocate,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,"
    "unlinkat,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir"
)
_KINDS = {
    "write": "write",
    "pwrite64": "write",
    "ftruncate": "truncate",
    "fsync": "sync",
    "rename": "rename",
    "unlink": "unlink",
    "mkdir": "mkdir",
}


def _traced(root: Path, number: int) -> tuple[list[str], list[str]]:
    """Return what a save did, by the recorder and by the kernel."""
    log = root.parent / "strace.log"
    # `-y` writes the path of each descriptor beside it.
    strace = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-s", "0", "-e", f"trace={_CALLS}"]
    program = [sys.executable, "-c", _PROGRAM, str(root), str(number)]
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run(
        [*strace, "-o", str(log), *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **environment},
    )
    if not log.exists() or "PTRACE" in done.stderr:
        pytest.skip(f"strace may not be used here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if f"{root}/begin" in line)
    end = next(n for n, line in enumerate(lines) if f"{root}/end" in line)
    told = [_told(line, str(root)) for line in lines[begin + 1 : end]]
    return done.stdout.splitlines(), [line for line in told if line is not None]


def _told(line: str, root: str) -> str | None:
    found = re.match(r"\d+ +(\w+)\((.*)\) += (-?\d+)", line)
    if not found or root not in line or int(found[3]) < 0:
        return None
    call, arguments, result = found.groups()
    # A file that has no name is gone after any crash.
    if "(deleted)" in arguments or "O_TMPFILE" in arguments:
        return None
    if call in ("open", "openat"):
        return "create 0" if "O_CREAT" in arguments else None
    kind = _KINDS[call]
    if kind == "sync" and f"<{root}>" in arguments:
        kind = "sync_directory"
    return f"{kind} {result if kind == 'write' else 0}"


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("scenario", [SCENARIOS[0], SCENARIOS[2], SCENARIOS[6]], ids=str)
def test_the_recorder_sees_what_the_kernel_sees(
    scenario: Scenario, tmp_path: Path, long_form: bool
) -> None:
    """Every change of the file system, in the same order and of the same length."""
    if not long_form:
        pytest.skip("takes long; `make torture` does it")
    root = tmp_path / "run"
    root.mkdir()
    recorded, told = _traced(root, SCENARIOS.index(scenario))
    assert recorded == told
    assert len(recorded) > 5

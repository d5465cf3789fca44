"""What type checkers make of the package, from the user's side: mypy, and pyright where it is."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_ckpt_tools as kct

ROOT = Path(kct.__file__).parents[1]
PROGRAM = Path(__file__).with_name("user_view.py")
# As a user has it: Keras and TensorFlow say nothing about types.
MYPY = """
[mypy]
strict = True
follow_imports = silent
cache_dir = {cache}
[mypy-h5py.*,keras.*,numpy.*,tensorflow.*,xxhash.*]
ignore_missing_imports = True
follow_imports = skip
"""


def mistakes() -> list[int]:
    """Return the numbers of the lines that have to be errors."""
    lines = PROGRAM.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if "# type: ignore[" in line]


def unsilenced(folder: Path) -> Path:
    """Return the program without the comments that silence its mistakes."""
    path = folder / "program.py"
    text = PROGRAM.read_text(encoding="utf-8")
    path.write_text(re.sub(r"  # (type|pyright): ignore\[.*", "", text), encoding="utf-8")
    return path


def errors_of(checker: str, path: Path, tmp_path: Path) -> list[tuple[str, int]]:
    """Run a checker and return the file and line of each error."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    return {"mypy": _mypy, "basedpyright": _pyright}[checker](path, tmp_path)


def _mypy(path: Path, tmp_path: Path) -> list[tuple[str, int]]:
    config = tmp_path / "mypy.ini"
    config.write_text(MYPY.format(cache=tmp_path / "cache"))
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--no-error-summary"]
    done = subprocess.run(
        [*command, str(path)], capture_output=True, text=True, check=False, cwd=ROOT, timeout=300
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(.+?):(\d+): error", done.stdout, re.MULTILINE)
    return [(str((ROOT / name).resolve()), int(line)) for name, line in found]


def _pyright(path: Path, tmp_path: Path) -> list[tuple[str, int]]:
    settings = {
        "include": [str(path)],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "standard",
        "enableTypeIgnoreComments": False,
        "reportUnnecessaryTypeIgnoreComment": "error",
        "reportUnusedExpression": "error",
        "reportMissingImports": "none",
        "pythonVersion": "3.11",
    }
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(project)]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == 1
    return [
        (str(Path(one["file"]).resolve()), one["range"]["start"]["line"] + 1)
        for one in found["generalDiagnostics"]
        if one["severity"] == "error"
    ]


@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_a_program_of_a_user_is_typed(checker: str, tmp_path: Path) -> None:
    """What is right passes with the right types, and no comment silences what is no error."""
    assert errors_of(checker, PROGRAM, tmp_path) == []


@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_a_mistake_of_a_user_is_found(checker: str, tmp_path: Path) -> None:
    """Each line that is wrong is an error, and no other one."""
    found = errors_of(checker, unsilenced(tmp_path), tmp_path)
    assert sorted({line for _, line in found}) == mistakes()


def test_the_package_says_that_it_is_typed() -> None:
    """Without `py.typed` in what is installed, checkers pass over all annotations."""
    from setuptools.config.setupcfg import read_configuration

    assert (Path(kct.__file__).parent / "py.typed").exists()
    assert (
        "py.typed"
        in read_configuration(ROOT / "setup.cfg")["options"]["package_data"]["keras_ckpt_tools"]
    )

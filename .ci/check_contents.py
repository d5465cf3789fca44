"""Look at what would be published: the sdist is the repository, the wheel is the package alone.

Whoever packages this for a distribution runs the tests from the sdist, so it has all of them, with
their data. Whoever installs the wheel gets what is imported, and nothing of the tests.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

PACKAGE = "keras_ckpt_tools"
ROOT = Path(__file__).parents[1]
# Of use in a clone only.
LEFT_OUT = {".gitignore"}
# Written by the build.
ADDED = {"PKG-INFO"}


def version() -> str:
    """Return the version, from the one place where it is."""
    source = (ROOT / PACKAGE / "_version.py").read_text(encoding="utf-8")
    (assigned,) = (node for node in ast.parse(source).body if isinstance(node, ast.Assign))
    return str(ast.literal_eval(assigned.value))


def complaints(folder: Path) -> Iterable[str]:
    """Yield what is wrong, as sentences."""
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    for built in (sdist, wheel):
        if not built.name.startswith(f"{PACKAGE}-{version()}"):
            yield f"{built.name} is not of version {version()}."
    with tarfile.open(sdist) as archive:
        members = {
            member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()
        }
    members = {name for name in members if f"{PACKAGE}.egg-info" not in name}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    repository = set(tracked.stdout.splitlines()) - LEFT_OUT
    for name in sorted(repository - members):
        yield f"The sdist lacks {name}: add it to MANIFEST.in."
    for name in sorted(members - repository - ADDED):
        yield f"The sdist has {name}, which is not in the repository."
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    package = {name for name in members if name.startswith(f"{PACKAGE}/")}
    for name in sorted(names ^ package):
        where = "the wheel and not in the sdist" if name in names else "the sdist and not the wheel"
        yield f"{name} is in {where}."
    if f"{PACKAGE}/py.typed" not in names:
        yield "The wheel lacks py.typed, so type checkers ignore its annotations."
    if not licences:
        yield "The wheel lacks the license."


if __name__ == "__main__":
    found = list(complaints(Path(sys.argv[1])))
    print("\n".join(found) or "sdist and wheel hold what they should.")
    sys.exit(bool(found))

"""What says the same thing in several places says the same thing."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import keras_ckpt_tools as kct

ROOT = Path(kct.__file__).parents[1]
TEXTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile", "README.md")
}


def declared(key: str) -> str:
    """Return what `setup.cfg` says of the package under a key."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser["metadata"][key]


def cited(key: str) -> str:
    """Return what `CITATION.cff` says under a key."""
    found = re.search(rf"^{key}: (.+)$", TEXTS["CITATION.cff"], re.MULTILINE)
    assert found, f"CITATION.cff has no {key}"
    return found[1]


def test_the_version_is_the_same_everywhere() -> None:
    """It is in `_version.py`; what cannot ask there repeats it."""
    assert declared("version") == "attr: keras_ckpt_tools._version.__version__"
    assert cited("version") == kct.__version__
    newest = re.search(r"^## \[(.+?)\]", TEXTS["CHANGELOG.md"], re.MULTILINE)
    assert newest
    assert newest[1] in (kct.__version__, "Unreleased")


def test_the_package_is_described_in_the_same_words() -> None:
    """On its page, where it is cited, and where it is installed from."""
    description = declared("description")
    assert cited("abstract") == description
    assert cited("title") == declared("name") == kct.__name__
    title, _, line, *_ = TEXTS["README.md"].splitlines()
    assert title == f"# {kct.__name__}"
    assert line == description.replace("Keras custom objects", "Custom objects")


def test_the_license_is_the_same_everywhere() -> None:
    """A package with two licenses has none that anybody can rely on."""
    assert cited("license") == declared("license") == "Apache-2.0"
    assert "\nApache-2.0." in TEXTS["README.md"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


def test_contributing_names_commands_that_there_are() -> None:
    """A newcomer who copies a line from it gets what it says."""
    targets = set(re.findall(r"^([a-z-]+):", TEXTS["Makefile"], re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", TEXTS["CONTRIBUTING.md"]))
    assert named
    assert named <= targets
    paths = re.findall(
        r"`((?:tests|docs|keras_ckpt_tools|benchmarks)/[\w./-]+)`", TEXTS["CONTRIBUTING.md"]
    )
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []

"""Run the sections of docs/errors.md: each first block has to fail as its heading says.

All of them in one process, because importing TensorFlow for each would take a minute; each in a
namespace and a directory of its own. Prints one JSON object: what each section gave.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

SECTION = re.compile(r"^### (.+?)$\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections(text: str) -> dict[str, list[str]]:
    """Return the blocks of each section by its heading."""
    # A heading is also found inside a block that has a comment of that form; ours have none.
    return {title: BLOCK.findall(body) for title, body in SECTION.findall(text)}


def main(page: Path) -> dict[str, dict[str, Any]]:
    """Return, for each section, what its first block said, and what went wrong in its second."""
    text = page.read_text(encoding="utf-8")
    preamble = BLOCK.findall(text[: text.index("\n## ")])
    given: dict[str, dict[str, Any]] = {}
    for title, (provoke, cure) in sections(text).items():
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
            namespace: dict[str, Any] = {"__name__": "reader"}
            exec("".join(preamble), namespace)
            given[title] = {"said": _said(provoke, namespace), "wrong": _wrong(cure, namespace)}
            os.chdir("/")
    return given


def _said(code: str, namespace: dict[str, Any]) -> str:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            exec(code, namespace)
        except Exception as error:  # noqa: BLE001 (it is what the section is about)
            return f"{type(error).__name__}: {error}"
    return "\n".join(str(one.message) for one in told)


def _wrong(code: str, namespace: dict[str, Any]) -> str:
    try:
        exec(code, namespace)
    except Exception:  # noqa: BLE001 (it is reported)
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")

"""Run the Python examples of a Markdown file as a reader would: copied, section by section.

The blocks of one section (from one `## ` heading to the next) are one program, run in order in a
fresh interpreter and an empty directory. A block that fails is reported with its line in the file.
It needs nothing but Python, so that `make check-install` can run it in an environment which has
only the package: `python readme_blocks.py README.md`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^##? +(.+?)[ #]*$", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """The examples below one heading, padded so that line numbers are those of the file."""

    title: str
    code: str


def sections(text: str) -> list[Section]:
    """Return the sections of a Markdown text that have ```python blocks."""
    blocks = [(match.start(1), match.group(1)) for match in BLOCK.finditer(text)]
    # A `# comment` inside a block of any language is no heading.
    prose = re.sub(
        r"^```.*?^```", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.M | re.S
    )
    headings = [(match.start(), match.group(1)) for match in HEADING.finditer(prose)]
    found = []
    for index, (start, title) in enumerate(headings):
        end = headings[index + 1][0] if index + 1 < len(headings) else len(text)
        code = ""
        for position, block in blocks:
            if start <= position < end:
                code += "\n" * (text.count("\n", 0, position) - code.count("\n")) + block
        if code:
            found.append(Section(title, code))
    return found


def run(section: Section, name: str) -> subprocess.CompletedProcess[str]:
    """Run one section in a fresh interpreter and an empty directory."""
    with tempfile.TemporaryDirectory() as place:
        program = Path(place, "program", name)
        program.parent.mkdir()
        program.write_text(section.code, encoding="utf-8")
        empty = Path(place, "empty")
        empty.mkdir()
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        return subprocess.run(
            [sys.executable, str(program)],
            cwd=empty,
            env={**os.environ, **quiet},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )


def main(path: str) -> int:
    """Run all sections of a file and print a line for each; return the exit status."""
    found = sections(Path(path).read_text(encoding="utf-8"))
    failed = 0
    for section in found:
        done = run(section, Path(path).name)
        print("passed" if done.returncode == 0 else "FAILED", section.title, flush=True)
        if done.returncode != 0:
            failed += 1
            print(done.stdout)
    print(f"{path}: {len(found)} sections with examples, {failed} failed")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

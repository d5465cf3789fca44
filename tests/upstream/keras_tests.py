"""Keras' own tests, as the installed Keras carries them: read, edited, executed.

Their source stays where it is, with its licence: it is read when a test runs, and a release that
comes without its tests is skipped. An edit changes what one of them expects, where we do something
else than Keras on purpose. It has to be found exactly once, so that a release which changes that
place makes a test fail.
"""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import keras
import pytest

INSTALLED = Path(keras.__file__).parent / "src"
ROWS = Path(__file__).parents[2] / "docs" / "differences.md"


@dataclass(frozen=True)
class Edit:
    """A place in one of Keras' tests where we do something else than Keras, on purpose.

    Attributes:
        file: The file of tests, below `keras/src`.
        test: The method that the place is in.
        original: What Keras expects there.
        replacement: What is expected of us.
        row: The row of docs/differences.md that says why.
    """

    file: str
    test: str
    original: str
    replacement: str
    row: str

    def __str__(self) -> str:
        return f"{self.test}-{self.row}"


class Case(NamedTuple):
    """One method of a file of tests; its variants, where it has parameters, are run together."""

    file: str
    cases: str
    test: str

    def __str__(self) -> str:
        return f"{self.cases}-{self.test}"


def source(file: str) -> tuple[Path, str]:
    """Return where a file of Keras' tests is, and its text."""
    path = INSTALLED / file
    if not path.exists():
        pytest.skip(f"Keras {keras.__version__} was installed without its tests")
    return path, path.read_text(encoding="utf-8")


def cases_in(file: str) -> list[Case]:
    """Return the methods of a file of Keras' tests; none where it was installed without them."""
    if not (INSTALLED / file).exists():
        return []
    tree = ast.parse((INSTALLED / file).read_text(encoding="utf-8"))
    return [
        Case(file, kind.name, method.name)
        for kind in tree.body
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef) and method.name.startswith("test_")
    ]


@functools.cache
def _compiled(file: str, edits: tuple[Edit, ...]) -> Any:
    path, text = source(file)
    for edit in edits:
        text = text.replace(edit.original, edit.replacement)
    return compile(text, str(path), "exec")


def executed(file: str, edits: Iterable[Edit] = ()) -> ModuleType:
    """Execute a file of Keras' tests with some edits, anew each time: it registers its objects."""
    module = ModuleType(f"keras_{Path(file).stem}")
    module.__file__ = str(INSTALLED / file)
    exec(_compiled(file, tuple(edit for edit in edits if edit.file == file)), vars(module))
    return module


def variants_of(module: ModuleType, case: Case) -> list[Any]:
    """Return a method as test cases that can be run: one, or one for each set of parameters."""
    kind = getattr(module, case.cases)
    others = {other.test for other in cases_in(case.file) if other.cases == case.cases}
    names = [name for name in dir(kind) if _method_of(name, others) == case.test]
    return [kind(name) for name in sorted(names)]


def _method_of(name: str, methods: Iterable[str]) -> str:
    """Return which method a variant is of: the longest that its name begins with."""
    return max((method for method in methods if name.startswith(method)), key=len, default="")


def reason_to_skip(case: Any) -> str | None:
    """Return why Keras' own marks leave a test case out here, or `None`."""
    method = getattr(case, case._testMethodName)
    marks = itertools.chain(
        getattr(type(case), "pytestmark", ()), getattr(method, "pytestmark", ())
    )
    for mark in marks:
        if mark.name == "skipif" and mark.args[0]:
            return str(mark.kwargs.get("reason", "skipped by Keras"))
    return None


def found_once_in_its_test(edit: Edit) -> bool:
    """Return whether the place of an edit is in Keras' source exactly once, in that test."""
    _, text = source(edit.file)
    before = text[: text.find(edit.original)]
    method = before.rpartition("    def test_")[2]
    return text.count(edit.original) == 1 and method.startswith(
        edit.test.removeprefix("test_") + "("
    )


def is_explained(row: str) -> bool:
    """Return whether docs/differences.md has a row of this name."""
    return f"| **{row}** |" in ROWS.read_text(encoding="utf-8")

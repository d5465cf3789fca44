"""How long the torture takes, and what it says at its end.

`make test` runs a short form of each test, `make torture` the long one. Seeds are fixed, so a
failure comes again; `KCT_TORTURE_SEED` chooses another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

_TOLD = "torture"


@pytest.fixture
def long_form() -> bool:
    """Whether there is time."""
    return bool(os.environ.get("KCT_TORTURE"))


@pytest.fixture
def seed() -> int:
    """The seed of all that is drawn."""
    return int(os.environ.get("KCT_TORTURE_SEED", "20"))


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """A function that puts a line into the summary."""
    return lambda line: record_property(_TOLD, line)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how much was tried."""
    lines = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == _TOLD
    ]
    if lines:
        terminalreporter.section("torture")
        for line in lines:
            terminalreporter.write_line(line)

"""What the tests of hostile artefacts share: one judge, and a place for what is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def judge() -> Iterator[Any]:
    """A process that opens artefacts; a new one whenever one takes it down."""
    from hostile.trial import Judge

    judge = Judge()
    yield judge
    judge.close()


@pytest.fixture
def refused(judge: Any, tmp_path: Path) -> Callable[[str], None]:
    """A function that puts an artefact before the judge and asserts that it is refused."""
    from hostile.parts import CORPUS
    from hostile.trial import OURS, tried
    from hostile.verdicts import refused_as_what_it_is

    def check(name: str) -> None:
        # What does not concern weights need not be opened for them.
        calls = OURS if CORPUS[name].weights else OURS[:2]
        refused_as_what_it_is(CORPUS[name], tried(judge, CORPUS[name], tmp_path, calls))

    return check

"""What must be true of whatever becomes of a hostile artefact."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hostile.parts import Artefact

SECONDS = 10.0
MEGABYTES = 256


def harmless(artefact: Artefact, call: str, answer: Mapping[str, Any]) -> None:
    """Assert that a call did nothing but answer, soon and within its budget."""
    where = f"{artefact.name}, {call}: {answer}"
    assert answer["outcome"] not in ("died", "hung"), where
    assert answer["ours"], where
    message = answer.get("message", "")
    assert all(c.isprintable() or c == "\n" for c in message), f"{where} is not escaped"
    assert not answer["noticed"], where
    assert not answer.get("leaked"), where
    assert answer["seconds"] < SECONDS, where
    assert answer["megabytes"] < MEGABYTES, where


def refused_as_what_it_is(artefact: Artefact, answers: Mapping[str, Mapping[str, Any]]) -> None:
    """Assert that it is reported and refused, in words that say what is wrong with it."""
    for call, answer in answers.items():
        harmless(artefact, call, answer)
        if call == "load_weights" and not artefact.weights:
            continue  # What is wrong does not concern weights.
        if call == "inspect" and not artefact.inspected and answer["outcome"] == "good":
            continue
        if artefact.loads and answer["outcome"] in ("good", "loaded"):
            continue
        expected = ("reported", "refused") if call == "inspect" else ("refused",)
        assert answer["outcome"] in expected, f"{artefact.name}, {call}: {answer}"
        said = answer["message"]
        assert re.search(artefact.says, said, re.IGNORECASE), f"{artefact.name}, {call}: {said}"

"""docs/security.md says of every artefact what became of it, with stock Keras and here."""

from __future__ import annotations

import re
from pathlib import Path

from hostile.parts import CORPUS
from hostile.stock import outcome
from hostile.trial import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
_ROW = re.compile(r"^\| `([a-z0-9]+/[a-z0-9_-]+)` \|(.*)\|$", re.MULTILINE)


def rows() -> dict[str, list[str]]:
    """Return the cells of each row of the table, by artefact."""
    found = _ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len({name for name, _ in found}) == len(found), "a row is there twice"
    return {name: [c.strip() for c in re.split(r"(?<!\\)\|", cells)] for name, cells in found}


def test_table_has_one_row_for_each_artefact():
    """None is left out because of what became of it."""
    assert set(rows()) == set(CORPUS)


def test_table_describes_each_artefact_and_has_an_outcome_in_every_column():
    """For both versions of stock Keras, and for ours."""
    for name, (what, *outcomes) in rows().items():
        assert what == CORPUS[name].what
        assert len(outcomes) == 3, name
        assert all(re.match(r"refused|loaded|\*\*", cell) for cell in outcomes), (name, outcomes)


def test_our_column_has_refusals_and_what_does_no_harm():
    """What the tests assert here is what the page says."""
    for name, (*_, ours) in rows().items():
        expected = ("refused", "loaded") if CORPUS[name].loads else ("refused",)
        assert ours.startswith(expected), (name, ours)
        assert "**" not in ours, (name, ours)


def test_corpus_has_every_class_and_no_artefact_twice():
    """Hundreds of artefacts, in each of the classes of attack."""
    assert len(CORPUS) >= 300
    assert set(FAMILIES) == {"disguise", "zip", "json", "hdf5", "config", "assets", "size", "path",
                             "version", "record"}  # fmt: skip


def test_outcome_is_told_in_the_words_of_the_table():
    """What a judge noticed is what the table says in bold."""
    plain = {"outcome": "loaded", "noticed": [], "seconds": 0.1, "megabytes": 1}
    assert outcome(plain) == "loaded"
    assert outcome({**plain, "outcome": "refused", "error": "OSError"}) == "refused (OSError)"
    assert outcome({"outcome": "died", "error": "SIGSEGV"}) == "**the process died** (SIGSEGV)"
    assert outcome({"outcome": "hung"}) == "**hung**"
    assert outcome({**plain, "noticed": ["new file in/marker"]}) == "loaded, **the payload ran**"
    assert outcome({**plain, "leaked": ["read a secret"]}) == "loaded, **read another file**"
    assert outcome({**plain, "megabytes": 999}) == "loaded, **999 MB**"

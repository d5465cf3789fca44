"""Mutants of every format go through `inspect` and `safe_load_model`: only our errors come out.

`KCT_FUZZ` says how many mutants there are in all, `KCT_FUZZ_SEED` which; `make fuzz` takes many,
and others each time. A mutant that fails is named by its format, seed and number, and
`fuzz.mutation.mutant` makes it again.
"""

from __future__ import annotations

import os
import random

import pytest
from fuzz.mutation import FORMATS, mutant

MUTANTS = int(os.environ.get("KCT_FUZZ", "20000"))
SEED = int(os.environ.get("KCT_FUZZ_SEED", "20"))
COUNTS = {form: max(1, round(MUTANTS * share)) for form, (_, share) in FORMATS.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_mutants_give_our_errors_and_nothing_else(form, fuzz):
    """The process lives, no other exception comes out, nothing stays behind."""
    answer = fuzz(form, SEED, 0, COUNTS[form])
    assert not answer["wrong"], f"seed {SEED}: {answer}"
    assert answer["done"] == COUNTS[form]


def test_all_formats_together_are_as_many_as_was_asked_for():
    """The shares add up."""
    assert sum(COUNTS.values()) >= MUTANTS - len(COUNTS)


def test_mutant_is_made_again_from_its_number():
    """Otherwise a failure could not be looked into."""
    for form in FORMATS:
        assert mutant(form, 1, 5) == mutant(form, 1, 5)


def test_mutants_differ():
    """A mutator that changes nothing finds nothing."""
    for form in FORMATS:
        made = {mutant(form, 1, number)[1] for number in range(40)}
        assert len(made) > 20, form
    assert random.Random("a").random() == random.Random("a").random()

"""Configs of every class that Keras has, with odd things in odd places: only our errors come out.

A file of its own, so that it runs beside the mutants. `KCT_FUZZ` and `KCT_FUZZ_SEED` count here as
they do there.
"""

from __future__ import annotations

import json
import random
import zipfile

import keras_catalogue
import pytest
from fuzz.grammar import grammar
from fuzz.test_fuzz import MUTANTS, SEED

PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_odd_configs_of_real_objects_give_our_errors_and_nothing_else(part, fuzz):
    """Nothing untrusted is imported, and none takes a gigabyte or ten seconds."""
    count = MUTANTS // PARTS
    answer = fuzz("grammar", SEED, part * count, count)
    assert not answer["wrong"], f"seed {SEED}: {answer}"
    assert answer["done"] == count
    assert set(answer["outcomes"]) == {"loaded", "refused"}  # Otherwise it would test one half.


def test_grammar_reaches_every_class_of_keras(tmp_path):
    """What the grammar never makes, it never tests."""
    seen = set()
    for number in range(1500):
        path = tmp_path / "model.keras"
        path.write_bytes(grammar(random.Random(f"reach {number}"))[1])
        with zipfile.ZipFile(path) as archive:
            seen |= _names_in(json.loads(archive.read("config.json")))
    every = {name for group in keras_catalogue.classes().values() for name in group}
    assert not every - seen


def _names_in(tree: object) -> set[str]:
    if isinstance(tree, dict):
        own = {tree["class_name"]} if isinstance(tree.get("class_name"), str) else set()
        return own.union(*map(_names_in, tree.values()))
    return set().union(*map(_names_in, tree)) if isinstance(tree, list) else set()

"""KerasTuner with both callbacks: a search that is killed finds what one finds that is not."""

from __future__ import annotations

import os

import processes
import pytest
from resumed import tuning

pytest.importorskip("keras_tuner")

LONG = bool(os.environ.get("KCT_TORTURE"))
BATCHES = {"RandomSearch": 3 * 4 * 4, **({"Hyperband": 90} if LONG else {})}
"""How many batches a search has at least, in all of its trials."""


@pytest.mark.parametrize("kind", BATCHES)
def test_killed_search_finds_the_same_trials_and_scores(kind, tmp_path):
    """In a tuner, one directory has the backups of many models: each has its own score."""
    uncut = processes.run(tuning.search, str(tmp_path / "uncut"), kind)
    assert {status for _, status, _, _ in uncut} == {"COMPLETED"}
    step = 3 if LONG else BATCHES[kind] // 2
    for last in range(step - 1, BATCHES[kind], step):
        cut = str(tmp_path / f"cut-{last}")
        processes.run_killed(tuning.search, cut, kind, last)
        assert processes.run(tuning.search, cut, kind) == uncut, last

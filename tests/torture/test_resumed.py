"""Whole programs, killed at random instants and started again, end as if nobody had killed them.

Weights, optimizers, metrics, history, the logs of each batch, and all files are compared with those
of the same program left alone: on a CPU, with deterministic ops, bit for bit.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from resumed import loops, programs
from resumed.killing import Case, differences, run_killed, run_whole
from sklearn.datasets import load_digits

_ALL = programs.EPOCHS * programs.BATCHES
CASES = {
    "fit, ArrayDataset": Case(programs.array_dataset, _ALL, 3),
    "fit, ArrayDataset, in the background": Case(programs.array_dataset, _ALL, 2, background=True),
    "fit, seeded tf.data": Case(programs.seeded_pipeline, _ALL, 4, signals=True),
    "fit, kct.data.resumable": Case(programs.resumable_pipeline, _ALL, 3),
    "fit, everything with state": Case(programs.everything, _ALL, 3),
    "fit, steps_per_epoch": Case(programs.repeated, _ALL, 3, background=True, signals=True),
    "fit, steps_per_execution": Case(programs.executed_together, _ALL, 4),
    "fit, LoRA": Case(programs.adapters, _ALL, 3),
    "fit, VAE without call": Case(programs.autoencoder, _ALL, 4),
    "fit, GAN": Case(programs.adversaries, _ALL, 2),
    "fit, phases": Case(programs.phases, _ALL, 3),
    "fit, phases without names": Case(programs.counted_phases, _ALL, 5),
    "GradientTape": Case(loops.tape_loop, _ALL, 3, signals=True),
    "GradientTape, saved by hand": Case(loops.saved_by_hand, _ALL, 4),
    "GAN": Case(loops.adversaries, _ALL, 2, background=True),
    "steps": Case(loops.accumulating_steps, _ALL, 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_killed_program_ends_as_an_uninterrupted_one(
    name: str, tmp_path: Path, long_form: bool, seed: int, tell: Callable[[str], None]
) -> None:
    """However often it is killed, and wherever; and no more is trained again than has to be."""
    case, chosen, wanted = CASES[name], random.Random(f"{seed}, {name}"), 25 if long_form else 3
    digits = load_digits()
    data = (digits.images / 16.0).astype("float32")[:240, ..., None], digits.target[:240]
    whole = run_whole(case, tmp_path / "whole", data)
    assert whole.repeated == 0
    runs = []
    while sum(run.kills for run in runs) < wanted:
        left = wanted - sum(run.kills for run in runs)
        runs.append(run_killed(case, tmp_path / f"killed-{len(runs)}", data, left, chosen))
        assert differences(whole, runs[-1]) == []
    epochs = sum((run.epochs for run in runs), Counter())
    tell(
        f"{name}: {sum(epochs.values())} kills (seed {seed}; by epoch "
        f"{', '.join(str(epochs[epoch]) for epoch in range(programs.EPOCHS))}), "
        f"{sum(run.in_saves for run in runs)} in a save, "
        f"{sum(run.before_batches for run in runs)} before a batch, "
        f"{sum(run.signalled for run in runs)} by SIGTERM; {len(runs)} runs, "
        f"{sum(run.repeated for run in runs)} batches repeated, 0 differences"
    )

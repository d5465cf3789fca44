"""Runs to draw, written without Keras: small files of ours with the records that a run leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
from hostile.records import our_weights
from pictures.records import progress_after

from keras_ckpt_tools.metadata import TrainingProgress


@pytest.fixture
def write() -> Callable[..., Path]:
    """A function that writes one checkpoint of a run, with what its record says."""

    def one(path: Path, progress: TrainingProgress | dict[str, Any], **more: Any) -> Path:
        said = progress if isinstance(progress, dict) else progress.to_json()

        def edit(record: dict[str, Any]) -> None:
            record.update({"kind": "checkpoint", "progress": said, **more})

        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(our_weights(edit))
        return path

    return one


@pytest.fixture
def run(tmp_path: Path, write: Callable[..., Path]) -> Path:
    """A run of eight epochs that kept its fourth, seventh and eighth checkpoint of eight."""
    folder = tmp_path / "digits"
    for number in (4, 7, 8):
        restarts = tuple(
            (*place, 1_700_000_000.0) for place in ((2, 0, 20), (5, 3, 53)) if place[0] < number
        )
        write(
            folder / f"ckpt-{number:08d}.weights.h5",
            progress_after(number, restarts=restarts),
            objects=[{"registered_name": "shop>Price", "module": "shop.layers"}],
            tracked={"model": {"kind": "model"}, "_loop": {"kind": "run"}},
        )
    return folder


@pytest.fixture
def infinite() -> TrainingProgress:
    """A run with a hole in its loss."""
    losses = (0.5, math.nan, 0.3, 0.2, math.inf, 0.1)
    return TrainingProgress(
        epochs_completed=6,
        step=60,
        history={"loss": losses},
        history_epochs={"loss": tuple(range(6))},
        saves=((1, 0, 10, 5, 1, 0, 10),),
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[chromium.Chromium]:
    """A headless Chromium, one for all tests."""
    binary = chromium.find()
    if binary is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium): the page is not seen")
    with chromium.Chromium(binary) as opened:
        yield opened

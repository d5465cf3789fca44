"""Bits are flipped and files cut off, at random: none is ever taken for a whole one.

A flip is put into the file in place and taken back after it was looked for, so that thousands fit
into a second. Most are looked for by opening and verifying; some by what a user does, which is
to load.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.training.writing import save_model

_FORMATS = (".keras", ".weights.h5", ".h5")


def _model(suffix: str) -> keras.Model:
    """Return a trained model; where the format can hold one, with a vocabulary."""
    if suffix == ".keras":
        words = keras.Input((1,), dtype="string")
        layer = keras.layers.StringLookup(vocabulary=["one", "two", "three"])
        inner = keras.layers.Embedding(8, 4)(layer(words))
        model = keras.Model(words, keras.layers.Dense(2)(keras.layers.Flatten()(inner)))
        model.compile("adam", keras.losses.MeanSquaredError())
        x: Any = __import__("tensorflow").constant([["one"], ["two"]])
    else:
        model = keras.Sequential(
            [keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(2, dtype="float32")]
        )
        model.compile("adam", keras.losses.MeanSquaredError())
        x = np.ones((2, 8), "float32")
    model.fit(x, np.ones((2, 2), "float32"), verbose=0)
    return model


def _saved(folder: Path, suffix: str) -> tuple[keras.Model, Path]:
    model, path = _model(suffix), folder / f"model{suffix}"
    save_model(str(path), model, TrainingProgress(epochs_completed=3), suffix)  # type: ignore[arg-type]
    return model, path


@contextmanager
def _flipped(path: Path, bit: int) -> Iterator[None]:
    file = os.open(path, os.O_RDWR)
    try:
        place, mask = bit // 8, 1 << bit % 8
        before = os.pread(file, 1, place)
        os.pwrite(file, bytes([before[0] ^ mask]), place)
        yield
        os.pwrite(file, before, place)
    finally:
        os.close(file)


def _passes(path: Path) -> bool:
    try:
        with open_source(path) as source:
            return not source.verify()
    except kct.errors.CkptError:
        return False


def _loads(path: Path, model: keras.Model) -> bool:
    try:
        if path.name.endswith(".weights.h5"):
            kct.load_weights(model, path)
        else:
            kct.safe_load_model(path)
    except kct.errors.CkptError:
        return False
    return True


def _shares(amount: int) -> Iterator[tuple[str, int]]:
    for index, suffix in enumerate(_FORMATS):
        yield suffix, amount // len(_FORMATS) + (index < amount % len(_FORMATS))


def test_no_flipped_bit_passes(
    tmp_path: Path, long_form: bool, seed: int, tell: Callable[[str], None]
) -> None:
    """Anywhere in a file: record, skeleton, data, zip headers, documents, vocabularies, seal."""
    chosen, amount, loads = random.Random(seed), 10_000 if long_form else 1_000, 0
    for suffix, flips in _shares(amount):
        model, path = _saved(tmp_path, suffix)
        before = [np.asarray(weight) for weight in model.weights]
        whole = path.read_bytes()
        assert _passes(path)
        assert _loads(path, model)
        for number in range(flips):
            bit = chosen.randrange(len(whole) * 8)
            with _flipped(path, bit):
                assert not _passes(path), f"{suffix}: byte {bit // 8}, bit {bit % 8}"
                if number % 20 == 0:
                    loads += 1
                    assert not _loads(path, model), f"{suffix}: byte {bit // 8}, bit {bit % 8}"
        assert path.read_bytes() == whole
        assert all(
            np.array_equal(weight, value)
            for weight, value in zip(model.weights, before, strict=True)
        )
    tell(f"{amount:,} flipped bits (seed {seed}), {loads:,} of them loaded: none passed")


def test_no_truncation_passes(
    tmp_path: Path, long_form: bool, seed: int, tell: Callable[[str], None]
) -> None:
    """At any length, and also where zeros fill the file up to its old one."""
    chosen, amount, loads = random.Random(seed), 1_000 if long_form else 100, 0
    for suffix, cuts in _shares(amount):
        model, path = _saved(tmp_path, suffix)
        whole = path.read_bytes()
        for number in range(cuts):
            length = chosen.randrange(len(whole))
            path.write_bytes(whole[:length])
            if number % 4 == 3 and whole[length:].strip(b"\0"):
                os.truncate(path, len(whole))
            assert not _passes(path), f"{suffix}: cut off at {length}"
            if number % 10 == 0:
                loads += 1
                assert not _loads(path, model), f"{suffix}: cut off at {length}"
        path.write_bytes(whole + b"x")
        assert not _passes(path), f"{suffix}: with a byte too many"
    tell(f"{amount:,} truncations (seed {seed}), {loads:,} of them loaded: none passed")


@pytest.mark.parametrize("suffix", _FORMATS)
def test_every_bit_of_a_files_first_and_last_bytes_counts(
    suffix: str, tmp_path: Path, long_form: bool
) -> None:
    """Where a reader decides whose file it is: no flip there switches the checks off."""
    _, path = _saved(tmp_path, suffix)
    size, edge = path.stat().st_size, 600 * 8 if long_form else 12 * 8
    for bit in (*range(edge), *range(size * 8 - edge, size * 8)):
        with _flipped(path, bit):
            assert not _passes(path), f"byte {bit // 8}, bit {bit % 8}"


def test_a_directory_falls_back_to_the_newest_whole_checkpoint(
    tmp_path: Path, long_form: bool, seed: int, tell: Callable[[str], None]
) -> None:
    """And says which one it passed over."""
    chosen, amount = random.Random(seed), 200 if long_form else 20
    directory = tmp_path / "run"
    weight = __import__("tensorflow").Variable([0.0] * 50)
    manager = kct.CheckpointManager(directory, weight=weight)
    for value in (1.0, 2.0):
        weight.assign([value] * 50)
        manager.save()
    older, newer = manager.checkpoints
    copy = shutil.copyfile(newer, tmp_path / "copy")
    for _ in range(amount):
        bit = chosen.randrange(os.path.getsize(newer) * 8)
        with _flipped(Path(newer), bit):
            again = kct.CheckpointManager(directory, weight=weight)
            with pytest.warns(UserWarning, match="skipped damaged") as told:
                assert again.restore_or_initialize() == older
            assert newer in str(told[0].message)
            assert float(weight[0]) == 1.0
    assert Path(newer).read_bytes() == copy.read_bytes()
    tell(f"{amount} damaged newest checkpoints: each passed over, and named")

"""Which file of a directory is best or newest is what the records say."""

from __future__ import annotations

import os

import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    DamagedArtefactError,
)
from keras_ckpt_tools.metadata import TrainingProgress


@pytest.mark.parametrize(("which", "epoch"), [("best", 1), ("latest", 3), (0, 0), (2, 2)])
def test_directory_opens_the_model_that_was_asked_for(which, epoch, run):
    """By what the records say, whatever the files are called; best is the default."""
    model = kct.safe_load_model(run, which=which)
    assert kct.training_progress(model).epochs_completed == epoch + 1


def test_damaged_files_are_passed_over_and_named(run):
    """The next best is loaded; an epoch that was asked for is not replaced by another."""
    best = run / "model-8.keras"
    os.truncate(best, best.stat().st_size - 100)
    with pytest.warns(UserWarning, match="skipped damaged files: model-8.keras: truncated"):
        model = kct.safe_load_model(run)
    assert kct.training_progress(model).epochs_completed == 3
    newest = run / "model-6.keras"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    with pytest.warns(UserWarning, match="model-6.keras"):
        model = kct.safe_load_model(run, which="latest")
    assert kct.training_progress(model).epochs_completed == 3
    with pytest.raises(ArgumentError, match=r"Available epochs: 0, 2, 3\."):
        kct.safe_load_model(run, which=1)
    with pytest.raises(DamagedArtefactError):
        kct.safe_load_model(run, which=3)


def test_directory_without_a_monitored_metric_has_no_best(tmp_path, build_cnn, save_ours):
    """The error names what can be asked for instead."""
    save_ours(build_cnn(), tmp_path / "a.keras", TrainingProgress(epochs_completed=2))
    with pytest.raises(ArgumentError, match=r'Pass `which="latest"`, or an epoch: 1\.'):
        kct.safe_load_model(tmp_path)
    kct.safe_load_model(tmp_path, which="latest")


@pytest.mark.parametrize("which", ["newest", -1, True, 1.5])
def test_which_takes_its_values_only(which, run):
    """Anything else is an error that lists them."""
    with pytest.raises(ArgumentError, match=r'Pass "best", "latest" or a zero-based epoch'):
        kct.safe_load_model(run, which=which)


def test_directory_of_stock_models_asks_for_one_of_them(tmp_path, build_cnn, save):
    """Without records nothing says which is meant."""
    save(build_cnn(), tmp_path / "a.keras")
    with pytest.raises(ArtefactKindError, match=r"Pass one of its files: 'a\.keras'"):
        kct.safe_load_model(tmp_path)


def test_directory_of_damaged_models_says_so(run):
    """All of them are named."""
    for path in run.glob("*.keras"):
        os.truncate(path, 100)
    with pytest.raises(DamagedArtefactError, match=r"model-6\.keras: .*; model-7\.keras: "):
        kct.safe_load_model(run)


def test_damage_is_told_with_one_full_stop(run):
    """Also where an error had one already: that of a record with changed bytes."""
    path = run / "model-7.keras"
    data = bytearray(path.read_bytes())
    data[data.index(b'"progress"') + 1] ^= 1
    path.write_bytes(data)
    told = [one.what for one in kct.inspect(run).problems if path.name in one.what]
    assert len(told) == 1
    assert told[0].endswith(" have changed.")

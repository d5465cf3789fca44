"""What `resume-info` foretells is what a restart does."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from keras_ckpt_tools.errors import DamagedArtefactError
from keras_ckpt_tools.runs.resume_preview import foresee, foresee_file


@pytest.fixture
def saved(tmp_path, manager):
    """The directory of a manager that has saved three times, with a random generator."""
    one = manager(rng=np.random.default_rng(1))
    for epoch in one.epochs(3):
        for _ in one.batches([1, 2]):
            pass
        one.log(loss=1 / (epoch + 1))
    one.wait()
    del one
    return tmp_path


def _damage(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def test_choice_is_that_of_a_restart(saved, manager):
    """Damage that shows and damage that does not are passed over, and told alike."""
    paths = sorted(saved.glob("ckpt-*"))
    _damage(paths[-1])
    paths[-2].write_bytes(paths[-2].read_bytes()[:-1])
    found = foresee(str(saved))
    again = manager(rng=np.random.default_rng(2))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert again.restore_or_initialize() == found.chosen == str(paths[0])
    assert again.progress.epochs_completed == found.progress.epochs_completed == 1
    assert again.progress.run_id == found.progress.run_id
    for path, why in found.passed:
        assert f"{path}: " in str(told[0].message)
        assert why in str(told[0].message)
    assert len(found.passed) == 2
    assert found.by_itself


def test_what_is_held_and_what_begins_anew(saved):
    """By the names of the tracked objects, and what stands beside them."""
    found = foresee(str(saved))
    assert found.holds["rng"] == "state"
    assert found.holds["_random"] == "random generators"
    assert "callbacks" in found.lacks
    assert "optimizer state" in found.lacks
    assert found.differences == ()
    alone = foresee_file(found.chosen)
    assert not alone.by_itself
    assert "manager.restore(path)" in alone.notes[0]


def test_nothing_whole_is_refused_by_both(saved, manager):
    """And nothing at all is a run that begins."""
    for path in saved.glob("ckpt-*"):
        _damage(path)
    found = foresee(str(saved))
    assert found.chosen is None
    assert len(found.passed) == 3
    with pytest.raises(DamagedArtefactError):
        manager(rng=np.random.default_rng(1)).restore_or_initialize()
    (saved / "empty").mkdir()
    found = foresee(str(saved / "empty"))
    assert (found.chosen, found.passed) == (None, ())


def test_directory_in_use_is_said_to_be(saved, manager):
    """By the same lock that keeps a second process out."""
    assert not foresee(str(saved)).in_use
    one = manager(rng=np.random.default_rng(1), resume="never")
    one.save()
    assert foresee(str(saved)).in_use


def test_interrupted_epoch_goes_on_under_conditions(tmp_path, build_cnn, digits):
    """A `fit()` that was stopped in the middle of an epoch says what its data have to do."""
    import keras_ckpt_tools as kct

    model = build_cnn()
    data = kct.data.ArrayDataset(
        digits.x_train[:96], digits.y_train[:96], batch_size=32, shuffle=True, seed=1
    )
    stopping = [_Stop(4), kct.BackupAndRestore(tmp_path, save_freq=1)]
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, epochs=3, callbacks=stopping, verbose=0)
    found = foresee(str(tmp_path))
    assert (found.progress.epochs_completed, found.progress.batches_completed) == (1, 1)
    assert "resumes at batch 1 of the epoch if its data can be replayed" in found.notes[0]
    assert found.holds["optimizer"] == "optimizer"
    assert found.holds["_metrics"] == "metrics of the epoch under way"


def _Stop(after):
    import keras

    class Stop(keras.callbacks.Callback):
        seen = 0

        def on_train_batch_begin(self, batch, logs=None):
            self.seen += 1
            if self.seen > after:
                raise KeyboardInterrupt

    return Stop()


def test_backup_of_stock_keras_is_foretold(tmp_path, build_cnn, digits):
    """Where training was by its own account, and by what its optimizer has counted."""
    import keras

    from keras_ckpt_tools.runs.stock_backups import progress_of_stock

    model = build_cnn()
    backup = keras.callbacks.BackupAndRestore(str(tmp_path), delete_checkpoint=False)
    x, y = digits.x_train[:64], digits.y_train[:64]
    model.fit(x, y, epochs=2, batch_size=32, callbacks=[backup], verbose=0)
    found = foresee(str(tmp_path))
    expected = progress_of_stock(str(tmp_path))
    assert found.progress.epochs_completed == expected.epochs_completed == 2
    assert found.progress.step == 4
    assert "Keras' BackupAndRestore" in found.kind
    (tmp_path / "training_metadata.json").write_text("{")
    found = foresee(str(tmp_path))
    assert found.chosen is None
    assert "damaged" in found.passed[0][1]


def test_doors_are_told_by_the_names_that_are_saved():
    """What prunes without a framework knows them by the same names."""
    from keras_ckpt_tools.runs.checkpoints import DOORS
    from keras_ckpt_tools.training.state.run_state import FIT, LOOP

    assert {FIT, LOOP} == DOORS

"""Parts that meet: two callbacks on one model, the background, two runs in one directory."""

from __future__ import annotations

import copy
import signal
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, RestoreError

X, Y = np.ones((12, 2), "float32"), np.ones((12, 1), "float32")


def _model() -> Any:
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class At(keras.callbacks.Callback):
    """Does something within a batch, of training or of validation."""

    def __init__(self, action: Any, *, train: int = -1, test: int = -1):
        super().__init__()
        self.action, self.train, self.test = action, train, test

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == self.train:
            self.action()

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == self.test:
            self.action()


def _interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_two_callbacks_that_watch_for_signals_both_save(tmp_path: Path) -> None:
    """And the signal does, once, what it would have done; after that all is as before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    callbacks = [
        kct.ModelCheckpoint(tmp_path / "m.keras", save_on_signal=True),
        kct.BackupAndRestore(tmp_path / "backup", save_on_signal=True),
    ]
    with pytest.raises(KeyboardInterrupt):
        _model().fit(X, Y, batch_size=4, verbose=0, callbacks=[At(_interrupt, train=1), *callbacks])
    assert kct.training_progress(tmp_path / "backup").batches_completed == 2
    assert kct.training_progress(tmp_path / "m-interrupted.keras").batches_completed == 2
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_during_validation_is_saved_for(tmp_path: Path) -> None:
    """At once, and it is not swallowed; a restart with other data trains no batch of the epoch."""
    backup = kct.BackupAndRestore(tmp_path, save_freq=100, save_on_signal=True)
    with pytest.raises(KeyboardInterrupt):
        _model().fit(
            X,
            Y,
            validation_data=(X, Y),
            verbose=0,
            shuffle=False,
            callbacks=[At(_interrupt, test=0), backup],
        )
    progress = kct.training_progress(tmp_path)
    assert (progress.epochs_completed, progress.batches_completed) == (0, 1)
    model, more = _model(), {"verbose": 0, "shuffle": False, "validation_data": (X, Y)}
    with pytest.warns(UserWarning, match="other data from this epoch on"):
        history = model.fit(
            np.tile(X, (9, 1)),
            np.tile(Y, (9, 1)),
            callbacks=[kct.BackupAndRestore(tmp_path)],
            **more,
        )
    assert (history.epoch, int(model.optimizer.iterations)) == ([0], 1)
    assert "val_loss" in history.history


def test_a_signal_before_a_break_is_not_swallowed(tmp_path: Path) -> None:
    """The loop is left by the user; the signal still arrives."""
    manager = kct.CheckpointManager(tmp_path, save_on_signal=True, one=tf.Variable(1))
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the loop is what is tested)
        for _ in manager.epochs(3):
            _interrupt()
            break
        time.sleep(10)


def test_two_callbacks_that_watch_for_exceptions_leave_the_model_usable(tmp_path: Path) -> None:
    """`fit()` without them works again."""
    model = _model()
    callbacks = [
        kct.ModelCheckpoint(tmp_path / f"{name}.keras", save_on_exception=True) for name in "ab"
    ]
    model.fit(X, Y, verbose=0, callbacks=callbacks)
    model.fit(X, Y, verbose=0)
    model.fit(X, Y, verbose=0, callbacks=callbacks)


def test_in_the_background_the_same_is_saved(tmp_path: Path) -> None:
    """Same files, same best, same weights as in the foreground."""
    found = []
    for background in (False, True):
        keras.utils.set_random_seed(1)
        folder = tmp_path / str(background)
        callback = kct.ModelCheckpoint(
            folder / "{epoch}.keras", monitor="loss", max_to_keep=2, background=background
        )
        _model().fit(X, Y, batch_size=4, epochs=5, verbose=0, callbacks=[callback])
        files = sorted(p.name for p in folder.iterdir())
        models = [kct.safe_load_model(folder / name).get_weights() for name in files]
        best = [kct.training_progress(folder / name).best for name in files]
        found.append((files, best, [w.tobytes() for weights in models for w in weights]))
    assert found[0] == found[1]


class Losses(keras.callbacks.Callback):
    """Replaces what the model reports, so that a test knows it."""

    def __init__(self, losses: list[float]):
        super().__init__()
        self.losses = losses

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["loss"] = self.losses[epoch]


@pytest.mark.parametrize("background", [False, True])
def test_the_best_on_record_never_gets_worse(tmp_path: Path, background: bool) -> None:
    """Also where every model is saved."""
    callback = kct.ModelCheckpoint(
        tmp_path / "{epoch}.keras", monitor="loss", background=background
    )
    _model().fit(X, Y, epochs=3, verbose=0, callbacks=[Losses([0.1, 0.4, 0.3]), callback])
    best = [kct.training_progress(tmp_path / f"{n}.keras").best for n in (1, 2, 3)]
    assert [one and (one.value, one.epoch) for one in best] == [(0.1, 0)] * 3


def test_a_callback_leaves_files_of_another_pattern_alone(tmp_path: Path) -> None:
    """`best.keras` fits `{epoch}.keras`, and is none of its files."""
    backup = kct.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    best = kct.ModelCheckpoint(tmp_path / "best.keras", monitor="loss", save_best_only=True)

    def each() -> Any:
        return kct.ModelCheckpoint(tmp_path / "{epoch}.keras", monitor="none", max_to_keep=1)

    _model().fit(X, Y, epochs=2, verbose=0, callbacks=[backup, best, each()])
    backup.resume = "must"
    _model().fit(X, Y, epochs=3, verbose=0, callbacks=[backup, each()])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3.keras", "backup", "best.keras"]


def test_a_file_of_another_callback_does_not_stop_a_resume(tmp_path: Path) -> None:
    """Even if it is called like a checkpoint."""
    callback = kct.ModelCheckpoint(tmp_path / "ckpt-00000009.weights.h5", save_weights_only=True)
    _model().fit(X, Y, verbose=0, callbacks=[callback])
    _model().fit(X, Y, verbose=0, callbacks=[kct.BackupAndRestore(tmp_path)])
    assert (tmp_path / "ckpt-00000009.weights.h5").exists()


def test_another_run_in_the_directory_is_left_alone_and_named(tmp_path: Path) -> None:
    """A save before any restore deletes nothing of what was trained."""
    list(kct.CheckpointManager(tmp_path, max_to_keep=1, one=tf.Variable(1)).epochs(2))
    manager = kct.CheckpointManager(tmp_path, max_to_keep=1, one=tf.Variable(1))
    with pytest.warns(UserWarning, match="checkpoints of another run"):
        manager.save()
    manager.save()
    assert len(manager.checkpoints) == 2


def test_another_compile_is_followed(tmp_path: Path) -> None:
    """Steps are counted by the optimizer that the model has now."""
    model = _model()
    manager = kct.CheckpointManager(tmp_path, model=model)
    manager.save()
    model.compile("adam", "mse")
    model.fit(X, Y, batch_size=4, verbose=0)
    manager.save()
    assert kct.training_progress(tmp_path).step == 3


def test_saves_by_steps_fall_where_they_would_have_fallen(tmp_path: Path) -> None:
    """A restart does not shift them."""

    def steps(total: int) -> kct.CheckpointManager:
        manager = kct.CheckpointManager(tmp_path, save_freq=10, one=tf.Variable(1))
        list(manager.steps(total))
        return manager

    steps(15)
    saved = [kct.training_progress(path).step for path in steps(40).checkpoints]
    assert saved == [10, 15, 20, 30, 40]


def test_a_callback_with_a_background_can_be_copied(tmp_path: Path) -> None:
    """As tuners do."""
    copy.deepcopy(kct.ModelCheckpoint(tmp_path / "m.keras", background=True))


def test_a_loaded_file_says_where_a_trained_model_is(tmp_path: Path) -> None:
    """Its progress replaces what the model had before."""
    path = tmp_path / "m.weights.h5"
    model = _model()
    saver = kct.ModelCheckpoint(path, save_weights_only=True)
    model.fit(X, Y, epochs=7, verbose=0, callbacks=[saver])
    other = _model()
    other.fit(X, Y, verbose=0, callbacks=[kct.ModelCheckpoint(tmp_path / "n.keras")])
    kct.load_weights(other, path)
    assert kct.training_progress(other).epochs_completed == 7


def test_names_that_meet_in_a_file_are_refused(tmp_path: Path) -> None:
    """Nothing is dropped in silence."""
    with pytest.raises(ArgumentError, match="Use strings as keys"):
        kct.CheckpointManager(tmp_path, both={1: tf.Variable(1), "1": tf.Variable(2)})
    with pytest.raises(ArgumentError, match="must consist of letters"):
        kct.CheckpointManager(tmp_path, **{"a/b": tf.Variable(1)})


class Fickle:
    """Takes a state, changes, and then refuses."""

    def __init__(self) -> None:
        self.array = np.zeros(2)
        self.refuse = False

    def get_state(self) -> dict[str, Any]:
        return {"array": self.array}

    def set_state(self, state: dict[str, Any]) -> None:
        self.array[:] = state["array"]
        if self.refuse:
            self.refuse = False
            raise ValueError("not this one")


def test_an_object_that_changes_and_then_refuses_is_given_back(tmp_path: Path) -> None:
    """All or nothing, also for the object that fails."""
    fickle, one = Fickle(), tf.Variable(1)
    manager = kct.CheckpointManager(tmp_path, one=one, fickle=fickle)
    manager.save()
    fickle.array[:] = 7
    one.assign(5)
    fickle.refuse = True
    with pytest.raises(RestoreError, match="not this one"):
        manager.restore_or_initialize()
    assert fickle.array.tolist() == [7, 7]
    assert int(one) == 5


def test_numbers_of_the_other_byte_order_keep_their_value(tmp_path: Path) -> None:
    """Files hold them in this machine's."""
    fickle = Fickle()
    fickle.array = np.array([1, 2], ">i4")
    manager = kct.CheckpointManager(tmp_path, fickle=fickle)
    manager.save()
    fickle.array = np.zeros(2)
    manager.restore_or_initialize()
    assert fickle.array.tolist() == [1, 2]


def test_fit_again_after_an_exception_goes_on_in_the_background_too(tmp_path: Path) -> None:
    """What was still being written is waited for."""
    backup = kct.BackupAndRestore(tmp_path, background=True)

    def fail() -> None:
        raise ZeroDivisionError

    class After(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                fail()

    with pytest.raises(ZeroDivisionError):
        _model().fit(X, Y, epochs=4, verbose=0, callbacks=[backup, After()])
    history = _model().fit(X, Y, epochs=4, verbose=0, callbacks=[backup])
    assert history.epoch == [0, 1, 2, 3]


def test_a_backup_leaves_what_has_taken_the_place_of_its_file(tmp_path: Path) -> None:
    """A pattern that makes the names of a run's own files: what is there now was not its own."""
    path = tmp_path / "ckpt-00000001.weights.h5"
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    manager = kct.CheckpointManager(tmp_path, max_to_keep=1, model=model)
    assert manager.save() == str(path)
    model.compile("sgd", "mse")
    saver = kct.ModelCheckpoint(
        str(tmp_path / "ckpt-{epoch:08d}.weights.h5"), save_weights_only=True
    )
    model.fit(np.ones((2, 1)), np.ones((2, 1)), verbose=0, callbacks=[saver])
    kept = path.read_bytes()
    manager.save()
    assert path.read_bytes() == kept


def test_what_has_saved_can_be_copied(tmp_path: Path) -> None:
    """Tuners copy callbacks, also those that have been at work; a copy finds things out anew."""
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(3) for _ in range(4))])
    model.compile("sgd", "mse")
    saver = kct.ModelCheckpoint(tmp_path / "m.keras")
    backup = kct.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    manager = kct.CheckpointManager(tmp_path / "run", model=model)
    x, y = np.ones((8, 4)), np.ones((8, 3))
    model.fit(x, y, epochs=3, callbacks=[saver, backup], verbose=0)
    for _ in range(3):
        manager.save()
    for one in (saver, backup, manager):
        copy.deepcopy(one)

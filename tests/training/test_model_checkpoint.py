"""`ModelCheckpoint`: what is saved, when, and what is said about it."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import (
    constant_model,
    names_in,
    small_data,
    small_model,
    state_of,
)

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import UntrackedStateError

Make = Callable[..., Any]
End = Callable[..., None]


# Formats.


@pytest.mark.parametrize("name", ["a.keras", "a.h5", "a.weights.h5"])
def test_stock_keras_opens_what_is_saved(name: str, checkpoint: Make) -> None:
    """Weights, momenta and all, in each format."""
    model = small_model()
    weights_only = name.endswith(".weights.h5")
    callback = checkpoint(name, model, save_weights_only=weights_only)
    model.fit(*small_data(), batch_size=4, verbose=0, callbacks=[callback])
    if weights_only:
        other = small_model()
        other.optimizer.build(other.trainable_variables)
        other.load_weights(callback.filepath)
    else:
        other = keras.models.load_model(callback.filepath)
    if name != "a.h5":  # Stock Keras does not read momenta back from its older format.
        assert state_of(other) == state_of(model)
    assert [np.asarray(w).tobytes() for w in other.weights] == [
        np.asarray(w).tobytes() for w in model.weights
    ]


def test_it_is_a_callback_of_keras(checkpoint: Make) -> None:
    """For programs that look for one."""
    assert isinstance(checkpoint(), keras.callbacks.ModelCheckpoint)


# When.


def test_a_pattern_is_filled_in_at_each_epoch(checkpoint: Make, tmp_path: Path) -> None:
    """One-based epochs, as in Keras."""
    model = small_model()
    callback = checkpoint("{epoch:02d}.keras", model)
    model.fit(*small_data(), epochs=3, verbose=0, callbacks=[callback])
    assert names_in(tmp_path) == ["01.keras", "02.keras", "03.keras"]
    assert kct.training_progress(tmp_path / "02.keras").epochs_completed == 2


@pytest.mark.parametrize(
    ("steps_per_execution", "expected"),
    [(1, ["1-3", "2-2", "3-1", "3-4"]), (2, ["1-4", "2-4", "3-4"])],
)
def test_batches_are_counted_in_fit(
    steps_per_execution: int, expected: list[str], checkpoint: Make, tmp_path: Path
) -> None:
    """Every third of them; with `steps_per_execution=2` only each second is reported."""
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    model = small_model()
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    callback = checkpoint("{epoch}-{batch}.keras", model, save_freq=3)
    model.fit(*small_data(), batch_size=4, epochs=3, verbose=0, callbacks=[callback, watch])
    if seen[0] != steps_per_execution - 1:
        pytest.skip(f"Keras {keras.__version__} reports the first batch of an execution")
    assert names_in(tmp_path) == [f"{name}.keras" for name in expected]
    progress = kct.training_progress(tmp_path / f"{expected[1]}.keras")
    assert progress.batches_completed == int(expected[1][2])
    assert progress.step == 4 + int(expected[1][2])


def test_a_run_too_short_for_its_save_freq_says_so(checkpoint: Make, tmp_path: Path) -> None:
    """Both numbers, once, when training ends with nothing saved."""
    model = small_model()
    callback = checkpoint("a.keras", model, save_freq=10_000)
    with pytest.warns(UserWarning, match=r"after 8 batches, and `save_freq=10000`") as told:
        model.fit(*small_data(), batch_size=4, epochs=2, verbose=0, callbacks=[callback])
    assert len(told) == 1
    assert names_in(tmp_path) == []


def test_a_run_that_saved_ends_in_silence(checkpoint: Make, tmp_path: Path) -> None:
    """Also one of no batch at all."""
    model = small_model()
    model.fit(
        *small_data(),
        batch_size=4,
        verbose=0,
        callbacks=[checkpoint("a.keras", model, save_freq=4)],
    )
    assert names_in(tmp_path) == ["a.keras"]
    callback = checkpoint("b.keras", model, save_freq=4)
    callback.on_train_begin()
    callback.on_train_end()


def test_a_clock_saves(checkpoint: Make, tmp_path: Path) -> None:
    """So short a time has passed at each batch."""
    model = small_model()
    callback = checkpoint("{batch}.keras", model, save_freq=datetime.timedelta(microseconds=1))
    model.fit(*small_data(), batch_size=4, verbose=0, callbacks=[callback])
    assert names_in(tmp_path) == ["1.keras", "2.keras", "3.keras", "4.keras"]


def test_a_loop_over_train_on_batch_saves(checkpoint: Make, tmp_path: Path) -> None:
    """By calling the hooks, with logs that hold tensors and arrays."""
    model = small_model()
    x, y = small_data(2)
    callback = checkpoint("{epoch}-{loss:.3f}.keras", model, monitor="loss", save_best_only=True)
    for epoch in range(2):
        for batch in range(2):
            rows = slice(4 * batch, 4 * batch + 4)
            loss = model.train_on_batch(x[rows], y[rows])
            callback.on_train_batch_end(batch, {"loss": loss})
        callback.on_epoch_end(epoch, {"loss": tf.constant(1.0 - epoch / 4)})
    assert names_in(tmp_path) == ["1-1.000.keras", "2-0.750.keras"]
    assert kct.training_progress(tmp_path / "2-0.750.keras").step == 4


def test_a_callback_list_drives_it(checkpoint: Make, tmp_path: Path) -> None:
    """`keras.callbacks.CallbackList`, as people write loops."""
    model = small_model()
    callbacks = keras.callbacks.CallbackList([checkpoint("{epoch}.keras", model)], model=model)
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_train_batch_begin(0)
        callbacks.on_train_batch_end(0, {"loss": model.train_on_batch(*small_data(1))})
        callbacks.on_epoch_end(epoch, {})
    callbacks.on_train_end()
    assert names_in(tmp_path) == ["1.keras", "2.keras"]


# What stays.


def test_a_pattern_leaves_so_many_files(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """The newest, and the best by the monitored metric."""
    callback = checkpoint("{epoch}.keras", monitor="loss", max_to_keep=2)
    for epoch, loss in enumerate((0.5, 0.1, 0.4, 0.3, 0.2)):
        end_epoch(callback, epoch, loss=loss)
    assert names_in(tmp_path) == ["2.keras", "4.keras", "5.keras"]


def test_a_resumed_run_counts_the_files_before_it(checkpoint: Make, tmp_path: Path) -> None:
    """With `BackupAndRestore`, the run is the same one; files of others stay."""
    stranger = tmp_path / "99.keras"
    constant_model(1.0).save(stranger)
    backups = tmp_path / "backups"
    for epochs, resume in ((3, "auto"), (5, "must")):
        model = small_model()
        backup = kct.BackupAndRestore(backups, delete_checkpoint=False, resume=resume)
        keep = checkpoint("{epoch}.keras", model, monitor="none", max_to_keep=2)
        model.fit(*small_data(), epochs=epochs, verbose=0, callbacks=[keep, backup])
    assert names_in(tmp_path) == ["4.keras", "5.keras", "99.keras", "backups"]


def test_another_run_leaves_the_files_of_this_one(
    checkpoint: Make, end_epoch: End, tmp_path: Path
) -> None:
    """It only deletes what it wrote."""
    for epochs in ((0, 1), (5, 6, 7)):
        callback = checkpoint("{epoch}.keras", constant_model(1.0), max_to_keep=1)
        for epoch in epochs:
            end_epoch(callback, epoch)
    assert names_in(tmp_path) == ["2.keras", "8.keras"]


def test_a_policy_keeps(checkpoint: Make, end_epoch: End, tmp_path: Path) -> None:
    """Instead of a number."""
    callback = checkpoint("{epoch}.keras", keep=kct.KeepLast(1) | kct.KeepEvery(3))
    for epoch in range(7):
        end_epoch(callback, epoch)
    assert names_in(tmp_path) == ["3.keras", "6.keras", "7.keras"]


# What is said.


@pytest.mark.filterwarnings("ignore:.*from another run")
def test_what_is_saved_is_said(
    checkpoint: Make, end_epoch: End, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Keras' own words, where `verbose=1`."""
    callback = checkpoint("a.keras", monitor="loss", save_best_only=True, verbose=1)
    path = callback.filepath
    for epoch, loss in enumerate((0.5, 0.25, 0.3)):
        end_epoch(callback, epoch, loss=loss)
    end_epoch(checkpoint("a.keras", monitor="loss", save_best_only=True, verbose=1), 3, loss=0.3)
    assert [line for line in capsys.readouterr().out.splitlines() if line] == [
        f"Epoch 1: loss improved from None to 0.50000, saving model to {path}",
        f"Epoch 1: finished saving model to {path}",
        f"Epoch 2: loss improved from 0.50000 to 0.25000, saving model to {path}",
        f"Epoch 2: finished saving model to {path}",
        "Epoch 3: loss did not improve from 0.25000",
        "best loss of an earlier run: 0.25000",
        "Epoch 4: loss did not improve from 0.25000",
    ]


def test_nothing_is_said_unless_asked(
    checkpoint: Make, end_epoch: End, capsys: pytest.CaptureFixture[str]
) -> None:
    """`verbose=0` is the default."""
    end_epoch(checkpoint("a.keras"), 0)
    assert capsys.readouterr().out == ""


def test_two_that_monitor_the_same_metric_judge_each_for_itself(tmp_path: Path) -> None:
    """What one has found is not what the other has saved."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    paths = [tmp_path / "every.keras", tmp_path / "best.keras", tmp_path / "also.weights.h5"]
    savers = [
        kct.ModelCheckpoint(paths[0], monitor="loss"),
        kct.ModelCheckpoint(paths[1], monitor="loss", save_best_only=True),
        kct.ModelCheckpoint(paths[2], monitor="loss", save_best_only=True, save_weights_only=True),
    ]
    for epoch, loss in enumerate((0.5, 0.4, 0.6)):
        for saver in savers:
            if epoch == 0:
                saver.set_model(model)
                saver.on_train_begin()
            saver.on_epoch_begin(epoch)
        for saver in savers:
            saver.on_epoch_end(epoch, {"loss": loss})
    assert [kct.training_progress(path).logs["loss"] for path in paths] == [0.6, 0.4, 0.4]


# What a save leaves as it was.


@pytest.mark.parametrize("name", ["a.keras", "a.h5", "a.weights.h5"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_save_never_changes_the_live_model(
    name: str, fails: bool, checkpoint: Make, end_epoch: End, tmp_path: Path
) -> None:
    """Keras' own `.h5` writer takes the optimizer out of the model's compile config."""
    model = small_model()
    callback = checkpoint(name, model, save_weights_only=name.endswith(".weights.h5"))
    arguments = model._compile_config.config
    before = (dict(arguments), model.get_compile_config(), model.get_config(), state_of(model))
    if fails:
        (tmp_path / name).mkdir()
        with pytest.raises(kct.errors.ArgumentError):
            end_epoch(callback, 0, loss=0.5)
    else:
        end_epoch(callback, 0, loss=0.5)
        end_epoch(callback, 1, loss=0.4)
    assert model._compile_config.config is arguments
    assert before == (
        dict(arguments),
        model.get_compile_config(),
        model.get_config(),
        state_of(model),
    )


def test_two_formats_side_by_side_both_keep_the_optimizer(checkpoint: Make) -> None:
    """A `.h5` beside a `.keras`, over more than one epoch."""
    model = small_model()
    savers = [checkpoint(name, model, monitor="loss") for name in ("a.h5", "a.keras")]
    model.fit(*small_data(), batch_size=4, epochs=2, verbose=0, callbacks=savers)
    for saver in savers:
        assert type(kct.safe_load_model(saver.filepath).optimizer) is type(model.optimizer)


# What subclasses override.


class ByBatch(kct.ModelCheckpoint):
    """Saves after the third batch."""

    def _should_save_on_batch(self, batch: int) -> bool:
        super()._should_save_on_batch(batch)
        return batch == 2


class Sometimes(kct.ModelCheckpoint):
    """Saves odd epochs, whatever they are worth."""

    def _should_save_model(self, epoch: int, batch: Any, logs: Any, filepath: str) -> bool:
        return epoch % 2 == 1


class Twice(kct.ModelCheckpoint):
    """Saves what is better, and the first epoch."""

    def _should_save_model(self, epoch: int, batch: Any, logs: Any, filepath: str) -> bool:
        better = super()._should_save_model(epoch, batch, logs, filepath)
        return better or epoch == 1


class Much(kct.ModelCheckpoint):
    """Takes only what is better by a half."""

    def _is_improvement(self, monitor_value: Any, reference_value: Any) -> bool:
        return reference_value is None or monitor_value < reference_value - 0.5


class Operator(kct.ModelCheckpoint):
    """Sets the comparison in its `__init__`."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.monitor_op = np.greater


class Setter(kct.ModelCheckpoint):
    """Sets the comparison where Keras does."""

    def _set_monitor_op(self) -> None:
        self.monitor_op = np.greater


class Method(kct.ModelCheckpoint):
    """Has the comparison as a method."""

    def monitor_op(self, value: float, best: float) -> bool:
        return value > best


class Ufunc(kct.ModelCheckpoint):
    """Has the comparison as an attribute of the class."""

    monitor_op = np.greater


class Static(kct.ModelCheckpoint):
    """Has the comparison as a function of the class."""

    @staticmethod
    def monitor_op(value: float, best: float) -> bool:
        return value > best


class Delta(kct.ModelCheckpoint):
    """Asks for a least difference."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.min_delta = 0.5


class Named(kct.ModelCheckpoint):
    """Names its files by itself."""

    def _get_file_path(self, epoch: int, batch: Any, logs: Any) -> str:
        return super()._get_file_path(epoch, batch, logs).replace(".keras", "-own.keras")


@pytest.mark.parametrize(
    ("kind", "arguments", "saved"),
    [
        (Sometimes, {"save_best_only": True}, [1, 3]),
        (Twice, {"save_best_only": True}, [0, 1, 2, 3]),
        (Much, {"save_best_only": True}, [0, 3]),
        (Operator, {"save_best_only": True}, [0, 1]),
        (Setter, {"save_best_only": True}, [0, 1]),
        (Method, {"save_best_only": True}, [0, 1]),
        (Ufunc, {"save_best_only": True}, [0, 1]),
        (Static, {"save_best_only": True}, [0, 1]),
        (Delta, {"save_best_only": True}, [0, 3]),
        (kct.ModelCheckpoint, {"save_best_only": True}, [0, 2, 3]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_override_of_what_is_saved_counts(
    kind: Any, arguments: dict[str, Any], saved: list[int], end_epoch: End, tmp_path: Path
) -> None:
    """Whatever the class here would have decided."""
    callback = kind(tmp_path / "{epoch}.keras", monitor="loss", **arguments)
    callback.set_model(constant_model(1.0))
    for epoch, loss in enumerate((1.0, 1.2, 0.9, 0.1)):
        end_epoch(callback, epoch, loss=loss)
    assert names_in(tmp_path) == [f"{epoch + 1}.keras" for epoch in saved]


def test_an_override_of_when_counts(end_epoch: End, tmp_path: Path) -> None:
    """By batches."""
    callback = ByBatch(tmp_path / "{batch}.keras", monitor="loss", save_freq=100)
    callback.set_model(constant_model(1.0))
    callback.on_epoch_begin(0)
    for batch in range(4):
        callback.on_train_batch_end(batch, {"loss": 1.0})
    assert names_in(tmp_path) == ["3.keras"]


def test_an_override_of_the_name_counts(end_epoch: End, tmp_path: Path) -> None:
    """Of the file."""
    callback = Named(tmp_path / "{epoch}.keras", monitor="loss")
    callback.set_model(constant_model(1.0))
    end_epoch(callback, 0, loss=1.0)
    assert names_in(tmp_path) == ["1-own.keras"]


def test_overrides_of_a_backup_count(tmp_path: Path) -> None:
    """The hooks of the other callback of Keras."""
    calls: list[int] = []

    class Backup(kct.BackupAndRestore):
        def _should_save_on_batch(self, batch: int) -> bool:
            return batch == 1

        def _save_model(self) -> None:
            calls.append(1)
            super()._save_model()

    model = small_model()
    backup = Backup(tmp_path, save_freq=100, delete_checkpoint=False)
    model.fit(*small_data(), batch_size=4, verbose=0, callbacks=[backup])
    assert calls == [1, 1]  # After the batch, and at the end of a run whose checkpoints stay.
    assert kct.training_progress(tmp_path).epochs_completed == 1


def test_an_override_that_is_never_called_is_refused() -> None:
    """When the class is made, with what works."""
    with pytest.raises(kct.errors.ArgumentError, match="_load_model"):

        class Backup(kct.BackupAndRestore):
            def _load_model(self) -> None:
                pass


# Every so many epochs, and a name for the newest.


def test_every_second_epoch_is_saved(end_epoch: End, checkpoint: Make, tmp_path: Path) -> None:
    """By their numbers, so that a restart saves the same ones."""
    callback = checkpoint("{epoch}.keras", monitor="loss", every_n_epochs=2)
    for epoch in range(1, 6):
        end_epoch(callback, epoch, loss=1.0)
    assert names_in(tmp_path) == ["2.keras", "4.keras", "6.keras"]


def test_a_run_of_fewer_epochs_says_so(end_epoch: End, checkpoint: Make, tmp_path: Path) -> None:
    """Nothing is saved, and not in silence."""
    callback = checkpoint("{epoch}.keras", monitor="loss", every_n_epochs=5)
    end_epoch(callback, 0, loss=1.0)
    with pytest.warns(UserWarning, match="every_n_epochs=5"):
        callback.on_train_end()


def test_a_backup_has_every_n_epochs_too(tmp_path: Path) -> None:
    """The other callback: a run that is interrupted in its fourth epoch has two of them."""

    def interrupt(epoch: int, logs: object) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    backup = kct.BackupAndRestore(tmp_path, every_n_epochs=2, delete_checkpoint=False)
    callbacks = [backup, keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)]
    with pytest.raises(KeyboardInterrupt):
        small_model().fit(*small_data(), epochs=5, verbose=0, callbacks=callbacks)
    assert kct.training_progress(tmp_path).epochs_completed == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"every_n_epochs": 0},
        {"every_n_epochs": True},
        {"every_n_epochs": 1.5},
        {"every_n_epochs": 2, "save_freq": 10},
    ],
    ids=str,
)
def test_a_number_of_epochs_that_is_none_is_refused(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    """By both callbacks."""
    for make, path in ((kct.ModelCheckpoint, "a.keras"), (kct.BackupAndRestore, "b")):
        with pytest.raises(kct.errors.ArgumentError, match="every_n_epochs=5"):
            make(tmp_path / path, **arguments)


@pytest.mark.parametrize("pattern", ["{epoch}.keras", "sub-{epoch}/model.keras"])
def test_the_newest_has_a_name_that_stays(
    pattern: str, end_epoch: End, checkpoint: Make, tmp_path: Path
) -> None:
    """Beside those of the pattern, and not counted among them, also after a restart."""
    for run in range(2):
        model = constant_model(1.0)
        callback = checkpoint(pattern, model, monitor="loss", max_to_keep=2, last="last.keras")
        for epoch in range(3 * run, 3 * run + 3):
            model.set_weights([np.full_like(w, epoch) for w in model.get_weights()])
            end_epoch(callback, epoch, loss=1.0)
            last = kct.safe_load_model(tmp_path / "last.keras")
            assert [w.tolist() for w in last.get_weights()] == [
                w.tolist() for w in model.get_weights()
            ]
    assert "last.keras" in os.listdir(tmp_path)
    assert kct.verify(tmp_path / "last.keras")
    newest = tmp_path / pattern.format(epoch=6)
    assert os.path.samefile(newest, tmp_path / "last.keras")


@pytest.mark.parametrize(
    "last", ["last.h5", "{epoch}-last.keras", "model.keras", ".keras", "gs://bucket/last.keras"]
)
def test_a_last_name_that_cannot_be_one_is_refused(last: str, tmp_path: Path) -> None:
    """When the callback is made."""
    with pytest.raises(kct.errors.ArgumentError, match="last"):
        kct.ModelCheckpoint(tmp_path / "model.keras", last=last)


def test_a_model_that_h5_cannot_hold_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    """And not after an epoch whose result is lost."""

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Own()
    model.compile("sgd", "mse")
    saver = kct.ModelCheckpoint(tmp_path / "a.h5", monitor="loss")
    with pytest.raises(UntrackedStateError, match=r"a subclassed model: `\.h5` does not hold"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[saver])
    assert int(model.optimizer.iterations) == 0

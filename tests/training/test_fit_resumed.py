"""What `fit()` goes on with, what does not fit, and the other door to the same run."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import RestoreError

X = np.arange(64, dtype="float32").reshape(16, 4) / 64
Y = X.sum(axis=1, keepdims=True)


class Interrupted(Exception):
    """The end of a process, to a run."""


class InterruptAt(keras.callbacks.Callback):
    """Interrupt after so many updates."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == self.step:
            raise Interrupted


def make_model(units: int = 3, optimizer: str = "adam") -> keras.Model:
    """Return a compiled model, the same each time."""
    keras.utils.set_random_seed(4)
    layers = [keras.Input((4,)), keras.layers.Dropout(0.2), keras.layers.Dense(units)]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


def make_data(batch_size: int = 4) -> kct.data.ArrayDataset:
    """Return four batches of another order in each epoch."""
    return kct.data.ArrayDataset(X, Y, batch_size=batch_size, shuffle=True, seed=2)


def interrupted(directory: Path, step: int, *carried: Any, **fit: Any) -> None:
    """Train, save at each batch, and be interrupted."""
    backup = kct.BackupAndRestore(directory, save_freq=1, callbacks=carried)
    with pytest.raises(Interrupted):
        make_model().fit(
            fit.pop("x", None) or make_data(),
            epochs=3,
            verbose=0,
            callbacks=[*carried, backup, InterruptAt(step)],
            **fit,
        )


def resumed(directory: Path, *carried: Any, **fit: Any) -> tuple[Any, keras.Model]:
    """Go on to the end."""
    model = make_model()
    backup = kct.BackupAndRestore(directory, save_freq=1, callbacks=carried)
    data = fit.pop("x", None) or make_data()
    history = model.fit(data, epochs=3, verbose=0, callbacks=[*carried, backup], **fit)
    return history, model


def whole(**fit: Any) -> tuple[Any, keras.Model]:
    """Train without a callback of ours, as `BackupAndRestore` must not change anything."""
    model = make_model()
    data = fit.pop("x", None) or make_data()
    return model.fit(data, epochs=3, verbose=0, **fit), model


def same(one: tuple[Any, keras.Model], other: tuple[Any, keras.Model]) -> bool:
    """Return whether two runs ended the same, bit by bit."""
    models = [one[1], other[1]]
    values = [[v.numpy() for v in (*m.variables, *m.optimizer.variables)] for m in models]
    return one[0].history == other[0].history and all(
        np.array_equal(a, b) for a, b in zip(*values, strict=True)
    )


@pytest.mark.parametrize("step", [1, 3, 4, 5, 8, 11])
def test_a_run_ends_as_if_it_had_not_been_interrupted(step: int, tmp_path: Path) -> None:
    """In the middle, after the last batch, and at the end of an epoch."""
    interrupted(tmp_path, step)
    assert same(resumed(tmp_path), whole())


@pytest.mark.parametrize(
    "fit",
    [
        {"steps_per_epoch": 2},
        {"validation_data": (X, Y), "validation_freq": 2},
        {"class_weight": {0: 1.0, 1: 2.0}},
        {"initial_epoch": 1},
        {"shuffle": False},
    ],
    ids=", ".join,
)
def test_arguments_of_fit_are_kept_to(fit: dict[str, Any], tmp_path: Path) -> None:
    """Interrupted in the middle of the second epoch that is trained."""
    step = 3 if "steps_per_epoch" in fit else 6
    interrupted(tmp_path / "cut", step, **fit)
    assert same(resumed(tmp_path / "cut", **fit), resumed(tmp_path / "whole", **fit))


def pipeline(shuffles: int = 1) -> tf.data.Dataset:
    """Return a seeded pipeline. The global seed has a part in its order."""
    tf.random.set_seed(4)
    data = tf.data.Dataset.from_tensor_slices((X, Y))
    for seed in range(shuffles):
        data = data.shuffle(16, seed=seed)
    return data.batch(4)


@pytest.mark.parametrize("shuffles", [0, 1, 2])
@pytest.mark.parametrize("step", [2, 6, 8])
def test_a_seeded_pipeline_goes_on_in_its_order(shuffles: int, step: int, tmp_path: Path) -> None:
    """Its order depends on how many iterators were made, and so on the epoch."""
    interrupted(tmp_path, step, x=pipeline(shuffles), shuffle=False)
    assert same(
        resumed(tmp_path, x=pipeline(shuffles), shuffle=False),
        whole(x=pipeline(shuffles), shuffle=False),
    )


def test_a_repeating_pipeline_goes_on_where_it_was(tmp_path: Path) -> None:
    """One iterator for all epochs."""

    def fit() -> dict[str, Any]:
        return {"x": pipeline().repeat(), "steps_per_epoch": 3, "shuffle": False}

    interrupted(tmp_path, 5, **fit())
    assert same(resumed(tmp_path, **fit()), whole(**fit()))


def test_steps_that_are_executed_together_are_counted_all(tmp_path: Path) -> None:
    """Also the last ones of an epoch, which are fewer."""

    def make() -> keras.Model:
        model = make_model()
        model.compile("adam", "mse", steps_per_execution=3)
        return model

    counted = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            counted.append(kct.training_progress(self.model).batches_completed)

    backup = kct.BackupAndRestore(tmp_path, save_freq=1)
    make().fit(make_data(), epochs=1, verbose=0, callbacks=[backup, Look()])
    assert counted == [3, 4]


def test_all_that_does_not_fit_is_in_one_error(tmp_path: Path) -> None:
    """And nothing is changed."""
    interrupted(tmp_path, 6, keras.callbacks.EarlyStopping("loss"))
    model = make_model(units=5)
    before = model.get_weights()
    with pytest.raises(RestoreError) as caught:
        model.fit(
            make_data(batch_size=8), epochs=3, verbose=0, callbacks=[kct.BackupAndRestore(tmp_path)]
        )
    message = str(caught.value)
    for part in ("(4, 3)", "(4, 5)", "batches of the dataset: expected 4, found 2"):
        assert part in message
    assert "batch size: expected 4, found 8" in message
    assert "changed='data'" in message
    assert all(map(np.array_equal, before, model.get_weights()))


def test_a_callback_that_is_new_begins_now(tmp_path: Path) -> None:
    """That is no reason to refuse."""
    interrupted(tmp_path, 6)
    history, _ = resumed(tmp_path, keras.callbacks.EarlyStopping("loss", patience=9))
    assert history.epoch == [0, 1, 2]


def test_carried_callbacks_may_stand_after_the_backup(tmp_path: Path) -> None:
    """They are called first all the same, so that what is saved has seen the epoch."""
    stopping = keras.callbacks.EarlyStopping("loss", patience=9)
    backup = kct.BackupAndRestore(tmp_path, callbacks=[stopping], delete_checkpoint=False)
    with pytest.raises(Interrupted):
        make_model().fit(
            make_data(), epochs=3, verbose=0, callbacks=[backup, stopping, InterruptAt(9)]
        )
    again = keras.callbacks.EarlyStopping("loss", patience=9)
    begun = []

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            begun.append((epoch, again.best))

    backup = kct.BackupAndRestore(tmp_path, callbacks=[again])
    make_model().fit(make_data(), epochs=3, verbose=0, callbacks=[Look(), backup, again])
    assert begun == [(2, stopping.best)]


def test_a_run_that_had_stopped_itself_stays_so(tmp_path: Path) -> None:
    """Killed between the last save and the end of `fit()`."""

    class Killed(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if self.model.stop_training:
                raise Interrupted

    def stopping() -> keras.callbacks.EarlyStopping:
        return keras.callbacks.EarlyStopping(
            "loss", mode="max", patience=1, restore_best_weights=True
        )

    first = stopping()
    backup = kct.BackupAndRestore(tmp_path, callbacks=[first])
    with pytest.raises(Interrupted):
        make_model().fit(make_data(), epochs=9, verbose=0, callbacks=[first, backup, Killed()])
    second = stopping()
    model = make_model()
    backup = kct.BackupAndRestore(tmp_path, callbacks=[second])
    with pytest.warns(UserWarning, match="had stopped the run of .* after 2 epochs"):
        history = model.fit(make_data(), epochs=9, verbose=0, callbacks=[second, backup])
    assert history.epoch == [0, 1]
    assert second.best_weights is not None
    assert all(map(np.array_equal, second.best_weights, model.get_weights()))


def test_one_callback_instead_of_a_list_is_called_between_the_batches(tmp_path: Path) -> None:
    """Keras calls it in a thread, beside the next batch, if nobody stops it."""
    threads = set()

    class Backup(kct.BackupAndRestore):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            threads.add(threading.current_thread())
            super().on_train_batch_end(batch, logs)

    make_model().fit(make_data(), verbose=0, callbacks=Backup(tmp_path, save_freq=1))
    assert threads == {threading.main_thread()}


def test_a_run_goes_on_in_a_loop_and_back_in_fit(tmp_path: Path) -> None:
    """One engine, two doors."""
    interrupted(tmp_path, 4)  # At the last batch of the first epoch.
    model = make_model()
    data = make_data()
    manager = kct.CheckpointManager(tmp_path, model=model, save_freq=1, max_to_keep=1)
    for epoch in manager.epochs(2):
        logs = {}  # Of the first epoch, no batch is left.
        for x, y in manager.batches(data):
            model.reset_metrics()
            logs = model.train_on_batch(x, y, return_dict=True)
        manager.log(**logs)
        assert epoch in (0, 1)
    assert int(model.optimizer.iterations) == 8
    history, last = resumed(tmp_path)
    assert history.epoch == [0, 1, 2]
    assert int(last.optimizer.iterations) == 12
    _, uninterrupted = whole()
    assert all(map(np.array_equal, uninterrupted.get_weights(), last.get_weights()))


def test_nothing_of_it_stays_on_the_model(tmp_path: Path) -> None:
    """The next `fit()` has nothing to do with this one."""
    interrupted(tmp_path, 8)  # After all batches of the second epoch.
    _, model = resumed(tmp_path)
    assert model._initial_epoch is None
    assert "_get_metrics_result_or_logs" not in vars(model)
    assert model.fit(make_data(), epochs=1, verbose=0).epoch == [0]


class Steps(keras.Model):
    """A subclassed model whose own step tells other logs than its metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def train_step(self, data: Any) -> dict[str, Any]:
        return {"mine": super().train_step(data)["loss"]}


def make_steps() -> keras.Model:
    """Return one."""
    keras.utils.set_random_seed(4)
    model = Steps()
    model.build((None, 4))
    model.compile("adam", "mse")
    return model


@pytest.mark.filterwarnings("ignore:`build\\(\\)` was called:UserWarning")
@pytest.mark.parametrize("step", [2, 4])
def test_logs_of_a_step_of_its_own_are_kept(step: int, tmp_path: Path) -> None:
    """Also where all batches of the epoch were done; and `build` has left its layers unbuilt."""

    def run(directory: Path, *callbacks: Any) -> Any:
        backup = kct.BackupAndRestore(directory, save_freq=1)
        return make_steps().fit(make_data(), epochs=2, verbose=0, callbacks=[backup, *callbacks])

    with pytest.raises(Interrupted):
        run(tmp_path / "cut", InterruptAt(step))
    assert run(tmp_path / "cut").history == run(tmp_path / "whole").history


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_an_epoch_of_unknown_length_keeps_its_logs(tmp_path: Path) -> None:
    """Interrupted after its last batch."""

    def data() -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True).batch(4)

    interrupted(tmp_path, 4, x=data(), shuffle=False)
    assert same(resumed(tmp_path, x=data(), shuffle=False), whole(x=data(), shuffle=False))


@pytest.mark.parametrize(
    "make",
    [
        lambda d: d.shuffle(9, seed=1).cache().shuffle(9, seed=2).batch(4),
        lambda d: d.shuffle(9, seed=1).batch(4).repeat(2),
        lambda d: d.apply(tf.data.experimental.shuffle_and_repeat(9, 1)).batch(4),
    ],
    ids=["cache", "repeat", "shuffle_and_repeat"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_pipeline_that_cannot_be_replayed_says_so(
    make: Callable[[Any], Any], tmp_path: Path
) -> None:
    """Its epoch begins again."""

    def data() -> tf.data.Dataset:
        tf.random.set_seed(4)
        return make(tf.data.Dataset.from_tensor_slices((X, Y)))

    interrupted(tmp_path, 2, x=data(), shuffle=False)
    with pytest.warns(UserWarning, match="starts over from its first batch, because its `"):
        resumed(tmp_path, x=data(), shuffle=False)


class Reshuffled(keras.utils.PyDataset):
    """Shuffles itself at the end of each epoch, as many do."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return X[index * 4 : index * 4 + 4], Y[index * 4 : index * 4 + 4]

    def on_epoch_end(self) -> None:
        pass


def test_a_dataset_that_changes_at_the_end_of_epochs_is_not_taken_for_replayable(
    tmp_path: Path,
) -> None:
    """What it does there cannot be known."""
    interrupted(tmp_path, 2, x=Reshuffled(), shuffle=False)
    with pytest.warns(UserWarning, match="on_epoch_end. of Reshuffled"):
        resumed(tmp_path, x=Reshuffled(), shuffle=False)


def test_another_seed_of_the_data_is_a_difference(tmp_path: Path) -> None:
    """Rows would be trained twice, and others never."""
    interrupted(tmp_path, 2)
    other = kct.data.ArrayDataset(X, Y, batch_size=4, shuffle=True, seed=3)
    with pytest.raises(RestoreError, match="seed of the data: expected 2, found 3"):
        resumed(tmp_path, x=other)


def test_a_callback_that_is_carried_and_not_called_is_refused(tmp_path: Path) -> None:
    """It would have no effect, and nobody would know."""
    backup = kct.BackupAndRestore(tmp_path, callbacks=[keras.callbacks.EarlyStopping("loss")])
    with pytest.raises(kct.errors.ArgumentError, match="contains a callback that was not passed"):
        make_model().fit(make_data(), verbose=0, callbacks=[backup])


def test_two_backups_of_one_run_both_know_where_it_is(tmp_path: Path) -> None:
    """One here and one elsewhere."""

    def backups() -> list[Any]:
        return [kct.BackupAndRestore(tmp_path / name, save_freq=1) for name in "ab"]

    with pytest.raises(Interrupted):
        make_model().fit(make_data(), epochs=3, verbose=0, callbacks=[*backups(), InterruptAt(6)])
    model = make_model()
    history = model.fit(make_data(), epochs=3, verbose=0, callbacks=backups())
    assert same((history, model), whole())


def test_a_callback_that_has_trained_can_be_copied(tmp_path: Path) -> None:
    """Tuners do."""
    backup = kct.BackupAndRestore(tmp_path, save_freq=1)
    with pytest.raises(Interrupted):
        make_model().fit(make_data(), verbose=0, callbacks=[backup, InterruptAt(2)])
    copied = copy.copy(backup)
    copied._state = copy.deepcopy(backup._state)
    assert copied._state._model is None


def test_checkpoints_of_a_loop_are_left_alone(tmp_path: Path) -> None:
    """Those that a manager keeps, and its best, are no backups."""
    model = make_model()
    manager = kct.CheckpointManager(tmp_path, model=model, monitor="loss", max_to_keep=5)
    for epoch in manager.epochs(3):
        manager.log(loss=[0.3, 0.1, 0.2][epoch])
    kept = set(manager.checkpoints)
    again = make_model()
    again.fit(make_data(), epochs=5, verbose=0, callbacks=[kct.BackupAndRestore(tmp_path)])
    assert {str(path) for path in tmp_path.iterdir()} == kept


def test_another_major_version_of_keras_is_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its layers do may have changed."""
    interrupted(tmp_path, 6)
    monkeypatch.setattr(keras, "__version__", "4.0.0")
    with pytest.raises(RestoreError, match=r"major version of Keras: expected that of 3\.\d+"):
        resumed(tmp_path)

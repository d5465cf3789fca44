"""A manager's loop carries callbacks, random generators and its place in the data."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct


def make_model() -> keras.Model:
    """Return a model that learns one number."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    return model


class Counting(keras.callbacks.Callback):
    """Counts every event, in plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.seen.append("train begins")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(f"epoch {epoch} begins")

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.seen.append(f"batch {batch} begins")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(f"batch {batch} ends")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(f"epoch {epoch} ends with {sorted(logs)}")

    def on_train_end(self, logs: Any = None) -> None:
        self.seen.append("train ends")


def test_callbacks_see_the_loop_as_they_see_fit(tmp_path: Path) -> None:
    """The same events in the same order."""
    counting = Counting()
    manager = kct.CheckpointManager(tmp_path, model=make_model(), callbacks=[counting])
    for _ in manager.epochs(1):
        for _ in manager.batches([1, 2]):
            pass
        manager.log(loss=1.0)
    assert counting.seen == [
        *("train begins", "epoch 0 begins"),
        *("batch 0 begins", "batch 0 ends", "batch 1 begins", "batch 1 ends"),
        *("epoch 0 ends with ['loss']", "train ends"),
    ]


def test_early_stopping_ends_the_loop(tmp_path: Path) -> None:
    """And brings back the best weights."""
    model = make_model()
    stopping = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    manager = kct.CheckpointManager(tmp_path, model=model, callbacks=[stopping])
    weights = []
    for epoch in manager.epochs(10):
        model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        manager.log(loss=[3.0, 1.0, 2.0, 2.0, 2.0][epoch])
        weights.append(epoch)
    assert weights == [0, 1, 2, 3]
    assert model.get_weights()[0].item() == 1.0


def test_patience_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Two epochs without improvement, one of them before the restart."""

    def run(epochs: int) -> list[int]:
        stopping = keras.callbacks.EarlyStopping("loss", patience=2)
        manager = kct.CheckpointManager(tmp_path, model=make_model(), callbacks=[stopping])
        done = []
        for epoch in manager.epochs(epochs):
            manager.log(loss=1.0)
            done.append(epoch)
        return done

    assert run(2) == [0, 1]
    assert run(9) == [2]
    with pytest.warns(UserWarning, match="EarlyStopping had stopped the run after 3 epochs"):
        assert run(9) == []  # It had stopped, and stays so.


def test_a_rate_that_decays_at_each_epoch_begin_decays_once(tmp_path: Path) -> None:
    """Also where the epoch is gone on with in its middle."""

    def run(batches: int) -> float:
        model = make_model()
        decay = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
        manager = kct.CheckpointManager(tmp_path, model=model, save_freq=1, callbacks=[decay])
        for _ in manager.epochs(1):
            for number in manager.batches([1, 2, 3]):
                model.optimizer.apply([np.zeros((1, 1)), np.zeros(1)], model.trainable_variables)
                if number == batches:
                    break
            if batches < 3:
                break
        return float(model.optimizer.learning_rate.numpy())

    assert run(2) == 0.25
    assert run(3) == 0.25


def test_callbacks_need_a_model(tmp_path: Path) -> None:
    """Keras' callbacks stop it and read its optimizer."""
    with pytest.raises(kct.errors.ArgumentError, match="no model is tracked"):
        kct.CheckpointManager(
            tmp_path, weight=tf.Variable(1.0), callbacks=[keras.callbacks.TerminateOnNaN()]
        )


def test_a_callback_that_is_missing_after_a_restart_is_named(tmp_path: Path) -> None:
    """It was taken away by the user, who may train on without it."""
    manager = kct.CheckpointManager(
        tmp_path, model=make_model(), callbacks=[keras.callbacks.EarlyStopping("loss")]
    )
    for _ in manager.epochs(1):
        manager.log(loss=1.0)
    again = kct.CheckpointManager(tmp_path, model=make_model())
    with pytest.warns(UserWarning, match="'EarlyStopping' is not used: this call"):
        assert list(again.epochs(2)) == [1]


def draw() -> list[float]:
    """Draw from every generator of the process."""
    return [
        random.random(),
        np.random.random(),
        float(tf.random.uniform(())),
        float(keras.random.uniform(())),
    ]


def test_the_generators_of_the_process_go_on(tmp_path: Path) -> None:
    """What is drawn after a restart is what would have been drawn."""
    keras.utils.set_random_seed(5)
    draw()
    manager = kct.CheckpointManager(tmp_path, weight=tf.Variable(1.0))
    for _ in manager.epochs(1):
        draw()
    expected = draw()
    keras.utils.set_random_seed(99)
    again = kct.CheckpointManager(tmp_path, weight=tf.Variable(1.0))
    with pytest.warns(UserWarning, match="random generators of the checkpoint are used"):
        again.restore_or_initialize()
    assert draw() == expected


def seeded() -> tf.data.Dataset:
    """Return a pipeline of another order in each epoch."""
    return tf.data.Dataset.range(8).shuffle(8, seed=3).batch(2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: kct.data.ArrayDataset(np.arange(8), batch_size=2, shuffle=True, seed=3),
        lambda: kct.data.resumable(
            lambda epoch: tf.data.Dataset.range(8).shuffle(8, seed=epoch).batch(2)
        ),
        seeded,
    ],
    ids=["ArrayDataset", "resumable", "seeded tf.data"],
)
@pytest.mark.parametrize("stop", [(1, 2), (2, 0), (2, 3)])
def test_a_loop_gets_the_batches_that_it_would_have_had(
    make: Callable[[], Any], stop: tuple[int, int], tmp_path: Path
) -> None:
    """Whole, and left in the middle and gone on with in new objects."""

    def run(path: Path, stop: tuple[int, int] | None = None) -> list[tuple[int, list[int]]]:
        weight, data, seen = tf.Variable(0), make(), []
        manager = kct.CheckpointManager(path, save_freq=1, weight=weight)
        for epoch in manager.epochs(4):
            for index, batch in enumerate(manager.batches(data)):
                if (epoch, index) == stop:
                    return seen
                values = batch[0] if isinstance(batch, tuple) else batch
                seen.append((epoch, np.asarray(values).tolist()))
        return seen

    whole = run(tmp_path / "whole")
    assert len(whole) == 16
    first = run(tmp_path / "cut", stop)
    assert first + run(tmp_path / "cut") == whole


def test_an_iterator_of_tf_data_is_tracked(tmp_path: Path) -> None:
    """A loop by steps draws from it, and goes on where it was."""

    def run(path: Path, until: int) -> list[list[int]]:
        iterator = iter(tf.data.Dataset.range(20).repeat().shuffle(10, seed=1).batch(3))
        manager = kct.CheckpointManager(path, save_freq=4, iterator=iterator)
        return [next(iterator).numpy().tolist() for _ in manager.steps(until)]

    whole = run(tmp_path / "whole", 12)
    assert run(tmp_path / "cut", 8) + run(tmp_path / "cut", 12) == whole


def test_batches_that_may_be_others_are_told_of(tmp_path: Path) -> None:
    """A shuffle without a seed gives another order."""
    tf.random.set_seed(None)
    data = tf.data.Dataset.range(8).shuffle(8).batch(2)

    def run(until: int) -> None:
        manager = kct.CheckpointManager(tmp_path, save_freq=1, weight=tf.Variable(0))
        for _ in manager.epochs(1):
            for index, _ in enumerate(manager.batches(data)):
                if index == until:
                    return

    run(2)
    with pytest.warns(UserWarning, match=r"first 2 batches .* `shuffle` has no seed"):
        run(9)


@pytest.mark.parametrize("make", [lambda: random.Random(3), lambda: np.random.RandomState(3)])
def test_generators_of_python_and_numpy_can_be_tracked(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    """By a name, as the new ones of NumPy."""
    generator, again = make(), make()
    generator.random()
    kct.CheckpointManager(tmp_path, noise=generator).save()
    kct.CheckpointManager(tmp_path, noise=again).restore_or_initialize()
    assert again.random() == generator.random()


def test_an_iterator_that_is_tracked_is_not_skipped_twice(tmp_path: Path) -> None:
    """It is at its place already."""

    def run(path: Path, stop: int | None = None) -> list[int]:
        iterator = iter(tf.data.Dataset.range(6))
        manager = kct.CheckpointManager(path, save_freq=1, iterator=iterator)
        seen = []
        for _ in manager.epochs(1):
            for batch in manager.batches(iterator):
                if len(seen) == stop:
                    return seen
                seen.append(int(batch))
        return seen

    assert run(tmp_path, 3) + run(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_what_is_drawn_before_the_loop_changes_nothing_in_it(tmp_path: Path) -> None:
    """A program draws its fixed noise first, each time that it starts."""

    def run(path: Path, epochs: int) -> list[float]:
        keras.utils.set_random_seed(2)
        manager = kct.CheckpointManager(path, weight=tf.Variable(0.0))
        manager.restore_or_initialize()
        np.random.random()
        return [np.random.random() for _ in manager.epochs(epochs)]

    whole = run(tmp_path / "whole", 4)
    assert run(tmp_path / "cut", 2) + run(tmp_path / "cut", 4) == whole


def test_data_made_anew_in_each_epoch_keep_their_order(tmp_path: Path) -> None:
    """Nothing is made up for that was not there."""

    def run(path: Path, epochs: int) -> list[Any]:
        tf.random.set_seed(3)
        manager = kct.CheckpointManager(path, weight=tf.Variable(0.0))
        return [
            batch.numpy().tolist()
            for epoch in manager.epochs(epochs)
            for batch in manager.batches(tf.data.Dataset.range(8).shuffle(8, seed=epoch).batch(2))
        ]

    whole = run(tmp_path / "whole", 3)
    for cut in (1, 2):
        path = tmp_path / str(cut)
        assert run(path, cut) + run(path, 3) == whole


def test_other_data_are_refused(tmp_path: Path) -> None:
    """Another batch size would train samples twice."""

    def run(batch_size: int, until: int) -> None:
        data = kct.data.ArrayDataset(np.arange(8), batch_size=batch_size)
        manager = kct.CheckpointManager(tmp_path, save_freq=1, weight=tf.Variable(0.0))
        for _ in manager.epochs(1):
            for index, _ in enumerate(manager.batches(data)):
                if index == until:
                    return

    run(2, 2)
    with pytest.raises(kct.errors.ResumeError, match="batch size: expected 2, found 1"):
        run(1, 9)


# What a loop sets back at the beginning of an epoch.


class Own(keras.Model):
    """Has a metric of its own, which its loop updates."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = keras.metrics.Mean()
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 1))

    def call(self, x: Any) -> Any:
        return self.dense(x)

    @property
    def metrics(self) -> list[Any]:
        return [self.mean]


@pytest.mark.parametrize("tracked", [True, False])
def test_metrics_go_on_in_an_epoch_that_had_begun(tracked: bool, tmp_path: Path) -> None:
    """The loop resets them where the epoch begins, and draws numbers; both were done before."""

    def run(directory: Path, stop: float = 0.0) -> Any:
        keras.utils.set_random_seed(1)
        model, alone = Own(), keras.metrics.Mean()
        mean = alone if tracked else model.mean
        more: dict[str, Any] = {"mean": alone} if tracked else {}
        manager = kct.CheckpointManager(directory, model=model, save_freq=1, **more)
        drawn = 0.0
        for _ in manager.epochs(2):
            mean.reset_state()
            np.random.rand()
            for value in manager.batches([1.0, 2.0, 3.0, 4.0]):
                drawn = np.random.rand()
                mean.update_state(value + drawn)
                if value == stop:
                    return None
            manager.log(mean=mean.result())
        return manager.progress.history, drawn

    run(tmp_path / "cut", 3.0)
    assert run(tmp_path / "cut") == run(tmp_path / "alone")


@pytest.mark.parametrize("resets", [True, False])
def test_metrics_that_the_first_batch_builds_are_told_of_where_they_count(
    resets: bool, tmp_path: Path
) -> None:
    """`train_on_batch` of newer versions of Keras resets them for each batch."""

    def run(stop: int = -1) -> None:
        model = make_model()
        model.compile(model.optimizer, "mse", metrics=["mae"])
        x = np.ones((2, 1), "float32")
        manager = kct.CheckpointManager(tmp_path, model=model, save_freq=1)
        for _ in manager.epochs(1):
            for index in manager.batches([0, 1, 2, 3]):
                if resets:
                    model.reset_metrics()
                model.compute_metrics(x, x, model(x))
                model.optimizer.apply([x[:1], x[0]], model.trainable_variables)
                if index == stop:
                    return

    run(1)
    if resets:
        run()
        return
    with pytest.warns(UserWarning, match="was compiled with started over in the middle"):
        run()

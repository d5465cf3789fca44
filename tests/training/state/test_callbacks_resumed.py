"""Keras' own callbacks, each with real training: stopped, restored into new objects, continued.

What they leave is compared with what an uninterrupted run leaves, between epochs and in the middle
of one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import resuming
import tensorflow as tf
from processes import run, run_killed
from programs import small_model
from resuming import Outcome, Script

from keras_ckpt_tools.training.state.callbacks import CallbackStates

# The best of it is at epoch 2; after that come a little better ones, and none.
CURVE = (0.9, 0.7, 0.5, 0.6, 0.7, 0.55, 0.8, 0.9)
PLACES = [(3, 0), (0, 2), (3, 1)]
places = pytest.mark.parametrize("place", PLACES, ids=lambda p: f"epoch {p[0]}, batch {p[1]}")


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., tuple[Outcome, Outcome]]:
    """A function that runs a program uninterrupted, and again in two parts; returns both ends."""

    def do(make: Callable[[Path], list[Any]], place: Any, **arguments: Any) -> Any:
        (tmp_path / "whole").mkdir()
        (tmp_path / "parts").mkdir()

        def run_it(name: str, **more: Any) -> Outcome:
            path = tmp_path / name / "state"
            return resuming.train(path, lambda: make(tmp_path / name), **arguments, **more)

        whole = run_it("whole")
        run_it("parts", stop_at=place)
        resumed = run_it("parts")
        assert resumed.weights() == whole.weights()
        assert resumed.last_epoch == whole.last_epoch
        for epoch, logs in resumed.logs.items():
            assert logs == whole.logs[epoch]
        return whole, resumed

    return do


def attributes_of(callback: Any, *names: str) -> list[Any]:
    """Return some attributes, with arrays as bytes."""
    values = [getattr(callback, name) for name in names]
    return [[w.tobytes() for w in v] if isinstance(v, list) else v for v in values]


STOPPING = ("wait", "best", "best_epoch", "stopped_epoch", "best_weights", "min_delta", "patience")


@places
@pytest.mark.parametrize(
    "arguments",
    [
        {"patience": 3, "restore_best_weights": True},
        {"patience": 2, "start_from_epoch": 2, "min_delta": 0.01},
        {"patience": 2, "baseline": 0.45},
        {"patience": 9, "min_delta": -0.2, "restore_best_weights": True},
    ],
    ids=str,
)
def test_early_stopping_stops_where_it_would_have_stopped(
    arguments: dict[str, Any], place: Any, compare: Any
) -> None:
    """With the patience that was left, the best weights, and `min_delta` of the right sign."""

    def make(directory: Path) -> list[Any]:
        return [
            Script(watched=CURVE),
            keras.callbacks.EarlyStopping("watched", mode="min", **arguments),
        ]

    whole, resumed = compare(make, place, epochs=8)
    assert attributes_of(resumed.callbacks[1], *STOPPING) == attributes_of(
        whole.callbacks[1], *STOPPING
    )


def test_early_stopping_that_had_stopped_restores_the_best_weights(tmp_path: Path) -> None:
    """Killed after the save of the last epoch: it wished to stop, and has the weights for it."""

    def make() -> list[Any]:
        stopping = keras.callbacks.EarlyStopping(
            "watched", mode="min", patience=2, restore_best_weights=True
        )
        return [Script(watched=CURVE), stopping]

    whole = resuming.train(tmp_path / "whole", make, epochs=8)
    assert whole.last_epoch == 4
    resuming.train(tmp_path / "parts", make, epochs=8, stop_at=(5, 0))
    resumed = resuming.train(tmp_path / "parts", make, epochs=8)
    assert resumed.last_epoch == -1
    assert resumed.weights() == whole.weights()


@places
def test_reduce_lr_on_plateau_reduces_at_the_same_epochs(place: Any, compare: Any) -> None:
    """Cooldown and wait go on."""

    def make(directory: Path) -> list[Any]:
        return [
            Script(watched=(0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.9, 0.9)),
            keras.callbacks.ReduceLROnPlateau(
                "watched", mode="min", patience=1, cooldown=3, factor=0.5, min_delta=0.01
            ),
        ]

    whole, resumed = compare(make, place, epochs=8)
    names = ("wait", "cooldown_counter", "best")
    assert attributes_of(resumed.callbacks[1], *names) == attributes_of(whole.callbacks[1], *names)
    assert len({logs["learning_rate"] for logs in whole.logs.values()}) > 2


@places
def test_learning_rate_scheduler_makes_no_step_twice(place: Any, compare: Any) -> None:
    """Also in an epoch that had begun, whose `on_epoch_begin` is called a second time."""

    def make(directory: Path) -> list[Any]:
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)]

    whole, _ = compare(make, place)
    assert whole.logs[5]["learning_rate"] == pytest.approx(0.01 * 0.5**6)


@places
@pytest.mark.parametrize("save_freq", ["epoch", 3])
def test_model_checkpoint_of_keras_keeps_the_best(
    save_freq: Any, place: Any, compare: Any, tmp_path: Path
) -> None:
    """What is worse than the best before the restart does not overwrite it."""

    def make(directory: Path) -> list[Any]:
        best = save_freq == "epoch"
        path = directory / ("best.keras" if best else "{epoch}-{batch}.weights.h5")
        return [
            Script(watched=(0.5, 0.4, 0.6, 0.7, 0.8, 0.9)),
            keras.callbacks.ModelCheckpoint(
                path,
                "watched",
                mode="min",
                save_best_only=best,
                save_weights_only=not best,
                save_freq=save_freq,
            ),
        ]

    whole, resumed = compare(make, place)
    names = ("best", "_batches_seen_since_last_saving", "_last_batch_seen", "_current_epoch")
    assert attributes_of(resumed.callbacks[1], *names) == attributes_of(whole.callbacks[1], *names)
    files = [
        {path.name for path in (tmp_path / name).iterdir() if path.name != "state"}
        for name in ("whole", "parts")
    ]
    assert files[0] == files[1]
    if save_freq == "epoch":
        models = [
            keras.models.load_model(tmp_path / name / "best.keras") for name in ("whole", "parts")
        ]
        first, second = ([w.tobytes() for w in model.get_weights()] for model in models)
        assert first == second != [w.tobytes() for w in whole.model.get_weights()]


def test_model_checkpoint_of_this_package_saves_at_the_same_batches(
    compare: Any, tmp_path: Path
) -> None:
    """It finds its best again by itself; its cadence goes on, and nothing is complained of."""
    import keras_ckpt_tools as kct

    def make(directory: Path) -> list[Any]:
        return [kct.ModelCheckpoint(directory / "{epoch}-{batch}.weights.h5", save_freq=3,
                                    save_weights_only=True)]  # fmt: skip

    compare(make, (2, 1))
    files = [
        sorted(path.name for path in (tmp_path / name).glob("*.h5")) for name in ("whole", "parts")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 8


@places
@pytest.mark.parametrize(
    ("append", "there"),
    [(False, None), (True, None), (True, b""), (True, b"epoch,loss,val_loss\r\n0,9.0,NA\r\n")],
)
def test_csv_logger_leaves_the_same_file(
    append: bool, there: bytes | None, place: Any, compare: Any, tmp_path: Path
) -> None:
    """Byte for byte: one header, each row once, with `append=False` and where there was a file."""

    def make(directory: Path) -> list[Any]:
        path = directory / "log.csv"
        if there is not None and not (directory / "state").exists():
            path.write_bytes(there)
        return [keras.callbacks.CSVLogger(path, append=append)]

    whole, resumed = compare(make, place, epochs=8)
    files = [(tmp_path / name / "log.csv").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    assert files[0].count(b"epoch,") == 1
    assert files[0].startswith(there or b"")
    # A later `fit()` writes its header, or not, as it would have.
    for outcome in (whole, resumed):
        logger = outcome.callbacks[0]
        logger.on_train_begin()
        logger.on_epoch_end(0, {"loss": 0.5})
        logger.on_train_end()
    files = [(tmp_path / name / "log.csv").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_csv_logger_keeps_its_columns(compare: Any, tmp_path: Path) -> None:
    """They are those of the first row, though the rows after the restart have other logs."""

    class Sometimes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch % 2:
                logs |= {"val_loss": 0.5, "extra": 1.0}

    compare(lambda d: [Sometimes(), keras.callbacks.CSVLogger(d / "log.csv", ";")], (3, 0))
    files = [(tmp_path / name / "log.csv").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    assert files[0].startswith(b"epoch;loss;val_loss\r\n")


def test_csv_logger_is_whole_after_a_kill(tmp_path: Path) -> None:
    """Rows of epochs that are repeated are there once; in processes that are really killed."""
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = run(resuming.log_and_be_killed, str(tmp_path / "whole"), 7, -1, -1)
    parts = str(tmp_path / "parts")
    run_killed(resuming.log_and_be_killed, parts, 7, 1, 3)
    run_killed(resuming.log_and_be_killed, parts, 7, 3, 3)
    run_killed(resuming.log_and_be_killed, parts, 7, 4, 6)
    assert run(resuming.log_and_be_killed, parts, 7, -1, -1) == whole
    assert whole.count(b"\n") == 8


def averaging_model() -> keras.Model:
    """Return a model whose optimizer keeps an average of the weights."""
    model = small_model(0.3)
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, keras.losses.MeanSquaredError())
    return resuming.eager(model)


@places
@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_swap_ema_weights_knows_which_weights_are_in_the_model(
    swap_on_epoch: bool, place: Any, compare: Any
) -> None:
    """Between `on_epoch_end` and the next epoch the model holds the averages."""

    def make(directory: Path) -> list[Any]:
        return [keras.callbacks.SwapEMAWeights(swap_on_epoch)]

    whole, resumed = compare(make, place, make_model=averaging_model, validate=True)
    flags = [outcome.callbacks[0]._ema_weights_in_model for outcome in (whole, resumed)]
    assert flags == [swap_on_epoch, swap_on_epoch]
    assert len({logs["val_loss"] for logs in whole.logs.values()}) == 6


def test_terminate_on_nan_ends_training_once(tmp_path: Path) -> None:
    """Its wish is the model's `stop_training`: nothing more is trained after a restart."""

    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.now = epoch == 2

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if self.now and batch == 1:
                self.model.weights[0].assign(self.model.weights[0] * np.nan)

    def make() -> list[Any]:
        return [Poison(), keras.callbacks.TerminateOnNaN()]

    whole = resuming.train(tmp_path / "whole", make)
    assert whole.last_epoch == 2
    resuming.train(tmp_path / "parts", make, stop_at=(3, 0))
    assert resuming.train(tmp_path / "parts", make).last_epoch == -1


def events_in(directory: Path) -> set[Any]:
    """Return what TensorBoard would show: tag, step and value, but not when."""
    found = set()
    for path in directory.rglob("events.out.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                array = tf.make_ndarray(value.tensor) if value.HasField("tensor") else np.array(0)
                # Of an array of strings the bytes would be addresses.
                shown = str(array) if array.dtype == object else array.tobytes()
                found.add((path.parent.name, value.tag, event.step, shown))
    return found


@places
def test_tensorboard_goes_on_with_its_steps(place: Any, compare: Any, tmp_path: Path) -> None:
    """The files of both parts together show what those of the uninterrupted run show."""
    pytest.importorskip("tensorboard")

    def make(directory: Path) -> list[Any]:
        board = keras.callbacks.TensorBoard(
            directory / "logs", update_freq=1, histogram_freq=2, write_steps_per_second=False
        )
        return [board]

    whole, resumed = compare(make, place, validate=True)
    names = ("_global_train_batch", "_global_test_batch", "_should_write_train_graph")
    assert attributes_of(resumed.callbacks[0], *names) == attributes_of(whole.callbacks[0], *names)
    assert whole.callbacks[0]._global_train_batch == 24
    shown = [events_in(tmp_path / name / "logs") for name in ("whole", "parts")]
    assert shown[0] == shown[1]
    assert len(shown[0]) > 24


def test_tensorboard_ends_no_profile_that_it_did_not_begin(tmp_path: Path) -> None:
    """Whether the profiler runs is a matter of the process, and not of the run."""
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(tmp_path, write_steps_per_second=True)
    board.set_model(averaging_model())
    states = CallbackStates([board])
    board.on_train_begin()
    states.begin()
    board.on_epoch_begin(0)
    board._is_tracing = board._profiler_started = True
    board._global_train_batch = 7
    state = states.get_state()["TensorBoard"]["attributes"]
    board._is_tracing = board._profiler_started = False
    board.on_train_end()
    assert state == {"_global_train_batch": 7}


def test_functions_of_a_lambda_callback_are_called_as_before(compare: Any) -> None:
    """It has no state of its own; what its functions close over is the user's."""
    seen: list[int] = []
    compare(
        lambda d: [
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
        ],
        (2, 0),
    )
    assert seen == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]


def test_all_of_them_together_in_a_fit(tmp_path: Path) -> None:
    """`fit()` itself, stopped after an epoch and called again with new objects."""

    def make(directory: Path) -> list[Any]:
        return [
            Script(val_loss=(0.9, 0.7, 0.8, 0.75, 0.8, 0.85, 0.9, 0.9)),
            keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
            keras.callbacks.EarlyStopping(patience=4, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau(patience=1, cooldown=1, factor=0.5),
            keras.callbacks.ModelCheckpoint(directory / "best.keras", save_best_only=True),
            keras.callbacks.CSVLogger(directory / "log.csv"),
            keras.callbacks.TerminateOnNaN(),
        ]

    x, y = resuming.small_data(2)
    outcomes = []
    for name, stops in (("whole", [None]), ("parts", [0, 2, 3, None])):
        directory = tmp_path / name
        directory.mkdir()
        for stop in stops:
            outcome = resuming.fit(
                directory / "state",
                lambda directory=directory: make(directory),
                epochs=8,
                stop_after=stop,
                make_model=averaging_model,
                validation_data=(x, y),
            )
        outcomes.append(outcome)
    whole, resumed = outcomes
    assert whole.last_epoch == 5
    assert resumed.weights() == whole.weights()
    assert resumed.logs == {e: logs for e, logs in whole.logs.items() if e > 3}
    files = [(tmp_path / name / "log.csv").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]

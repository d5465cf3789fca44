"""Each row of docs/resuming.md: a run is cut, and started again with one thing changed."""

from __future__ import annotations

import copy
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import small_data

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, CkptError
from keras_ckpt_tools.runs.phases import forget_phases
from keras_ckpt_tools.training.changes import CHANGEABLE

X, Y = small_data(8)
PAGE = Path(__file__).parents[2] / "docs" / "resuming.md"
PLACES = ("between", "inside")


class Interrupted(Exception):
    """The end of a process, to a run."""


class InterruptAt(keras.callbacks.Callback):
    """Interrupt after so many updates."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == 6:
            raise Interrupted


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    forget_phases()
    yield
    keras.config.set_dtype_policy("float32")


def network(*more: Any, **names: str) -> list[Any]:
    """Return the layers of a model."""
    return [keras.Input((4,)), keras.layers.Dense(3, **names), *more, keras.layers.Dense(1)]


def arrays(batch_size: int = 4, count: int = 16, **named: Any) -> kct.data.ArrayDataset:
    """Return four batches of another order in each epoch."""
    named = {"shuffle": True, "seed": 2} | named
    return kct.data.ArrayDataset(X[:count], Y[:count], batch_size=batch_size, **named)


def pipeline() -> tf.data.Dataset:
    """Return four batches of another order in each epoch."""
    return tf.data.Dataset.from_tensor_slices((X[:16], Y[:16])).shuffle(16, seed=2).batch(4)


def stopping(**named: Any) -> Any:
    """Return a callback that never stops anything."""
    return keras.callbacks.EarlyStopping("loss", **{"patience": 9} | named)


def decay(rate: float = 0.5) -> Any:
    """Return a schedule."""
    return keras.optimizers.schedules.ExponentialDecay(0.01, 4, rate)


@dataclass(frozen=True)
class Program:
    """A program, as it was first started; a row replaces a part of it."""

    data: Callable[[], Any] = arrays
    layers: Callable[[], list[Any]] = network
    optimizer: Callable[[], Any] = lambda: keras.optimizers.Adam(0.01)
    loss: str = "mse"
    metrics: tuple[str, ...] = ("mae",)
    carried: Callable[[], list[Any]] = list
    epochs: int = 3
    seed: int = 4
    policy: str = "float32"
    compile: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    backup: dict[str, Any] = field(default_factory=dict)
    move: bool = False

    def run(self, directory: Path, *more: Any, **backup: Any) -> Any:
        """Train; return the history and the model."""
        if self.move:
            # The process that has been killed does not hold it any more; this one does.
            directory = Path(shutil.copytree(directory, f"{directory}-moved"))
        keras.config.set_dtype_policy(self.policy)
        keras.utils.set_random_seed(self.seed)
        model = keras.Sequential(self.layers())
        together = {"run_eagerly": True} if "steps_per_execution" not in self.compile else {}
        model.compile(
            self.optimizer(), self.loss, metrics=list(self.metrics), **together, **self.compile
        )
        carried = self.carried()
        callback = kct.BackupAndRestore(directory, callbacks=carried, **backup | self.backup)
        data = self.data()
        x = data if isinstance(data, tuple) else (data,)
        history = model.fit(
            *x, epochs=self.epochs, verbose=0, callbacks=[*carried, callback, *more], **self.fit
        )
        return history, model


def _numpy() -> tuple[Any, Any]:
    return X[:16], Y[:16]


OF_ARRAYS = {"data": _numpy, "fit": {"batch_size": 4, "shuffle": False}}
# What differs from `Program` in the first start, and in the second.
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "batch size": ({}, {"data": lambda: arrays(8)}),
    "more data": ({}, {"data": lambda: arrays(count=24)}),
    "NumPy arrays to `tf.data`": (OF_ARRAYS, {"data": pipeline, "fit": {"shuffle": False}}),
    "`tf.data` to `ArrayDataset`": ({"data": pipeline, "fit": {"shuffle": False}}, {"fit": {}}),
    "`shuffle`": ({}, {"data": lambda: arrays(shuffle=False)}),
    "seed of the data": ({}, {"data": lambda: arrays(seed=3)}),
    "global seed": ({}, {"seed": 5}),
    "class of the optimizer": ({}, {"optimizer": lambda: keras.optimizers.SGD(0.01)}),
    "learning rate, a number": ({}, {"optimizer": lambda: keras.optimizers.Adam(0.02)}),
    "learning rate, arguments of a schedule": (
        {"optimizer": lambda: keras.optimizers.Adam(decay())},
        {"optimizer": lambda: keras.optimizers.Adam(decay(0.9))},
    ),
    "learning rate, a number to a schedule": (
        {},
        {"optimizer": lambda: keras.optimizers.Adam(decay())},
    ),
    "learning rate, a schedule to a number": (
        {"optimizer": lambda: keras.optimizers.Adam(decay())},
        {},
    ),
    "another argument of the optimizer": (
        {},
        {"optimizer": lambda: keras.optimizers.Adam(0.01, weight_decay=0.1)},
    ),
    "loss": ({}, {"loss": "mae"}),
    "a metric more": ({}, {"metrics": ("mae", "mape")}),
    "a metric less": ({}, {"metrics": ()}),
    "a carried callback more": ({}, {"carried": lambda: [stopping()]}),
    "a carried callback less": ({"carried": lambda: [stopping()]}, {}),
    "arguments of a callback": (
        {"carried": lambda: [stopping()]},
        {"carried": lambda: [stopping(patience=7)]},
    ),
    "`epochs` larger": ({}, {"epochs": 5}),
    "`epochs` smaller than what is done": ({}, {"epochs": 1}),
    "`steps_per_execution`": (
        {"compile": {"steps_per_execution": 1}},
        {"compile": {"steps_per_execution": 4}},
    ),
    "`save_freq`": ({}, {"backup": {"save_freq": 3}}),
    "`double_checkpoint`": ({}, {"backup": {"double_checkpoint": True}}),
    "the directory, moved": ({}, {"move": True}),
    "a layer more": ({}, {"layers": lambda: network(keras.layers.Dense(2))}),
    "a layer less": ({"layers": lambda: network(keras.layers.Dense(2))}, {}),
    "a layer renamed": (
        {"layers": lambda: network(name="first")},
        {"layers": lambda: network(name="other")},
    ),
    "dtype policy": ({}, {"policy": "mixed_float16"}),
}


def of_page(section: str) -> dict[str, tuple[str, str]]:
    """Return the answers of a table on the page, by what has changed."""
    text = PAGE.read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return {name: (one, other) for name, one, other in rows if not name.startswith("what has")}


def cases(section: str) -> list[tuple[str, str]]:
    """Return the rows of a table, each at both places; without `KCT_TORTURE` where they differ."""
    everywhere = bool(os.environ.get("KCT_TORTURE"))
    both = {row: everywhere or one != other for row, (one, other) in of_page(section).items()}
    return [(row, place) for row in both for place in (PLACES if both[row] else PLACES[1:])]


def test_the_page_and_these_tests_have_the_same_rows() -> None:
    """No row is claimed that is not run."""
    assert list(of_page("With `fit()`")) == list(ROWS)
    assert list(of_page("With a `CheckpointManager`")) == list(LOOPS)
    text = PAGE.read_text(encoding="utf-8").partition("| in `changed=` |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r'^\| `"(\w+)"`', text, re.MULTILINE)) == CHANGEABLE


def answered(restart: Callable[..., Any], directory: Path) -> tuple[str, Any]:
    """Return which of the three answers a restart gives, and its result; follow the advice."""
    copy = directory.with_name(f"{directory.name}-copy")
    shutil.copytree(directory, copy)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            result = restart(directory)
        except CkptError as error:
            message = str(error)
        else:
            ours = [str(each.message) for each in told if _is_ours(each)]
            return ("warning" if ours else "exact"), result
    if "load_weights" in message:
        # The advice is another run, with what fits.
        assert "resume='never'" in message
        return "refused: `load_weights`", restart(copy, resume="never")
    (name,) = re.findall(r"changed='(\w+)'", message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f'refused: `changed="{name}"`', restart(copy, changed=name)


def _is_ours(told: Any) -> bool:
    words = ("raining continues", "Nothing is left", "starts over from")
    return any(word in str(told.message) for word in words)


@pytest.mark.parametrize(("row", "place"), cases("With `fit()`"))
def test_a_changed_program_is_answered_as_the_page_says(
    row: str, place: str, tmp_path: Path
) -> None:
    """And what the answer advises works."""
    before, after = ROWS[row]
    directory = tmp_path / "backup"
    save_freq: Any = "epoch" if place == "between" else 1
    with pytest.raises(Interrupted):
        Program(**before).run(directory, InterruptAt(), save_freq=save_freq)

    def restart(where: Path, **backup: Any) -> Any:
        forget_phases()
        return Program(**after).run(where, save_freq=save_freq, **backup)

    answer, (history, _) = answered(restart, directory)
    assert answer == of_page("With `fit()`")[row][PLACES.index(place)]
    assert history.epoch == list(range(after.get("epochs", 3)))


def cut(directory: Path, save_freq: Any = "epoch", **first: Any) -> None:
    """Leave an interrupted run."""
    with pytest.raises(Interrupted):
        Program(**first).run(directory, InterruptAt(), save_freq=save_freq)
    forget_phases()


class Rates(keras.callbacks.Callback):
    """Note the learning rate of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(round(float(self.model.optimizer.learning_rate), 6))


@pytest.mark.parametrize("changed", [(), "learning_rate"])
def test_which_learning_rate_counts(changed: Any, tmp_path: Path) -> None:
    """The checkpoint's, and the program's where that is said to have changed."""
    cut(tmp_path)
    rates, other = Rates(), Program(optimizer=lambda: keras.optimizers.Adam(0.02))
    with warnings.catch_warnings():
        warnings.simplefilter("error" if changed else "ignore")
        other.run(tmp_path, rates, changed=changed)
    assert rates.seen == [0.02 if changed else 0.01] * 2


def test_changed_can_stay_in_the_program(tmp_path: Path) -> None:
    """The next restart finds no difference any more, and restores what a callback has set."""
    cut(tmp_path)
    other = Program(optimizer=lambda: keras.optimizers.Adam(0.02), epochs=4)

    class Lower(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                self.model.optimizer.learning_rate = 0.005
            if epoch == 3:
                raise Interrupted

    with pytest.raises(Interrupted):
        other.run(tmp_path, Lower(), changed="learning_rate")
    forget_phases()
    rates = Rates()
    other.run(tmp_path, rates, changed="learning_rate")
    assert rates.seen == [0.005]


def test_a_copied_callback_takes_changed_along(tmp_path: Path) -> None:
    """Tuners copy callbacks for each trial."""
    backup = copy.deepcopy(kct.BackupAndRestore(tmp_path, changed="data"))
    assert backup._state._changes is backup._changes
    assert backup._changes.changed == {"data"}


def test_a_lowered_learning_rate_is_no_change_of_the_program(tmp_path: Path) -> None:
    """What a callback has set is restored in silence."""

    class Lower(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = 0.003

    with pytest.raises(Interrupted):
        Program().run(tmp_path, Lower(), InterruptAt())
    forget_phases()
    rates = Rates()
    Program().run(tmp_path, rates)
    assert rates.seen == [0.003] * 2


class Momenta(keras.callbacks.Callback):
    """Note what the optimizer holds of each variable when the second epoch begins."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            held = [v for v in self.model.optimizer.variables if len(v.shape)]
            self.seen = [np.asarray(each).tobytes() for each in held]


@pytest.mark.parametrize("to_schedule", [True, False])
def test_momenta_survive_another_kind_of_learning_rate(to_schedule: bool, tmp_path: Path) -> None:
    """A number is a variable of the optimizer and a schedule is none: its arrays move by one."""
    kinds = [lambda: keras.optimizers.Adam(0.01), lambda: keras.optimizers.Adam(decay())]
    before, after = kinds if to_schedule else kinds[::-1]
    first, second = Momenta(), Momenta()
    with pytest.raises(Interrupted):
        Program(optimizer=before).run(tmp_path, first, InterruptAt())
    forget_phases()
    Program(optimizer=after).run(tmp_path, second, changed="learning_rate")
    assert len(first.seen) == 8
    assert second.seen == first.seen


def test_the_program_s_optimizer_begins_anew(tmp_path: Path) -> None:
    """Its class is another; weights and epochs go on."""
    cut(tmp_path)
    other = Program(optimizer=lambda: keras.optimizers.SGD(0.01))
    history, model = other.run(tmp_path, changed=("optimizer", "data"))
    assert history.epoch == [0, 1, 2]
    assert int(model.optimizer.iterations) == 2 * 4


def test_samples_of_arrays_are_counted_as_samples(tmp_path: Path) -> None:
    """And batches as batches."""
    cut(tmp_path, 1, **OF_ARRAYS)
    more = {**OF_ARRAYS, "data": lambda: (X[:24], Y[:24])}
    with pytest.raises(CkptError) as caught:
        Program(**more).run(tmp_path)
    assert "samples of the arrays: expected 16, found 24" in str(caught.value)
    assert "batches of the dataset: expected 4, found 6" in str(caught.value)


def test_an_epoch_with_other_data_begins_again(tmp_path: Path) -> None:
    """The batches that were done are trained on a second time, which is said."""
    cut(tmp_path, save_freq=1)
    other = Program(data=lambda: arrays(8))
    with pytest.warns(
        UserWarning, match=r"Epoch 2 .*starts over .*batch size: expected 4, found 8"
    ):
        _, model = other.run(tmp_path, changed="data")
    assert int(model.optimizer.iterations) == 6 + 2 * 2


@pytest.mark.parametrize("changed", ["lr", ("data", 3), 5, None])
def test_what_cannot_change_is_refused(changed: Any, tmp_path: Path) -> None:
    """Before any training; the message lists what can."""
    for make in (kct.BackupAndRestore, kct.CheckpointManager):
        with pytest.raises(ArgumentError, match="'learning_rate'"):
            make(tmp_path, changed=changed)


# Loops.


@dataclass(frozen=True)
class Loop:
    """A loop, as it was first started; a row replaces a part of it."""

    data: Callable[[], Any] = arrays
    optimizer: Callable[[], Any] = lambda: keras.optimizers.Adam(0.01)
    epochs: int = 3
    seed: int = 4
    manager: dict[str, Any] = field(default_factory=dict)

    def run(self, directory: Path, cut_at: int = 99, **arguments: Any) -> list[int]:
        """Train; return the epochs that were trained."""
        keras.utils.set_random_seed(self.seed)
        weight = keras.Variable(np.ones(2, "float32"), name="weight")
        optimizer = self.optimizer()
        optimizer.build([weight])
        arguments = {"save_freq": "epoch"} | arguments | self.manager
        manager = kct.CheckpointManager(directory, optimizer=optimizer, weight=weight, **arguments)
        data, epochs = self.data(), []
        for epoch in manager.epochs(self.epochs):
            epochs.append(epoch)
            for _ in manager.batches(data):
                if int(optimizer.iterations) == cut_at:
                    raise Interrupted
                optimizer.apply([keras.ops.ones(2)], [weight])
        return epochs


LOOPS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "batch size of an `ArrayDataset`": {"data": lambda: arrays(8)},
    "class of the optimizer": {"optimizer": lambda: keras.optimizers.SGD(0.01)},
    "learning rate, a number": {"optimizer": lambda: keras.optimizers.Adam(0.02)},
    "global seed": {"seed": 5},
    "`save_freq`": {"manager": {"save_freq": 3}},
    "`max_to_keep`": {"manager": {"max_to_keep": 1}},
    "`format`": {"manager": {"format": "tf"}},
    "total of `epochs()`, larger": {"epochs": 5},
    "total of `epochs()`, what is done": {"epochs": 1},
}


@pytest.mark.parametrize(("row", "place"), cases("With a `CheckpointManager`"))
def test_a_changed_loop_is_answered_as_the_page_says(row: str, place: str, tmp_path: Path) -> None:
    """And what the answer advises works."""
    directory, save_freq = tmp_path / "run", "epoch" if place == "between" else 1
    with pytest.raises(Interrupted):
        Loop().run(directory, 6, save_freq=save_freq)

    def restart(where: Path, **arguments: Any) -> Any:
        return Loop(**LOOPS[row]).run(where, **{"save_freq": save_freq, **arguments})

    answer, epochs = answered(restart, directory)
    assert answer == of_page("With a `CheckpointManager`")[row][PLACES.index(place)]
    assert epochs == list(range(1, LOOPS[row].get("epochs", 3)))

"""Which of a callback's attributes are its state, how callbacks are named, and what is refused."""

from __future__ import annotations

import collections
import enum
import logging
import random
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import resuming
import state_files
import tensorflow as tf
from programs import small_model

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.training.state.callbacks import CallbackStates, restore_history


class Phase(enum.Enum):
    """What a callback does at the moment."""

    WARM_UP = "warm-up"
    TRAIN = "train"


Point = collections.namedtuple("Point", ["x", "y"])


class Scale:
    """Something with a state of its own."""

    def __init__(self) -> None:
        self.factor = 1.0

    def state_dict(self) -> Any:
        return {"factor": self.factor}

    def load_state_dict(self, state: Any) -> None:
        self.factor = state["factor"]


class Plain(keras.callbacks.Callback):
    """A callback as users write them: all it knows is in attributes."""

    seen_by_all: ClassVar[list[int]] = []

    def __init__(self, patience: int = 5, target: Any = None):
        super().__init__()
        self.patience = patience
        self.target = target

    def on_train_begin(self, logs: Any = None) -> None:
        self.count = 0
        self.text: str | None = None
        self.number = np.float32(0.0)
        self.nested: dict[Any, Any] = {"losses": [], 3: (1, None)}
        self.raw = b""
        self.names: set[str] = set()
        self.table = np.zeros((2, 2))
        self.tensor = tf.constant(0.0)
        self.variable = tf.Variable(0.0)
        self.keras_variable = keras.Variable([0.0, 0.0])
        self.last = collections.deque(maxlen=2)
        self.counts: Any = collections.defaultdict(int)
        self.phase = Phase.WARM_UP
        self.point = Point(0, 0)
        self.mean = keras.metrics.Mean()
        self.teacher = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        self.generator = np.random.default_rng(1)
        self.shuffler = random.Random(1)
        self.drawer = tf.random.Generator.from_seed(1)
        self.scale = Scale()

    def train(self) -> None:
        """Change all of it."""
        self.count += 3
        self.text = "text"
        self.number += np.float32(0.1)
        self.nested["losses"].append(float("nan"))
        self.nested["new"] = {"deep": [1, {2}]}
        self.raw = b"\0\1"
        self.names |= {"a", "b"}
        self.table += 1.5
        self.tensor += 0.5
        self.variable.assign(2.0)
        self.keras_variable.assign([3.0, 4.0])
        self.last.extend([1, 2, 3])
        self.counts["a"] += 2
        self.phase = Phase.TRAIN
        self.point = Point(1, 2)
        self.mean.update_state([1.0, 3.0])
        self.teacher.layers[0].bias.assign([7.0])
        self.generator.normal()
        self.shuffler.random()
        self.drawer.normal([])
        self.scale.factor = 9.0
        self.seen_by_all.append(1)

    def shown(self) -> dict[str, str]:
        """Return everything as text, exactly."""
        return {
            **{name: f"{type(value).__name__} {value!r}" for name, value in vars(self).items()
               if name in PLAIN},
            "last": repr(self.last),
            "counts": repr(self.counts),
            "mean": repr([np.asarray(v).tolist() for v in self.mean.variables]),
            "teacher": repr([w.tolist() for w in self.teacher.get_weights()][1]),
            "generator": repr(self.generator.bit_generator.state),
            "shuffler": repr(self.shuffler.getstate()),
            "drawer": repr(self.drawer.state.numpy().tolist()),
            "scale": repr(self.scale.factor),
            "keras_variable": repr(self.keras_variable.numpy().tolist()),
            "variable": repr(float(self.variable)),
            "seen_by_all": repr(self.seen_by_all),
        }  # fmt: skip


PLAIN = {"count", "text", "number", "raw", "names", "table", "tensor", "phase", "point", "nested"}


@pytest.fixture(autouse=True)
def class_list_put_back() -> Any:
    """Empty the list that the class holds, as a new process has it."""
    Plain.seen_by_all.clear()
    yield
    Plain.seen_by_all.clear()


def begun(*callbacks: Any) -> CallbackStates:
    """Return the states of callbacks whose training has begun."""
    states = CallbackStates(callbacks)
    for callback in callbacks:
        callback.on_train_begin()
    states.begin()
    return states


def test_plain_attributes_come_back_as_they_were() -> None:
    """Of every type that can be carried, with their types, in new objects."""
    trained, fresh = Plain(), Plain()
    states = begun(trained)
    trained.train()
    state = state_files.again(states.get_state())
    expected = trained.shown()
    Plain.seen_by_all.clear()
    restored = begun(fresh)
    assert not set(expected.items()) & set(fresh.shown().items())
    restored.set_state(state, 1, 0)
    assert fresh.shown() == expected
    # What can be counted on in training goes on: they are no copies that somebody else may change.
    fresh.train()
    trained.train()
    assert fresh.counts["a"] == 4
    assert fresh.last.maxlen == 2


def test_what_was_there_stays_the_same_object() -> None:
    """Variables are held by traced functions, and lists by the rest of the program."""
    results: list[float] = []

    class Collect(keras.callbacks.Callback):
        def __init__(self, results: list[float]):
            super().__init__()
            self.results = results

    fresh = Collect(results)
    states = begun(fresh)
    states.set_state({"Collect": {"attributes": {"results": [0.5]}}}, 1, 0)
    assert fresh.results is results
    assert results == [0.5]
    plain = Plain()
    states = begun(plain)
    held = [plain.variable, plain.nested, plain.last, plain.mean, plain.generator]
    plain.train()
    states.set_state(state_files.again(states.get_state()), 1, 0)
    now = [plain.variable, plain.nested, plain.last, plain.mean, plain.generator]
    assert all(a is b for a, b in zip(held, now, strict=True))


def test_arguments_that_training_did_not_change_stay_as_the_user_gives_them() -> None:
    """`patience=10` on restart instead of 5 is what he wants."""
    states = begun(Plain(patience=5))
    fresh = Plain(patience=10)
    begun(fresh).set_state(state_files.again(states.get_state()), 1, 0)
    assert fresh.patience == 10


def test_what_changed_and_changed_back_stays_in_the_state() -> None:
    """Otherwise the next process would begin it with something else."""
    saved = Plain()
    states = begun(saved)
    saved.count = 3
    fresh = Plain()
    restored = begun(fresh)
    restored.set_state(state_files.again(states.get_state()), 1, 0)
    fresh.count = 0
    assert restored.get_state()["Plain"]["attributes"] == {"count": 0}


def test_nothing_that_training_left_alone_is_in_the_state() -> None:
    """However large: a callback may hold all validation data."""
    assert begun(Plain(target=np.ones(1000))).get_state() == {"Plain": {"attributes": {}}}


def test_model_and_params_are_no_state() -> None:
    """Nor are variables that are saved with the model, nor parts of it."""

    class Parts(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.head = self.model.layers[-1]
            self.kernels = [self.head.kernel, self.model.layers[0].kernel.value]
            self.rate = self.model.optimizer.learning_rate
            self.whole = self.model

    parts = Parts()
    parts.set_model(small_model())
    states = begun(parts)
    for variable in [*parts.model.variables, *parts.model.optimizer.variables]:
        variable.assign(variable + 1)
    parts.params = {"epochs": 3}
    assert states.get_state() == {"Parts": {"attributes": {}}}


class Counted:
    """An object of a class that nobody knows."""

    def __init__(self) -> None:
        self.count = 0


def _function(callback: Any) -> None:
    callback.target = lambda: None


def _file(callback: Any) -> None:
    callback.target = open(__file__, encoding="utf-8")


def _inside(callback: Any) -> None:
    callback.kept.count += 1


def _late_variable(callback: Any) -> None:
    callback.late = tf.Variable(1.0)


def _late_deque(callback: Any) -> None:
    callback.target = {"a": collections.deque([1])}


def _nested(callback: Any) -> None:
    callback.target = {"a": [1, object()]}


def _circle(callback: Any) -> None:
    callback.target = []
    callback.target.append(callback.target)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_function, "target"),
        (_file, "target"),
        (_inside, "kept"),
        (_late_variable, "late"),
        (_late_deque, "target"),
        (_nested, "target"),
        (_circle, "target"),
    ],
)
def test_a_changed_attribute_that_cannot_be_held_is_named_once(change: Any, name: str) -> None:
    """With the callback's name; the others are saved all the same."""
    callback = Plain()
    callback.kept = Counted()
    states = begun(Plain(), callback)
    callback.count = 7
    change(callback)
    with pytest.warns(UserWarning, match=f"'{name}'.*'Plain_2'") as caught:
        first = states.get_state()
    assert len(caught) == 1
    assert first["Plain_2"] == states.get_state()["Plain_2"] == {"attributes": {"count": 7}}
    if change is _file:
        callback.target.close()


def test_what_cannot_be_held_and_did_not_change_is_not_complained_of() -> None:
    """Nor what the rest of the process does with a logger or a model of its own."""
    callback = Plain(target=[print, object(), logging.getLogger("it"), keras, Counted()])
    states = begun(callback)
    logging.getLogger("it").setLevel(logging.ERROR)
    assert states.get_state() == {"Plain": {"attributes": {}}}


class Own(keras.callbacks.Callback):
    """A callback that says what its state is."""

    def __init__(self) -> None:
        super().__init__()
        self.secret, self.helper = 1, None

    def get_state(self) -> Any:
        return {"secret": self.secret, "array": np.arange(3)}

    def set_state(self, state: Any) -> None:
        assert state["array"].tolist() == [0, 1, 2]
        self.secret = state["secret"]


def test_a_callback_with_methods_for_its_state_is_asked() -> None:
    """Its attributes are its own affair."""
    own = Own()
    states = begun(own)
    own.secret, own.helper = 5, print
    fresh = Own()
    begun(fresh).set_state(state_files.again(states.get_state()), 1, 0)
    assert fresh.secret == 5


def test_callbacks_of_one_class_are_numbered() -> None:
    """In the order given, and a class whose name looks like that has one of its own."""
    odd = type("EarlyStopping_2", (keras.callbacks.Callback,), {})
    callbacks = [keras.callbacks.EarlyStopping() for _ in range(3)]
    names = CallbackStates([*callbacks[:1], odd(), *callbacks[1:], Plain()]).names
    assert names == (
        "EarlyStopping",
        "EarlyStopping_2",
        "EarlyStopping_3",
        "EarlyStopping_4",
        "Plain",
    )


def test_something_else_than_a_callback_is_refused() -> None:
    """A class instead of an object, for example."""
    with pytest.raises(ArgumentError, match=r"only Keras callbacks"):
        CallbackStates([keras.callbacks.EarlyStopping])


def test_what_the_checkpoint_has_and_the_call_lacks_is_named() -> None:
    """What is new begins now, and what has no state of its own may come and go."""
    saved = begun(Plain(), Plain(), Own(), keras.callbacks.TerminateOnNaN())
    here = CallbackStates([Plain(), keras.callbacks.EarlyStopping(), keras.callbacks.History()])
    assert here.differences(saved.get_state()) == [
        "the state of the callback 'Plain_2' is not used: this call does not carry it",
        "the state of the callback 'Own' is not used: this call does not carry it",
    ]
    assert saved.differences(saved.get_state()) == []


def test_a_callback_that_gives_its_state_in_another_way_is_named() -> None:
    """It was given `get_state` after the run was saved; its own state stays as it is."""
    saved = begun(Plain()).get_state()
    other = type("Plain", (Own,), {})
    here = CallbackStates([other()])
    (sentence,) = here.differences(saved)
    assert "'Plain' starts over" in sentence
    assert here.fitting(saved) == {}


class Refuses(keras.callbacks.Callback):
    """A callback that takes nothing back."""

    def get_state(self) -> Any:
        return 1

    def set_state(self, state: Any) -> None:
        if state != 1:
            raise RuntimeError("not this one")


def test_if_one_refuses_all_are_as_they_were(tmp_path: Any) -> None:
    """Attributes, objects that were filled, files, and callbacks that were asked."""

    def make() -> list[Any]:
        logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
        return [Plain(), Own(), logger, Refuses()]

    callbacks = make()
    states = begun(*callbacks)
    callbacks[0].train()
    callbacks[1].secret = 5
    callbacks[2].on_epoch_end(0, {"loss": 0.5})
    state = state_files.again(states.get_state())
    callbacks[2].on_train_end()
    Plain.seen_by_all.clear()
    fresh = make()
    restored = begun(*fresh)
    fresh[2].on_epoch_end(0, {"other": 0.1})
    before = (fresh[0].shown(), fresh[1].secret, (tmp_path / "log.csv").read_bytes())
    state["Refuses"] = {"own": 2}
    with pytest.raises(ArgumentError, match=r"'Refuses'.*not this one"):
        restored.set_state(state, 1, 0)
    assert (fresh[0].shown(), fresh[1].secret, (tmp_path / "log.csv").read_bytes()) == before
    assert "text" in vars(fresh[0])
    assert "seen_by_all" not in vars(fresh[0])
    fresh[2].on_epoch_end(1, {"other": 0.2})
    fresh[2].on_train_end()
    assert (tmp_path / "log.csv").read_bytes() == before[2] + b"1,0.2,NA\r\n"


def test_a_callback_that_is_not_in_the_state_is_left_alone() -> None:
    """`differences` tells of it."""
    plain = Plain()
    states = begun(plain)
    plain.train()
    shown = plain.shown()
    states.set_state({}, 1, 0)
    assert plain.shown() == shown


def test_csv_rows_that_will_be_written_again_go_from_an_edited_file(tmp_path: Any) -> None:
    """Where the file is not what it was at the save, no row goes that will not come again."""
    path = tmp_path / "log.csv"
    logger = keras.callbacks.CSVLogger(path, append=True)
    states = begun(logger)
    for epoch in range(2):
        logger.on_epoch_end(epoch, {"loss": 0.5})
    state = state_files.again(states.get_state())
    logger.on_epoch_end(2, {"loss": 0.4})
    logger.on_train_end()
    edited = path.read_bytes().replace(b"0.5", b"0.50")
    path.write_bytes(edited + b"3,0.")
    fresh = keras.callbacks.CSVLogger(path, append=True)
    begun(fresh).set_state(state, 2, 0)
    fresh.on_epoch_end(2, {"loss": 0.4})
    fresh.on_train_end()
    assert path.read_bytes() == edited


@pytest.mark.parametrize("in_the_middle", [False, True])
def test_a_users_callback_goes_on_in_an_epoch_that_had_begun(
    in_the_middle: bool, tmp_path: Any
) -> None:
    """What it gathered since the epoch began is its state, too."""

    class Gather(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.epochs: list[list[float]] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.losses: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.losses.append(logs["loss"])

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.epochs.append(self.losses)

    place = (2, 3) if in_the_middle else (2, 0)
    whole = resuming.train(tmp_path / "whole", lambda: [Gather()])
    resuming.train(tmp_path / "parts", lambda: [Gather()], stop_at=place)
    resumed = resuming.train(tmp_path / "parts", lambda: [Gather()])
    assert resumed.callbacks[0].epochs == whole.callbacks[0].epochs
    assert [len(losses) for losses in whole.callbacks[0].epochs] == [4] * 6


def test_history_is_what_it_would_have_been() -> None:
    """Keras' own, in place, also of metrics that are not there in each epoch."""
    progress = TrainingProgress(
        history={"loss": (0.5, 0.4, 0.3), "val_loss": (0.6,)},
        history_epochs={"loss": (2, 3, 4), "val_loss": (3,)},
    )
    history = keras.callbacks.History()
    history.set_model(small_model())
    table = history.history
    history.on_train_begin()
    history.on_epoch_end(0, {"other": 1.0})
    restore_history(history, progress)
    history.on_epoch_end(5, {"loss": 0.2, "val_loss": 0.4})
    assert history.history is table
    assert history.epoch == [2, 3, 4, 5]
    assert table == {"loss": [0.5, 0.4, 0.3, 0.2], "val_loss": [0.6, 0.4]}


def test_the_history_of_a_run_that_has_none_is_empty() -> None:
    """Nothing is made up for epochs that nothing is known of."""
    history = keras.callbacks.History()
    restore_history(history, TrainingProgress(epochs_completed=3))
    assert (history.epoch, history.history) == ([], {})

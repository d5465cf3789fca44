"""What a record may set in a callback: data by a schema, and never where the next run writes."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import state_files
from programs import small_data, small_model

import keras_ckpt_tools as kct
from keras_ckpt_tools.formats.record import userblock
from keras_ckpt_tools.runs.phases import forget_phases
from keras_ckpt_tools.training.state.callback_rules import looks_like_path
from keras_ckpt_tools.training.state.callbacks import CallbackStates
from keras_ckpt_tools.training.state.known_callbacks import no_state_in, schema_of

EVIL = "elsewhere/evil.keras"


def begun(*callbacks: Any) -> CallbackStates:
    """Return the states of callbacks whose training has begun."""
    states = CallbackStates(callbacks)
    model = small_model()
    for callback in callbacks:
        callback.set_model(model)
        callback.set_params({"epochs": 3})
        callback.on_train_begin()
    states.begin()
    return states


def test_every_attribute_that_training_changes_is_in_a_schema(tmp_path: Path) -> None:
    """Of each of Keras' callbacks, in the Keras that is installed; or a reason stands there."""
    pytest.importorskip("tensorboard")
    callbacks = [
        keras.callbacks.EarlyStopping("loss", restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("loss"),
        keras.callbacks.ModelCheckpoint(tmp_path / "a.keras", "loss", save_best_only=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}-{batch}.keras", save_freq=3),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        keras.callbacks.TensorBoard(tmp_path / "logs", histogram_freq=1, update_freq=1),
    ]
    seen: dict[int, dict[str, str]] = {}

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            for number, callback in enumerate(callbacks):
                for name, value in vars(callback).items():
                    seen.setdefault(number, {}).setdefault(name, repr(value))

    model = small_model()
    optimizer = keras.optimizers.Adam(use_ema=True)
    model.compile(optimizer, "mse")
    x, y = small_data(2)
    look = Look()
    model.fit(x, y, epochs=2, batch_size=4, verbose=0, callbacks=[look, *callbacks],
              validation_data=(x, y))  # fmt: skip
    for number, callback in enumerate(callbacks):
        changed = {n for n, value in vars(callback).items() if seen[number].get(n) != repr(value)}
        assert changed <= set(schema_of(callback)[0]) | no_state_in(callback), callback


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (lambda p: keras.callbacks.CSVLogger(p / "log.csv"), "filename", EVIL),
        (lambda p: keras.callbacks.CSVLogger(p / "log.csv"), "sep", ";"),
        (lambda p: keras.callbacks.ModelCheckpoint(p / "a.keras"), "filepath", EVIL),
        (lambda p: keras.callbacks.ModelCheckpoint(p / "a.keras"), "save_best_only", True),
        (lambda p: kct.ModelCheckpoint(p / "a.keras"), "filepath", EVIL),
        (lambda p: kct.ModelCheckpoint(p / "a.keras"), "best", 0.5),
        (lambda p: keras.callbacks.TensorBoard(p / "logs"), "log_dir", EVIL),
        (lambda p: keras.callbacks.TensorBoard(p / "logs"), "_log_write_dir", EVIL),
        (lambda p: keras.callbacks.EarlyStopping("loss"), "monitor_op", 1),
        (lambda p: keras.callbacks.EarlyStopping("loss"), "surplus", 1),
        (lambda p: keras.callbacks.EarlyStopping("loss"), "patience", 10**9),
        (lambda p: keras.callbacks.EarlyStopping("loss"), "on_epoch_end", 1),
        (lambda p: keras.callbacks.EarlyStopping("loss"), "__class__", 1),
        (lambda p: keras.callbacks.EarlyStopping("loss"), "wait", -1),
        (lambda p: keras.callbacks.EarlyStopping("loss"), "wait", "1"),
        (lambda p: keras.callbacks.EarlyStopping("loss"), "best", [1.0]),
        (lambda p: keras.callbacks.EarlyStopping("loss"), "best_weights", [np.zeros(7)]),
        (lambda p: keras.callbacks.ReduceLROnPlateau("loss"), "factor", 0.0),
        (lambda p: keras.callbacks.SwapEMAWeights(), "_ema_weights_in_model", 3),
    ],
)
def test_of_keras_callbacks_nothing_but_their_state_is_set(
    make: Any, name: str, value: Any, tmp_path: Path
) -> None:
    """One warning names it; what is right beside it is restored all the same."""
    model = small_model()
    model.compile(keras.optimizers.Adam(use_ema=True), "mse")
    model.optimizer.build(model.trainable_variables)
    callback = make(tmp_path)
    states = CallbackStates([callback])
    callback.set_model(model)
    callback.on_train_begin()
    states.begin()
    before = {k: repr(v) for k, v in vars(callback).items()}
    kind = type(callback).__name__
    state = {kind: {"attributes": {name: value}}}
    with pytest.warns(UserWarning, match=rf"{kind}\.{name}: ") as caught:
        states.set_state(state, 1, 0)
    assert len(caught) == 1
    assert {k: repr(v) for k, v in vars(callback).items()} == before
    states.set_state(state, 1, 0)  # It is said once.
    callback.on_train_end()


class Phase(enum.Enum):
    """What a callback does at the moment."""

    WARM_UP = 1
    TRAIN = 2


class Mine(keras.callbacks.Callback):
    """A callback as users write them."""

    number_of_class = 0

    def __init__(self) -> None:
        super().__init__()
        self.target = "runs/a.keras"
        self.output = "here"
        self.given: Any = None
        self.count = 0
        self.phase = "warm up"
        self.kind = Phase.WARM_UP
        self.losses: list[float] = []
        self.table: dict[str, Any] = {"a": 1, "where": None}
        self.words: list[str] = []
        self.made = print
        self.place = Path("runs")
        self.module = json

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.late = epoch
        self.state = "cooling down"


def held_by(callback: Any) -> dict[str, str]:
    """Return all that a callback holds, as text."""
    return {name: repr(value) for name, value in vars(callback).items() if name != "_model"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target", "b"),
        ("target", EVIL),
        ("output", "there"),
        ("given", EVIL),
        ("given", "evil"),
        ("given", b"evil"),
        ("given", {"a": EVIL}),
        ("given", {EVIL: 1}),
        ("given", [["evil.txt"]]),
        ("count", "3"),
        ("count", [3]),
        ("phase", 3),
        ("phase", "../up"),
        ("phase", "model.keras"),
        ("kind", "NONE"),
        ("kind", 2),
        ("losses", ["/etc/passwd"]),
        ("losses", {"a": 1}),
        ("table", {"where": "evil"}),
        ("table", {"log_dir": "evil"}),
        ("table", {"a": "text"}),
        ("words", ["good", "C:evil"]),
        ("made", 3),
        ("place", "evil"),
        ("module", "os"),
        ("surplus", 3),
        ("on_epoch_end", 3),
        ("set_model", "x"),
        ("_model", 3),
        ("state", "stopped"),
        ("number_of_class", "text"),
        (3, 3),
    ],
)
def test_of_a_users_callback_only_plain_state_is_set(name: Any, value: Any) -> None:
    """Never a path, a callable or a module, nor what the callback does not have."""
    mine = Mine()
    states = begun(mine)
    before = held_by(mine)
    state = {"Mine": {"attributes": {name: value, "count": 7} | {name: value}}}
    with pytest.warns(UserWarning, match=rf"Mine\.{name}: ") as caught:
        states.set_state(state, 1, 0)
    assert len(caught) == 1
    expected = before if name == "count" else before | {"count": "7"}
    assert held_by(mine) == expected


def test_what_users_keep_as_state_is_carried() -> None:
    """Numbers, arrays, `None` that became one, phases by name, attributes that come later."""
    trained, fresh = Mine(), Mine()
    states = begun(trained)
    trained.count, trained.given, trained.number_of_class = 3, np.float32(0.5), 4
    trained.phase, trained.kind = "cooling down", Phase.TRAIN
    trained.losses += [0.5, math.inf]
    trained.table["new"] = [np.ones(2), {"deep": 1}]
    trained.words += ["loss", "val_loss"]
    trained.on_epoch_end(4)
    state = state_files.again(states.get_state())
    begun(fresh).set_state(state, 5, 0)
    assert held_by(fresh) == held_by(trained)
    trained.given = [np.zeros((2, 2))]
    fresh.given = None
    begun(fresh).set_state(state_files.again(states.get_state()), 5, 0)
    assert held_by(fresh) == held_by(trained)


def test_text_that_may_be_a_path_is_named_at_the_save() -> None:
    """So nobody learns of it only after a restart."""
    mine = Mine()
    states = begun(mine)
    mine.given = "runs/b.keras"
    with pytest.warns(UserWarning, match=r"'given'.*may be a path.*get_state"):
        assert states.get_state() == {"Mine": {"attributes": {}}}


def test_a_subclass_of_keras_has_both_rules(tmp_path: Path) -> None:
    """Its own state as of any callback, and nothing of what Keras' class takes as arguments."""

    class Counting(keras.callbacks.ModelCheckpoint):
        def on_train_begin(self, logs: Any = None) -> None:
            self.saves = 0

    counting = Counting(tmp_path / "a.keras", monitor="loss")
    states = begun(counting)
    content = {"saves": 3, "best": 0.5, "filepath": EVIL, "monitor": "val_loss", "min_delta": 9}
    with pytest.warns(UserWarning, match="are (not used|ignored)") as caught:
        states.set_state({"Counting": {"attributes": content}}, 1, 0)
    (message,) = (str(one.message) for one in caught)
    assert all(f"Counting.{name}" in message for name in ("filepath", "monitor", "min_delta"))
    assert (counting.saves, counting.best, counting.monitor) == (3, 0.5, "loss")
    assert counting.filepath == str(tmp_path / "a.keras")


@pytest.mark.parametrize(
    "state",
    [
        {"content": "text", "keys": None, "writing": False},
        {"content": b"epoch\n", "keys": None, "writing": True},
        {"content": b"epoch\n", "keys": [3], "writing": True},
        {"content": b"epoch\n", "keys": ["loss"], "writing": 1},
        {"filename": EVIL},
        [],
        None,
    ],
)
def test_a_csv_file_keeps_its_content_where_the_record_is_odd(state: Any, tmp_path: Path) -> None:
    """And it stays the file of the logger that is there."""
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    states = begun(logger)
    logger.on_epoch_end(0, {"loss": 0.5})
    with pytest.warns(UserWarning, match="the file of CSVLogger"):
        states.set_state({"CSVLogger": {"attributes": {}, "file": state}}, 1, 0)
    logger.on_epoch_end(1, {"loss": 0.25})
    logger.on_train_end()
    assert (tmp_path / "log.csv").read_text() == "epoch,loss,val_loss\n0,0.5,NA\n1,0.25,NA\n"
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


@pytest.mark.parametrize("text", ["a/b", "a\\b", "~me", "x.keras", "C:x", "$HOME", b"a/b"])
def test_paths_are_known_by_their_look(text: Any) -> None:
    """Of every system, and addresses too."""
    assert looks_like_path(text)


def test_names_of_files_that_are_there_are_paths(tmp_path: Path, monkeypatch: Any) -> None:
    """A plain word is one, if something is called so."""
    monkeypatch.chdir(tmp_path)
    assert not looks_like_path("word")
    (tmp_path / "word").mkdir()
    assert looks_like_path("word")
    assert not looks_like_path("word", exists=False)


def edit(directory: Path, change: Any) -> None:
    """Let somebody edit the record of the only checkpoint, with a digest that is right."""
    (path,) = directory.glob("ckpt-*.weights.h5")
    content = path.read_bytes()
    record, size = userblock.decode(userblock.read_at(content), str(path))  # type: ignore[misc]
    tracked = {
        name: dataclasses.replace(one, state=change(name, one.state))
        for name, one in record.tracked.items()
    }
    block = userblock.encode(dataclasses.replace(record, tracked=tracked), size)
    path.write_bytes(block + content[len(block) :])


def test_an_edited_checkpoint_writes_nowhere_else(tmp_path: Path, monkeypatch: Any) -> None:
    """In a real `fit()`: the next run writes where its program says, and trains on."""
    monkeypatch.chdir(tmp_path)
    backup_dir = tmp_path / "backup"

    def run(epochs: int) -> list[Any]:
        carried = [
            keras.callbacks.CSVLogger("log.csv", append=True),
            keras.callbacks.ModelCheckpoint("a.keras", "loss", save_best_only=True),
            keras.callbacks.EarlyStopping("loss", patience=50),
        ]
        forget_phases()
        backup = kct.BackupAndRestore(backup_dir, callbacks=carried, delete_checkpoint=False)
        x, y = small_data(2)
        model = small_model()
        history = model.fit(x, y, epochs=epochs, verbose=0, shuffle=False,
                            callbacks=[*carried, backup])  # fmt: skip
        return history.history["loss"]

    run(2)
    names = sorted(path.name for path in tmp_path.iterdir())

    def change(name: str, state: Any) -> Any:
        if name == "_callbacks":
            state["CSVLogger"]["attributes"]["filename"] = "evil.csv"
            state["ModelCheckpoint"]["attributes"]["filepath"] = "evil.keras"
            state["EarlyStopping"]["attributes"]["model"] = None
            state["Surplus"] = 3
        if name == "_fit":
            state["first epoch"] = -(10**9)
        if name == "_cadence":
            state["batches"] = "many"
        return state

    edit(backup_dir, change)
    with pytest.warns(UserWarning, match="are (not used|ignored)") as caught:
        losses = run(3)
    messages = "\n".join(str(one.message) for one in caught)
    for part in ("CSVLogger.filename", "ModelCheckpoint.filepath", "EarlyStopping.model",
                 "_callbacks.Surplus", "_fit.first epoch", "_cadence.batches"):  # fmt: skip
        assert part in messages
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert len(losses) == 3
    assert (tmp_path / "log.csv").read_text().count("\n") == 4


@pytest.mark.parametrize(
    "tree",
    [
        {"__array__": "no/such"},
        {"__scalar__": ["V1000000000000", 3]},
        {"__scalar__": ["V", 10**12]},
        {"__scalar__": ["object", 3]},
        {"__set__": [{"a": 1}]},
        {"__items__": [[[], 1]]},
        {"__float__": []},
        [],
    ],
)
def test_states_that_no_save_writes_are_left_out(tree: Any, tmp_path: Path) -> None:
    """With one warning, and the run goes on."""

    def run(epochs: int) -> list[int]:
        stopping = keras.callbacks.EarlyStopping("loss", patience=50)
        forget_phases()
        backup = kct.BackupAndRestore(tmp_path, callbacks=[stopping], delete_checkpoint=False)
        x, y = small_data(2)
        fit = small_model().fit
        return fit(x, y, epochs=epochs, verbose=0, callbacks=[stopping, backup]).epoch

    run(1)
    edit(tmp_path, lambda name, state: tree if name == "_callbacks" else state)
    with pytest.warns(UserWarning, match="does not write, in _callbacks"):
        assert run(2) == [0, 1]

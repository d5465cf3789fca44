"""A directory that `BackupAndRestore` of Keras 2 wrote is gone on from.

The backups are real ones, and so is what stock Keras 2 made of them: see
`data/keras2_backup/make.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from programs import small_data

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import DamagedArtefactError, RestoreError

FOLDER = Path(__file__).parents[1] / "files" / "keras2_backup"
layers = keras.layers


class Blocks(keras.Model):
    """The subclassed model of `make.py`, in Keras 3."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Dense(8, activation="relu")
        self.blocks = [layers.Dense(8), layers.BatchNormalization()]
        self.heads = {"one": layers.Dense(1)}

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.blocks[0](self.first(inputs))
        return self.heads["one"](self.blocks[1](x, training=training))


def sequential(units: int = 8) -> keras.Model:
    """Return the sequential model of `make.py`."""
    parts = [
        keras.Input((4,)),
        layers.Dense(units, activation="relu"),
        layers.Dropout(0.0),
        layers.BatchNormalization(),
        layers.Dense(1),
    ]
    return keras.Sequential(parts)


def functional(deeper: int = 0) -> keras.Model:
    """Return the functional model of `make.py`; layers of no effect change the order of others."""
    inputs = keras.Input((4,))
    one = layers.Dense(8, activation="tanh")(inputs)
    two = layers.Dense(8, activation="tanh", name="zwei")(inputs)
    for _ in range(deeper):
        two = layers.Activation("linear")(two)
    cell = layers.LSTM(3)(layers.Reshape((8, 1))(one))
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([cell, two])))


def subclassed() -> keras.Model:
    """Return the subclassed model of `make.py`, built."""
    model = Blocks()
    model(np.zeros((1, 4), "float32"))
    return model


def schedule() -> Any:
    """Return the schedule of `make.py`."""
    return keras.optimizers.schedules.ExponentialDecay(0.01, 4, 0.9)


CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "sequential-adam": (sequential, lambda: keras.optimizers.Adam(0.01)),
    "functional-sgd": (functional, lambda: keras.optimizers.SGD(0.05, 0.9)),
    "subclassed-legacy_adam": (subclassed, lambda: keras.optimizers.Adam(0.01, amsgrad=True)),
    "sequential-legacy_sgd-batches": (sequential, lambda: keras.optimizers.SGD(0.05, 0.9)),
    "functional-rmsprop-schedule": (
        functional,
        lambda: keras.optimizers.RMSprop(schedule(), momentum=0.5, centered=True),
    ),
}
EACH = pytest.mark.parametrize("case", CASES)


def compiled(case: str) -> keras.Model:
    """Return the model of a case with other weights, as a program has it before it resumes."""
    keras.utils.set_random_seed(99)
    build, optimizer = CASES[case]
    model = build()
    model.compile(optimizer(), "mse")
    return model


def copy_of(case: str, folder: Path) -> Path:
    """Return a copy of the backup of a case."""
    return Path(shutil.copytree(FOLDER / case, folder / case))


def fit(model: keras.Model, directory: Path, **arguments: Any) -> keras.callbacks.History:
    """Train for four epochs of four batches."""
    backup = kct.BackupAndRestore(directory, **arguments)
    x, y = small_data()
    return model.fit(x, y, batch_size=4, epochs=4, shuffle=False, verbose=0, callbacks=[backup])


def slots_of(optimizer: Any) -> dict[str, list[np.ndarray]]:
    """Return the state of an optimizer in the order that Keras 2 has: slot after slot."""
    found: dict[str, list[np.ndarray]] = {}
    for variable in optimizer.variables:
        slot = next(
            (
                s
                for s in ("velocity_hat", "average_gradient", "velocity", "momentum")
                if variable.path.endswith(s)
            ),
            "",
        )
        if slot:
            found.setdefault(slot, []).append(np.asarray(variable))
    return found


@EACH
def test_weights_and_optimizer_are_what_keras_2_restores(case: str, tmp_path: Path) -> None:
    """Bit for bit: every weight in its place, and the state of every variable that has any."""
    expected = np.load(FOLDER / case / "expected.npz")
    model = compiled(case)
    manager = kct.CheckpointManager(copy_of(case, tmp_path), model=model)
    with pytest.warns(UserWarning, match="backup of Keras 2's BackupAndRestore"):
        manager.restore_or_initialize()
    weights = [np.asarray(v) for v in model.weights if "seed" not in v.path]
    theirs = [expected[f"weights/{i}"] for i in range(len(weights))]
    assert all(map(np.array_equal, weights, theirs))
    state = [expected[name] for name in expected if name.startswith("optimizer/")]
    assert int(model.optimizer.iterations) == int(state[0])
    slots = slots_of(model.optimizer)
    if "legacy" not in case and "adam" in case:  # Keras 2.11 and later mix these two.
        order = [
            one for pair in zip(slots["momentum"], slots["velocity"], strict=True) for one in pair
        ]
    else:
        names = ("velocity", "momentum") if "rms" in case else ("momentum", "velocity")
        order = [
            one
            for name in (*names, "velocity_hat", "average_gradient")
            for one in slots.get(name, [])
        ]
    assert len(order) == len(state) - 1
    assert all(map(np.array_equal, order, state[1:]))


@EACH
def test_the_epochs_that_follow_are_those_of_keras_2(case: str, tmp_path: Path) -> None:
    """The same losses, as far as two generations of kernels compute the same; no file goes."""
    expected = np.load(FOLDER / case / "expected.npz")
    directory = copy_of(case, tmp_path)
    before = sorted(path.name for path in directory.rglob("*"))
    in_epoch = "batches" in case
    told = "Epoch 3 was interrupted after 1 batches and starts over" if in_epoch else "epoch 3"
    with pytest.warns(UserWarning, match=told):
        history = fit(compiled(case), directory, resume="must")
    assert history.epoch == [2, 3] == list(range(int(expected["epoch"]), 4))
    if not in_epoch:
        np.testing.assert_allclose(history.history["loss"], expected["loss"], rtol=1e-5)
    assert sorted(path.name for path in directory.rglob("*")) == before


@EACH
def test_its_progress_is_known(case: str) -> None:
    """Without a model."""
    progress = kct.training_progress(FOLDER / case)
    place = (progress.epochs_completed, progress.batches_completed, progress.step)
    assert place == ((2, 1, 9) if "batches" in case else (2, 0, 8))


def test_layers_with_names_are_found_by_them(tmp_path: Path) -> None:
    """Two layers of one shape whose order has changed: the name says which is which."""
    expected = np.load(FOLDER / "functional-sgd" / "expected.npz")
    model = functional(deeper=5)
    ranks = [layer.name for layer in model.layers if layer.weights]
    assert ranks.index("zwei") == 0
    model.compile(keras.optimizers.SGD(0.05, 0.9), "mse")
    manager = kct.CheckpointManager(copy_of("functional-sgd", tmp_path), model=model)
    with pytest.warns(UserWarning, match="Resuming with"):
        manager.restore_or_initialize()
    assert np.array_equal(model.get_layer("zwei").kernel, expected["weights/5"])
    (momentum,) = [v for v in model.optimizer.variables if "zwei_kernel" in v.path]
    assert np.array_equal(momentum, expected["optimizer/6"])
    assert np.array_equal(model.layers[-1].kernel, expected["weights/7"])


@pytest.mark.parametrize(
    ("optimizer", "named"),
    [
        (lambda: keras.optimizers.SGD(0.05, 0.9), "model/optimizer/_variables/1"),
        (lambda: keras.optimizers.Adam(schedule()), "model/optimizer/_learning_rate"),
    ],
)
def test_another_optimizer_is_refused(
    optimizer: Callable[[], Any], named: str, tmp_path: Path
) -> None:
    """Its state is never poured in; what has no place is named as the checkpoint names it."""
    model = sequential()
    model.compile(optimizer(), "mse")
    before = [np.asarray(v).copy() for v in model.weights]
    directory = copy_of("sequential-adam", tmp_path)
    if "learning_rate" in named:  # A schedule says what the rate is, so there is nothing to lose.
        with pytest.warns(UserWarning, match="Resuming with"):
            fit(model, directory)
        return
    with pytest.raises(RestoreError, match=named) as caught:
        fit(model, directory)
    assert caught.value.report.unexpected
    assert all(map(np.array_equal, before, model.weights))


def test_a_hyperparameter_that_differs_is_named(tmp_path: Path) -> None:
    """Keras 2's older optimizers saved them, and going on with another is another run."""
    model = subclassed()
    model.compile(keras.optimizers.Adam(0.01, beta_1=0.5, amsgrad=True), "mse")
    with pytest.raises(RestoreError, match="model/optimizer/beta_1"):
        fit(model, copy_of("subclassed-legacy_adam", tmp_path))


def test_another_shape_is_told_by_both_names(tmp_path: Path) -> None:
    """That of the checkpoint and that of the model; nothing is changed."""
    model = sequential(units=5)
    model.compile("adam", "mse")
    with pytest.raises(RestoreError, match=r"layer_with_weights-0/kernel \(4, 8\)") as caught:
        fit(model, copy_of("sequential-adam", tmp_path))
    assert "model/layers/dense" in str(caught.value)


@pytest.mark.parametrize("damage", ["data", "index", "gone"])
def test_a_damaged_backup_is_no_new_start(damage: str, tmp_path: Path) -> None:
    """A byte that has changed, an index that ends early, files that are gone."""
    directory = copy_of("sequential-adam", tmp_path)
    data = directory / "chief" / "ckpt-2.data-00000-of-00001"
    index = directory / "chief" / "ckpt-2.index"
    if damage == "data":
        content = bytearray(data.read_bytes())
        content[10] ^= 1
        data.write_bytes(content)
    elif damage == "index":
        index.write_bytes(index.read_bytes()[:300])
    else:
        index.unlink()
        data.unlink()
    with pytest.raises(DamagedArtefactError, match="resume='never'"):
        fit(compiled("sequential-adam"), directory)
    history = fit(compiled("sequential-adam"), directory, resume="never")
    assert history.epoch == [0, 1, 2, 3]


def test_the_newest_is_taken_where_no_file_names_it(tmp_path: Path) -> None:
    """A kill before the file `checkpoint` was written leaves a whole checkpoint."""
    directory = copy_of("sequential-adam", tmp_path)
    (directory / "chief" / "checkpoint").unlink()
    with pytest.warns(UserWarning, match="Resuming with epoch 3"):
        fit(compiled("sequential-adam"), directory)

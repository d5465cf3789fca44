"""A directory of `tf.train.CheckpointManager` is resumed from, all of it or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.runs.resume_preview import foresee

SAID = "a checkpoint of tf.train.CheckpointManager"


def parts(*, compiled: bool = False, built: bool = True) -> dict[str, Any]:
    """Return what a program tracks."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.Adam(0.1)
    if compiled:
        model.compile(optimizer, "mse")
    if built:
        optimizer.build(model.trainable_variables)
    objects = {"model": model, "step": tf.Variable(0, dtype=tf.int64)}
    return objects if compiled else {**objects, "optimizer": optimizer}


def train(objects: dict[str, Any]) -> None:
    """Make one update."""
    model = objects["model"]
    optimizer = objects.get("optimizer") or model.optimizer
    gradients = [tf.ones_like(v) for v in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    objects["step"].assign_add(1)


def state_of(objects: dict[str, Any]) -> list[Any]:
    """Return all that was trained."""
    optimizer = objects.get("optimizer") or objects["model"].optimizer
    variables = [*objects["model"].variables, *optimizer.variables, objects["step"]]
    return [np.asarray(v).tolist() for v in variables]


@pytest.fixture
def stock(tmp_path: Path) -> Any:
    """A directory, and what was trained four steps and saved there by stock TensorFlow."""
    objects = parts()
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(**objects), tmp_path, max_to_keep=3)
    for _ in range(4):
        train(objects)
        manager.save()
    return tmp_path, objects


@pytest.mark.parametrize("format", ["h5", "tf"])
@pytest.mark.parametrize("built", [True, False])
def test_a_loop_goes_on_where_stock_tensorflow_was(stock: Any, format: Any, built: bool) -> None:
    """With its weights, its optimizer, its variables and its step; restarts after that are ours."""
    directory, trained = stock

    def run(steps: int) -> tuple[dict[str, Any], list[int]]:
        objects = parts(built=built)
        manager = kct.CheckpointManager(directory, format=format, save_freq=2, **objects)
        done = []
        for step in manager.steps(steps):
            done.append(step)
            train(objects)
        return objects, done

    before = {path: path.read_bytes() for path in directory.glob("ckpt-[0-9].*")}
    with pytest.warns(UserWarning, match=SAID):
        objects, done = run(6)
    assert done == [4, 5]
    train(trained)
    train(trained)
    assert state_of(objects) == state_of(trained)
    _, done = run(7)
    assert done == [6]
    assert {path: path.read_bytes() for path in directory.glob("ckpt-[0-9].*")} == before


def test_the_familiar_verbs_know_it(stock: Any) -> None:
    """Before anything was saved here."""
    directory, trained = stock
    objects = parts()
    manager = kct.CheckpointManager(directory, **objects)
    newest = manager.latest_checkpoint
    assert newest == tf.train.latest_checkpoint(directory)
    assert newest is not None
    with pytest.warns(UserWarning, match=SAID):
        assert manager.restore_or_initialize() == newest
    assert manager.progress.step == 4
    assert state_of(objects) == state_of(trained)
    again = parts()
    with pytest.warns(UserWarning, match=SAID):
        kct.CheckpointManager(directory, **again).restore(newest)
    assert state_of(again) == state_of(trained)


def test_it_is_known_what_a_restart_would_do(stock: Any) -> None:
    """By the preview of the command line, and by the progress of the directory."""
    directory, _ = stock
    preview = foresee(str(directory))
    assert preview.kind == "checkpoint of tf.train.CheckpointManager"
    assert preview.chosen == tf.train.latest_checkpoint(directory)
    assert sorted(preview.holds) == ["model", "optimizer", "step"]
    assert kct.training_progress(directory).step == 4


def test_the_optimizer_of_a_compiled_model_is_found_in_it(tmp_path: Path) -> None:
    """`tf.train.Checkpoint(model=model)` has it there."""
    objects = parts(compiled=True)
    train(objects)
    tf.train.CheckpointManager(tf.train.Checkpoint(**objects), tmp_path, max_to_keep=1).save()
    again = parts(compiled=True, built=False)
    manager = kct.CheckpointManager(tmp_path, **again)
    with pytest.warns(UserWarning, match=SAID):
        manager.restore_or_initialize()
    assert state_of(again) == state_of(objects)


def test_what_fits_not_is_refused_and_nothing_has_changed(stock: Any) -> None:
    """Another name, and another shape."""
    directory, _ = stock
    objects = parts()
    before = state_of(objects)
    manager = kct.CheckpointManager(directory, net=objects["model"], step=objects["step"])
    with pytest.raises(
        kct.errors.RestoreError, match=r"Tracked, but not in it: net\. In it: model, optimizer"
    ):
        manager.restore_or_initialize()
    objects["step"] = tf.Variable([1, 2])
    manager = kct.CheckpointManager(directory, **objects)
    with pytest.raises(kct.errors.RestoreError, match="step"):
        manager.restore_or_initialize()
    objects["step"] = tf.Variable(0, dtype=tf.int64)
    assert state_of(objects) == before


def test_what_begins_anew_and_what_is_left_out_is_said(stock: Any) -> None:
    """Generators of NumPy were not saved there; what is not tracked is not restored."""
    directory, _ = stock
    objects = {**parts(), "noise": np.random.default_rng(1)}
    del objects["step"]
    manager = kct.CheckpointManager(directory, **objects)
    with pytest.warns(UserWarning, match=r"as noise start over\..* is not tracked: step\."):
        manager.restore_or_initialize()


def test_containers_modules_and_generators_are_restored_by_their_names(tmp_path: Path) -> None:
    """As `tf.train.Checkpoint` had them."""

    class Pair(tf.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.a, self.b = tf.Variable(value), tf.Variable(value * 2)

    def objects(value: float) -> dict[str, Any]:
        return {
            "averages": [tf.Variable(value), tf.Variable(value + 1)],
            "by_name": {"x": tf.Variable(value)},
            "pair": Pair(value),
            "generator": tf.random.Generator.from_seed(int(value)),
        }

    saved = objects(3.0)
    saved["generator"].uniform([3])
    tf.train.CheckpointManager(tf.train.Checkpoint(**saved), tmp_path, max_to_keep=1).save()
    again = objects(0.0)
    with pytest.warns(UserWarning, match=SAID):
        kct.CheckpointManager(tmp_path, **again).restore_or_initialize()
    assert [float(v) for v in again["averages"]] == [3.0, 4.0]
    assert float(again["by_name"]["x"]) == 3.0
    assert float(again["pair"].b) == 6.0
    assert float(again["generator"].uniform([])) == float(saved["generator"].uniform([]))


def test_a_compiled_optimizer_that_the_loop_does_not_use_fits(tmp_path: Path) -> None:
    """It has no state of variables in the checkpoint, and needs none."""

    def objects() -> dict[str, Any]:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return {"model": model, "by_hand": keras.optimizers.SGD(0.5, momentum=0.9)}

    saved = objects()
    variables = saved["model"].trainable_variables
    saved["by_hand"].apply([tf.ones_like(v) for v in variables], variables)
    tf.train.CheckpointManager(tf.train.Checkpoint(**saved), tmp_path, max_to_keep=1).save()
    again = objects()
    with pytest.warns(UserWarning, match=SAID):
        kct.CheckpointManager(tmp_path, **again).restore_or_initialize()
    assert int(again["by_hand"].iterations) == 1
    assert np.array_equal(again["model"].get_weights()[0], saved["model"].get_weights()[0])


def test_a_damaged_one_is_passed_over_for_the_one_before(stock: Any) -> None:
    """And the message names it."""
    directory, _ = stock
    path = next(directory.glob("ckpt-4.data*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    objects = parts()
    manager = kct.CheckpointManager(directory, **objects)
    with pytest.warns(UserWarning, match=r"(?s)ckpt-3.*Skipped ckpt-4"):
        manager.restore_or_initialize()
    assert int(objects["step"]) == 3


def test_fit_goes_on_from_it_by_its_steps(stock: Any) -> None:
    """`BackupAndRestore` knows how many steps an epoch has."""
    directory, _ = stock
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    backup = kct.BackupAndRestore(directory, delete_checkpoint=False)
    x, y = np.ones((8, 4)), np.ones((8, 1))
    with pytest.warns(UserWarning, match=r"with epoch 3, by its 4 steps at 2 an epoch"):
        history = model.fit(x, y, batch_size=4, epochs=3, callbacks=[backup], verbose=0)
    assert history.epoch == [2]
    assert int(model.optimizer.iterations) == 6


def test_other_tensorflow_checkpoints_are_left_alone(tmp_path: Path) -> None:
    """What `tf.train.Checkpoint.write` made has no place in a run, and a run begins anew."""
    tf.train.Checkpoint(**parts()).write(str(tmp_path / "weights"))
    manager = kct.CheckpointManager(tmp_path, **parts())
    assert manager.latest_checkpoint is None
    assert manager.restore_or_initialize() is None

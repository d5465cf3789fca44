"""`CheckpointManager(format="tf")`: the same run, on disk as TensorFlow has it."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import start
from tf_programs import save_for_ever

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, RestoreError
from keras_ckpt_tools.runs.tensorflow import clear_prefixes, delete_prefixes


class Net(keras.Model):
    """What TensorFlow sees, and what it does not under Keras 3: layers in a list, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = keras.layers.Dense(4)
        self.blocks = [keras.layers.Dense(4)]
        self.drop = keras.layers.Dropout(0.3)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.drop(self.blocks[0](self.first(x)), training=training)


class Scale(tf.Module):
    """Variables as an attribute and in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = tf.Variable(1.0)
        self.rest = [tf.Variable([2.0])]


def objects() -> dict[str, Any]:
    """Return one of each kind of what can be tracked, with values of the moment."""
    model = Net()
    model(np.zeros((1, 3), "float32"))
    return {
        "model": model,
        "optimizer": keras.optimizers.Adam(0.1),
        "scale": Scale(),
        "step": tf.Variable(0, dtype=tf.int64),
        "weights": [tf.Variable(0.0), tf.Variable([0.0])],
        "metric": keras.metrics.Mean(),
        "numbers": np.random.default_rng(random.getrandbits(30)),
    }


def values(held: dict[str, Any]) -> list[np.ndarray]:
    """Return all that an optimizer, variables, metrics and models hold."""
    found = [*held["model"].variables, *held["optimizer"].variables, *held["scale"].variables]
    found += [held["step"], *held["weights"], *held["metric"].variables]
    generator = held["numbers"].bit_generator.state["state"]["state"]
    return [*map(np.asarray, found), np.asarray(generator)]


def loop(directory: Path, epochs: int, held: dict[str, Any], **arguments: Any) -> Any:
    """Train, and save at the end of each epoch."""
    manager = kct.CheckpointManager(directory, format="tf", **arguments, **held)
    for _ in manager.epochs(epochs):
        for batch in manager.batches([np.full((2, 3), n, "float32") for n in (1, 2)]):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((held["model"](batch, training=True) - 1.0) ** 2)
            variables = held["model"].trainable_variables
            gradients = tape.gradient(loss, variables)
            held["optimizer"].apply_gradients(zip(gradients, variables, strict=True))
            held["step"].assign_add(1)
            held["scale"].factor.assign(held["numbers"].random())
            held["metric"].update_state(loss)
        manager.log(loss=float(held["metric"].result()))
    manager.wait()
    return manager


@pytest.mark.parametrize("background", [False, True])
def test_a_resumed_run_is_the_run_that_it_would_have_been(tmp_path: Path, background: bool) -> None:
    """Random numbers, dropout and the metric included; in the background as well."""
    keras.utils.set_random_seed(3)
    whole = objects()
    loop(tmp_path / "whole", 4, whole, max_to_keep=2)
    keras.utils.set_random_seed(3)
    loop(tmp_path / "cut", 2, objects(), max_to_keep=2, background=background)
    keras.utils.set_random_seed(99)
    resumed = objects()
    with pytest.warns(UserWarning, match="random generators of the checkpoint are used"):
        manager = loop(tmp_path / "cut", 4, resumed, max_to_keep=2, background=background)
    assert all(map(np.array_equal, values(whole), values(resumed)))
    names = ["ckpt-00000003", "ckpt-00000004"]
    assert [Path(path).name for path in manager.checkpoints] == names
    assert len(list((tmp_path / "cut").iterdir())) == 7
    assert kct.training_progress(tmp_path / "cut").epochs_completed == 4
    assert kct.training_progress(manager.latest_checkpoint).step == 8


def test_stock_tensorflow_restores_what_it_sees(tmp_path: Path) -> None:
    """All of it, and it finds nothing that it does not know."""
    saved = objects()
    manager = loop(tmp_path, 2, saved)
    fresh = {name: o for name, o in objects().items() if name not in ("metric", "numbers")}
    fresh["optimizer"].build(fresh["model"].trainable_variables)
    stock = tf.train.Checkpoint(**fresh)
    path = tf.train.latest_checkpoint(str(tmp_path))
    assert path == manager.latest_checkpoint
    stock.restore(path).assert_consumed()
    assert int(stock.save_counter) == 2
    assert np.array_equal(fresh["model"].first.kernel, saved["model"].first.kernel)
    assert int(fresh["step"]) == 4
    pairs = zip(fresh["optimizer"].variables, saved["optimizer"].variables, strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    reader = tf.train.load_checkpoint(path)
    for key in reader.get_variable_to_shape_map():
        reader.get_tensor(key)  # TensorFlow checks each checksum.


def two_layers(*names: str) -> keras.Model:
    """Return a compiled model of layers that all have the same shapes."""
    layers = [keras.layers.Dense(3, name=name) for name in names]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("adam", "mse")
    return model


def test_weights_find_their_layers_by_name_in_either_format(tmp_path: Path) -> None:
    """Layers of the same shapes in another order: none gets the weights of another."""
    for kind in ("h5", "tf"):
        saved, other = two_layers("one", "two"), two_layers("two", "one")
        folder = tmp_path / kind
        path = kct.CheckpointManager(folder, format=kind, model=saved).save()
        before = [weights.numpy() for weights in other.weights]
        with pytest.raises(RestoreError, match="in another order"):
            kct.CheckpointManager(folder, format=kind, model=other).restore_or_initialize()
        assert all(map(np.array_equal, other.weights, before))
        assert kct.load_weights(other, path, exclude="optimizer")
        for name in ("one", "two"):
            assert np.array_equal(saved.get_layer(name).kernel, other.get_layer(name).kernel)


def test_the_state_of_another_optimizer_stays_out_in_either_format(tmp_path: Path) -> None:
    """Adam's moments have the shapes of AdamW's."""
    for kind in ("h5", "tf"):
        path = kct.CheckpointManager(tmp_path / kind, format=kind, model=two_layers("a")).save()
        model = two_layers("a")
        model.compile("adamw", "mse")
        report = kct.load_weights(model, path, strict=False)
        assert any("of Adam" in sentence for sentence in report.optimizer_differs)


def test_single_objects_are_taken_out_of_it(tmp_path: Path) -> None:
    """The model, layers in a list included; the optimizer, unbuilt; some by their names."""
    saved = objects()
    path = loop(tmp_path, 1, saved).latest_checkpoint
    for place in (path, tmp_path, f"{path}.index", f"{path}.record"):
        model = objects()["model"]
        assert kct.load_weights(model, place)
        assert np.array_equal(model.blocks[0].kernel, saved["model"].blocks[0].kernel)
    some = {name: o for name, o in objects().items() if name in ("model", "optimizer", "weights")}
    assert kct.compare({"weights": some["weights"]}, path)
    assert kct.load_weights(some, path)
    pairs = zip(some["optimizer"].variables, saved["optimizer"].variables, strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    with pytest.raises(RestoreError, match="weight/vars/0"):
        kct.load_weights({"weight": tf.Variable(0.0)}, path)


def test_reports_know_it(tmp_path: Path) -> None:
    """`inspect` says where training was, `verify` reads every byte, of the directory as well."""
    path = loop(tmp_path, 2, objects()).latest_checkpoint
    report = kct.inspect(path)
    assert report.progress.epochs_completed == 2
    assert "model/first/vars/0" in {info.path for info in report.tensors}
    assert report.versions["keras"] == keras.__version__
    assert [bool(check) for check in kct.verify(tmp_path).files] == [True, True]
    data = Path(f"{path}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[40] ^= 1
    data.write_bytes(content)
    assert [bool(check) for check in kct.verify(tmp_path).files] == [True, False]
    model = objects()["model"]
    with pytest.warns(UserWarning, match="skipped damaged"):
        assert kct.load_weights(model, tmp_path)
    manager = kct.CheckpointManager(tmp_path, **objects())
    with pytest.warns(UserWarning, match="skipped damaged"):
        assert manager.restore_or_initialize() == str(tmp_path / "ckpt-00000001")


def test_a_run_may_change_its_format(tmp_path: Path) -> None:
    """It goes on from the newest, whichever that is, and keeps as many as it is to keep."""
    step = tf.Variable(0)
    made = []
    for number, form in enumerate(("h5", "tf", "h5", "tf"), 1):
        manager = kct.CheckpointManager(tmp_path, format=form, max_to_keep=2, step=step)
        manager.restore_or_initialize()
        assert int(step) == number - 1
        step.assign(number)
        made.append(Path(manager.save()).name)
        step.assign(-1)
    assert made[2:] == ["ckpt-00000003.weights.h5", "ckpt-00000004"]
    left = {path.name.partition(".")[0] for path in tmp_path.iterdir()}
    assert left == {"ckpt-00000003", "ckpt-00000004", "checkpoint"}
    with pytest.raises(ArgumentError, match=r"format='zip'"):
        kct.CheckpointManager(tmp_path, format="zip", step=step)  # type: ignore[arg-type]


def test_the_best_one_stays(tmp_path: Path) -> None:
    """By the monitored metric, as in the other format."""
    step = tf.Variable(0)
    manager = kct.CheckpointManager(tmp_path, format="tf", max_to_keep=1, monitor="loss", step=step)
    for epoch in manager.epochs(4):
        for _ in manager.batches([0]):
            step.assign_add(1)
        manager.log(loss=[3.0, 1.0, 2.0, 4.0][epoch])
    assert Path(manager.best_checkpoint).name == "ckpt-00000002"
    state = tf.train.get_checkpoint_state(str(tmp_path))
    names = [Path(path).name for path in state.all_model_checkpoint_paths]
    assert names == ["ckpt-00000002", "ckpt-00000004"]


@pytest.mark.parametrize("done", range(6))
def test_a_deletion_cut_off_leaves_nothing_that_looks_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """Whatever it got done: what is left of the files is a checkpoint of TensorFlow, or none."""

    def interrupt(call: Any) -> Any:
        def interrupted(*args: Any, **options: Any) -> Any:
            nonlocal done
            if done == 0:
                raise KeyboardInterrupt
            done -= 1
            return call(*args, **options)

        return interrupted

    step = tf.Variable(1)
    manager = kct.CheckpointManager(tmp_path, format="tf", max_to_keep=None, step=step)
    first, second = manager.save(), manager.save()
    with monkeypatch.context() as patched:
        for name in ("rename", "unlink", "rmdir"):
            patched.setattr(os, name, interrupt(getattr(os, name)))
        with pytest.raises(KeyboardInterrupt):
            delete_prefixes([first])
    assert all(kct.verify(tmp_path).files)
    assert int(tf.train.load_variable(second, "step/.ATTRIBUTES/VARIABLE_VALUE")) == 1
    clear_prefixes(tmp_path)
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert left == set()


def test_a_run_killed_at_random_instants_loses_nothing(tmp_path: Path) -> None:
    """What was confirmed is there, whole, for us and for `tf.train.latest_checkpoint`."""
    chosen = random.Random(11)
    confirmed = 0
    for _ in range(100 if os.environ.get("KCT_TORTURE") else 2):
        process, pipe = start(save_for_ever, str(tmp_path))
        assert pipe.poll(120)
        assert pipe.recv() >= confirmed
        time.sleep(chosen.uniform(0, 0.2))
        process.kill()
        process.join()
        while pipe.poll():
            try:
                confirmed = pipe.recv()
            except EOFError:
                break
        pipe.close()
        named = tf.train.latest_checkpoint(str(tmp_path))
        if named is None:
            assert not confirmed
            continue
        step = int(tf.train.load_variable(named, "step/.ATTRIBUTES/VARIABLE_VALUE"))
        kernel = tf.train.load_variable(named, kernel_key(named))
        assert step >= confirmed
        assert set(np.unique(kernel)) == {step}
        assert all(kct.verify(tmp_path).files)


def kernel_key(prefix: str) -> str:
    """Return the key of the first kernel."""
    return next(key for key, shape in tf.train.list_variables(prefix) if shape == [8, 64])

"""Whose is it now: checkpoints of Keras 2, Keras 3 and TensorFlow 1, into any objects."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import small_data, small_model, state_of

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    ArtefactNotFoundError,
    NotBuiltError,
    RestoreError,
)

FOLDER = Path(__file__).parents[2] / "files" / "keras2_checkpoints"


def network() -> keras.Model:
    """Return the model of `data/keras2_checkpoints/make.py`."""
    parts = [keras.Input((3,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(1)]
    return keras.Sequential(parts)


def expected(case: str, what: str) -> list[np.ndarray[Any, Any]]:
    """Return what a case has, in the order of Keras."""
    found = np.load(FOLDER / case / "expected.npz")
    return [found[f"{what}/{n}"] for n in range(4)]


def equal(variables: Any, arrays: Any) -> bool:
    """Return whether variables have these values."""
    return all(np.array_equal(a, b) for a, b in zip(variables, arrays, strict=True))


@pytest.mark.parametrize("case", ["adam", "legacy_adam"])
def test_a_loop_of_keras_2_goes_on(case: str) -> None:
    """Model, optimizer and step, of both kinds of optimizer that Keras 2 had."""
    held = {
        "model": network(),
        "optimizer": keras.optimizers.Adam(0.5),
        "step": tf.Variable(0, dtype=tf.int64),
    }
    assert kct.load_weights(held, FOLDER / case)
    optimizer = held["optimizer"]
    assert equal(held["model"].weights, expected(case, "weights"))
    assert equal(optimizer._momentums, expected(case, "m"))
    assert equal(optimizer._velocities, expected(case, "v"))
    assert int(held["step"]) == int(optimizer.iterations) == 3
    assert float(optimizer.learning_rate) == pytest.approx(0.01)


@pytest.mark.parametrize("case", ["adam", "legacy_adam"])
def test_a_compiled_model_takes_the_optimizer_beside_it(case: str) -> None:
    """They were saved side by side, and Keras has the one in the other."""
    model = network()
    model.compile(keras.optimizers.Adam(0.5), "mse")
    report = kct.load_weights(model, FOLDER / case / "ckpt-3")
    assert report
    assert equal(model.optimizer._velocities, expected(case, "v"))
    other = network()
    other.compile(keras.optimizers.RMSprop(0.5), "mse")
    before = [np.asarray(v) for v in other.variables]
    with pytest.raises(RestoreError):
        kct.load_weights(other, FOLDER / case / "ckpt-3")
    assert equal(other.variables, before)


def test_an_optimizer_alone_is_matched_by_names(tmp_path: Path) -> None:
    """Built on variables of these names; of one that is not, nobody knows on what it would be."""
    model = small_model()
    model.fit(*small_data(), batch_size=4, verbose=0)
    objects = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    prefix = objects.save(str(tmp_path / "ckpt"))
    again = small_model()
    again.optimizer.build(again.trainable_variables)
    names = [v.path for v in model.trainable_variables]
    assert [v.path for v in again.trainable_variables] == names
    assert kct.load_weights(again.optimizer, prefix)
    assert state_of(again)[4:] == state_of(model)[4:]
    with pytest.raises(NotBuiltError, match="pass the model as well"):
        kct.load_weights(keras.optimizers.Adam(), prefix)


def test_variables_of_tensorflow_1_are_matched_by_their_names() -> None:
    """There are no objects in such a file; a step that was not asked for is left over."""
    model = network()
    with pytest.warns(UserWarning, match="elsewhere"):
        report = kct.load_weights(model, FOLDER / "saver", strict=False)
    assert report.unexpected == ("global_step",)
    assert not report.missing
    assert equal(model.weights, expected("saver", "weights"))
    step = tf.Variable(0, dtype=tf.int64, name="global_step")
    held = {"model": model, "step": step}
    assert kct.load_weights(held, FOLDER / "saver" / "model.ckpt-7")


def test_kinds_of_targets(tmp_path: Path) -> None:
    """Keras' layers in a module, generators, nested dicts, variables that Keras does not save."""

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2)
            self.scale = tf.Variable(1.0)

        def call(self, x: Any) -> Any:
            return self.dense(x) * self.scale

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2)
            self.dense.build((None, 3))

    def held(value: float) -> dict[str, Any]:
        model, module = Own(), Module()
        model(np.zeros((1, 3), "float32"))
        variables = [*model.variables, *module.dense.variables, model.scale]
        rates = {"a": tf.Variable(value), "b": [tf.Variable(value)]}
        generator = tf.random.Generator.from_seed(int(value))
        alone = keras.Variable(np.full(2, value, "float32"))
        for variable in variables:
            variable.assign(np.full(variable.shape, value))
        return {"net": model, "module": module, "rates": rates, "g": generator, "alone": alone}

    def all_of(objects: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
        net, module, rates = objects["net"], objects["module"], objects["rates"]
        found = [*net.variables, net.scale, *module.dense.variables, rates["a"], *rates["b"]]
        return [np.asarray(v) for v in (*found, objects["g"].state, objects["alone"])]

    saved, fresh = held(5.0), held(0.0)
    prefix = tf.train.Checkpoint(**saved).save(str(tmp_path / "ckpt"))
    assert kct.compare(fresh, prefix)
    assert equal(all_of(fresh), all_of(held(0.0)))  # Comparing changes nothing.
    assert kct.load_weights(fresh, prefix)
    assert equal(all_of(fresh), all_of(saved))
    single = held(0.0)
    for name in ("net", "module", "rates", "g", "alone"):
        assert kct.load_weights(single[name], prefix), name
    assert equal(all_of(single), all_of(saved))


def test_a_failed_restore_of_several_leaves_each_as_it_was(tmp_path: Path) -> None:
    """The last of them refuses its state, when the others have theirs already."""

    class Refusing(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.w = self.add_weight(shape=(2,), name="w")

        def load_own_variables(self, store: Any) -> None:
            raise ValueError("not today")

    def held(value: float) -> dict[str, Any]:
        layer = Refusing()
        layer.build((None, 2))
        return {"first": tf.Variable(value), "last": layer}

    prefix = tf.train.Checkpoint(**held(3.0)).save(str(tmp_path / "ckpt"))
    fresh = held(1.0)
    with pytest.raises(RestoreError, match="not today"):
        kct.load_weights(fresh, prefix)
    assert float(fresh["first"]) == 1.0


def test_what_cannot_be_filled_is_refused(tmp_path: Path) -> None:
    """Nothing at all, numbers, a model without variables, a metric without state."""
    prefix = tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    for wrong in ([], {"x": 3}, {"x": [tf.Variable(1.0), 2]}):
        with pytest.raises(ArgumentError):
            kct.load_weights(wrong, prefix)
    with pytest.raises(NotBuiltError):
        kct.load_weights({"x": keras.Sequential([keras.layers.Dense(1)])}, prefix)
    path = tmp_path / "model.weights.h5"
    network().save_weights(path)
    with pytest.raises(ArtefactKindError, match="one model"):
        kct.load_weights({"model": network()}, path)


def test_a_state_file_that_is_wrong_is_told(tmp_path: Path) -> None:
    """It points elsewhere, where there is one or not; or to what is gone, with others there."""
    folder = Path(shutil.copytree(FOLDER / "adam", tmp_path / "adam"))
    state = folder / "checkpoint"
    state.write_text('model_checkpoint_path: "/gone/ckpt-3"\n')
    with pytest.warns(UserWarning, match=r"names '/gone/ckpt-3', which is elsewhere; .*ckpt-3"):
        assert kct.load_weights(network(), folder)
    state.write_text('model_checkpoint_path: "ckpt-9"\n')
    with pytest.warns(UserWarning, match=r"'ckpt-9', which is missing; .*ckpt-3"):
        assert kct.load_weights(network(), folder)
    assert not kct.verify(folder)
    assert kct.inspect(folder).warnings
    other = FOLDER / "adam" / "ckpt-2"
    state.write_text(f'model_checkpoint_path: "{other}x"\n')
    with pytest.raises(ArtefactNotFoundError, match="outside this directory"):
        kct.load_weights(network(), folder)


def test_reports_of_a_checkpoint_of_others() -> None:
    """The paths of the program that wrote it, and the updates that had been made."""
    report = kct.inspect(FOLDER / "legacy_adam")
    assert report
    assert report.progress.step == 3
    assert "model/layer_with_weights-0/kernel" in {info.path for info in report.tensors}
    checks = kct.verify(FOLDER / "legacy_adam").files
    assert [Path(check.path).name for check in checks] == ["ckpt-2", "ckpt-3"]
    assert all(checks)


OUTSIDE = tf.Variable(1.0)


class Talkative(tf.Module):
    """An object of the user's, with a property that does something."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(0.0)
        self.helper = keras  # A module, as programs keep one at hand.
        self.called = 0

    @property
    def lever(self) -> tf.Variable:
        """Count, as what has an effect."""
        self.called += 1
        return self.weight


def test_a_file_names_no_way_out_of_the_objects(tmp_path: Path) -> None:
    """Through `__init__` to the program's globals, into a module; and it calls no property."""
    root = tf.train.Checkpoint(weight=tf.Variable(2.0))
    steps = ["__init__", "__globals__"]
    node = root
    for name in steps:
        below = tf.train.Checkpoint()
        node._track_trackable(below, name, overwrite=True)
        node = below
    node._track_trackable(tf.Variable(6.0), "OUTSIDE", overwrite=True)
    root._track_trackable(tf.train.Checkpoint(x=tf.Variable(6.0)), "helper", overwrite=True)
    root._track_trackable(tf.train.Checkpoint(x=tf.Variable(6.0)), "lever", overwrite=True)
    target = Talkative()
    report = kct.load_weights(target, root.write(str(tmp_path / "hostile")), strict=False)
    assert report.matched == ("weight/vars/0",)
    assert float(target.weight) == 2.0
    assert float(OUTSIDE) == 1.0
    assert target.called == 0

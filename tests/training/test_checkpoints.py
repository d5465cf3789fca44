"""All tracked objects in one file, and back: all or nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import constant_model, constant_of, set_constant, small_data, small_model, state_of

from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    ArtefactNotFoundError,
    DamagedArtefactError,
    NotBuiltError,
    RestoreError,
)
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.retention import KeepLast, Policy
from keras_ckpt_tools.training.checkpoints import Checkpoints


def checkpoints(directory: Path, policy: Policy | None = None, **objects: Any) -> Checkpoints:
    """Return the engine for these objects."""
    return Checkpoints(str(directory), objects, policy or Policy())


def save(directory: Path, **objects: Any) -> str:
    """Save these objects; return the path."""
    return checkpoints(directory, **objects).save(TrainingProgress(1))


def flip(path: str | Path, offset: int = -1) -> None:
    """Change one bit of a file."""
    data = bytearray(Path(path).read_bytes())
    data[offset] ^= 1
    Path(path).write_bytes(data)


def test_all_objects_are_one_file(tmp_path: Path) -> None:
    """One rename commits all of them, with where training is."""
    save(tmp_path, model=small_model(), weight=tf.Variable(1.0), numbers=np.random.default_rng(1))
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt-00000001.weights.h5"]


def test_stock_keras_opens_the_model_in_it(tmp_path: Path) -> None:
    """By `model.load_weights`, where a model is tracked as `model`; the optimizer too."""
    model = small_model()
    model.fit(*small_data(), batch_size=4, verbose=0)
    path = save(tmp_path, model=model, extra=[tf.Variable(1.0)], optimizer=model.optimizer)
    other = small_model()
    other.optimizer.build(other.trainable_variables)
    other.load_weights(path)
    assert state_of(other) == state_of(model)


@pytest.mark.parametrize("alone", [True, False])
def test_h5py_reads_it(alone: bool, tmp_path: Path) -> None:
    """It is a plain HDF5 file with a group for each object."""
    objects = {} if alone else {"model": constant_model(2.0)}
    path = save(tmp_path, weights={"a": tf.Variable([1.0, 2.0])}, **objects)
    with h5py.File(path) as file:
        assert file["weights/a/vars/0"][:].tolist() == [1.0, 2.0]
        assert ("model" in file) is not alone


def test_another_object_with_the_name_of_a_group_of_the_model(tmp_path: Path) -> None:
    """`layers` may be the user's name for something, though stock Keras looks there."""
    saved = {"model": constant_model(1.0), "layers": tf.Variable(5.0)}
    path = save(tmp_path, **saved)
    restored = {"model": constant_model(0.0), "layers": tf.Variable(0.0)}
    checkpoints(tmp_path, **restored).restore(path)
    assert (constant_of(restored["model"]), float(restored["layers"])) == (1.0, 5.0)


def unbuilt() -> keras.Model:
    """Return a model without variables."""
    return keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(1)])


class Subclassed(keras.Model):
    """A model that is built when it is called."""

    kind = keras.layers.Dense

    def __init__(self) -> None:
        super().__init__()
        self.dense = self.kind(3)

    def call(self, x: Any) -> Any:
        return self.dense(x)


@pytest.mark.parametrize("make", [unbuilt, Subclassed])
def test_an_unbuilt_model_and_its_optimizer_are_built_from_the_record(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    """The shape is on record, and so is what the optimizer was built on."""
    model, optimizer = make(), keras.optimizers.Adam()
    x = np.ones((2, 4), "float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x))
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    path = save(tmp_path, model=model, optimizer=optimizer)
    other, other_optimizer = make(), keras.optimizers.Adam()
    # The optimizer first: it has to wait for the model.
    checkpoints(tmp_path, optimizer=other_optimizer, model=other).restore(path)
    for one, two in ((model, other), (optimizer, other_optimizer)):
        for a, b in zip(one.variables, two.variables, strict=True):
            assert np.array_equal(np.asarray(a), np.asarray(b))
    assert np.array_equal(np.asarray(model(x)), np.asarray(other(x)))


def test_an_unbuilt_model_of_unknown_shape_is_refused(tmp_path: Path) -> None:
    """With the call to make; never a restore that restores nothing."""

    class Unsaid(keras.layers.Dense):
        def get_build_config(self) -> None:
            return None

    class Shapeless(Subclassed):
        kind = Unsaid

        def get_build_config(self) -> None:
            return None

    model = Shapeless()
    model(np.ones((2, 4)))
    path = save(tmp_path, model=model)
    with pytest.raises(NotBuiltError, match=r"build\(input_shape\)"):
        checkpoints(tmp_path, model=Shapeless()).restore(path)


def test_an_unbuilt_model_is_not_saved(tmp_path: Path) -> None:
    """There is nothing in it yet."""
    with pytest.raises(NotBuiltError, match="one batch of data"):
        save(tmp_path, model=unbuilt())
    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_of_variables_that_are_not_tracked_is_refused(tmp_path: Path) -> None:
    """It cannot be built from the record; the message says what to call."""
    model = small_model()
    model.fit(*small_data(), batch_size=4, verbose=0)
    path = save(tmp_path, optimizer=model.optimizer)
    other = keras.optimizers.Adam()
    with pytest.raises(NotBuiltError, match=r"build\(model\.trainable_variables\)"):
        checkpoints(tmp_path, optimizer=other).restore(path)
    other.build(small_model().trainable_variables)
    checkpoints(tmp_path, optimizer=other).restore(path)
    assert int(np.asarray(other.iterations)) == 4


def test_other_names_are_refused(tmp_path: Path) -> None:
    """All of them in one error, and nothing is changed."""
    path = save(tmp_path, generator=tf.Variable(1.0), critic=tf.Variable(1.0))
    here = tf.Variable(0.0)
    with pytest.raises(RestoreError) as caught:
        checkpoints(tmp_path, generator=here, judge=tf.Variable(0.0)).restore(path)
    assert "Tracked, but not in it: judge" in str(caught.value)
    assert "In it, but not tracked: critic" in str(caught.value)
    assert float(here) == 0.0


def test_a_misfit_anywhere_changes_nothing_anywhere(tmp_path: Path) -> None:
    """The report names all that does not fit, of all objects."""
    path = save(
        tmp_path, a=tf.Variable([1.0]), b=[tf.Variable(1.0)], model=constant_model(1.0, layers=2)
    )
    a, model = tf.Variable([0.0]), constant_model(0.0, layers=3)
    b = [tf.Variable(0.0), tf.Variable(0)]
    with pytest.raises(RestoreError) as caught:
        checkpoints(tmp_path, a=a, b=b, model=model).restore(path)
    for place in ("b/1/vars/0", "model/layers/dense_2/vars/0", "model/layers/dense_2/vars/1"):
        assert place in caught.value.report.missing
    assert (float(a[0]), constant_of(model), float(b[0])) == (0.0, 0.0, 0.0)


class Moody:
    """An object that refuses its state in a bad mood."""

    def __init__(self, mood: str):
        self.mood = mood

    def state_dict(self) -> dict[str, str]:
        """Return its state."""
        return {"mood": self.mood}

    def load_state_dict(self, state: dict[str, str]) -> None:
        """Take its state, or refuse it."""
        if self.mood == "bad":
            raise RuntimeError("not today")
        self.mood = state["mood"]


def test_an_object_that_refuses_changes_nothing_in_the_others(tmp_path: Path) -> None:
    """Those before it get back what they had."""
    model, moody = constant_model(1.0), Moody("good")
    path = save(tmp_path, model=model, number=tf.Variable(1.0), state=Moody("fair"), last=moody)
    model, number, state = constant_model(0.0), tf.Variable(0.0), Moody("fine")
    with pytest.raises(RestoreError, match="not today"):
        checkpoints(tmp_path, model=model, number=number, state=state, last=Moody("bad")).restore(
            path
        )
    assert (constant_of(model), float(number), state.mood) == (0.0, 0.0, "fine")


def test_an_object_that_refuses_changes_nothing_that_only_a_run_saves(tmp_path: Path) -> None:
    """The state of a stateful RNN, and whether a quantized layer is calibrated, stay, too."""

    def recurrent(calibrated: bool, batches: int) -> tuple[keras.Model, Any, Any]:
        inputs = keras.Input(batch_shape=(1, 2, 3))
        rnn, dense = keras.layers.LSTM(2, stateful=True), keras.layers.Dense(2)
        model = keras.Model(inputs, dense(rnn(inputs)))
        whole = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        whole.layers[0].quantize("int8")
        whole.layers[0].is_gptq_calibrated = calibrated
        for _ in range(batches):
            model(np.ones((1, 2, 3), "float32"))
        return model, rnn, whole

    model, _, quantized = recurrent(True, 1)
    path = save(tmp_path, model=model, quantized=quantized, last=Moody("good"))
    model, rnn, quantized = recurrent(False, 2)
    before = [keras.ops.convert_to_numpy(one).copy() for one in rnn.states]
    with pytest.raises(RestoreError, match="not today"):
        checkpoints(tmp_path, model=model, quantized=quantized, last=Moody("bad")).restore(path)
    for one, value in zip(rnn.states, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), value)
    assert quantized.layers[0].is_gptq_calibrated is False


def test_a_damaged_newest_checkpoint_is_passed_over_and_named(tmp_path: Path) -> None:
    """Whether its record or its data is damaged; the numbers go on after it."""
    variable = tf.Variable(0.0)
    engine = checkpoints(tmp_path, v=variable)
    paths = []
    for value in (1.0, 2.0, 3.0):
        variable.assign(value)
        paths.append(engine.save(TrainingProgress(int(value))))
    flip(paths[1])
    flip(paths[2], 200)
    other = checkpoints(tmp_path, v=variable)
    with pytest.warns(UserWarning, match="skipped damaged") as caught:
        found = other.restore_newest()
    assert found is not None
    assert (found[0], found[1].epochs_completed, float(variable)) == (paths[0], 1, 1.0)
    for path in paths[1:]:
        assert path in str(caught[0].message)
    assert other.save(TrainingProgress(2)).endswith("ckpt-00000004.weights.h5")


@pytest.mark.parametrize("length", [0, 20, 700, 2500])
def test_a_truncated_newest_checkpoint_is_passed_over(length: int, tmp_path: Path) -> None:
    """Cut off anywhere, or empty."""
    variable = tf.Variable(tf.ones(512))
    engine = checkpoints(tmp_path, v=variable)
    first, second = (engine.save(TrainingProgress(n)) for n in (1, 2))
    Path(second).write_bytes(Path(second).read_bytes()[:length])
    with pytest.warns(UserWarning, match="00000002"):
        found = checkpoints(tmp_path, v=variable).restore_newest()
    assert found is not None
    assert found[0] == first


def test_damaged_checkpoints_only_are_an_error(tmp_path: Path) -> None:
    """Starting over in silence would lose a run; the message names each file."""
    variable = tf.Variable(0.0)
    paths = [save(tmp_path, v=variable) for _ in range(2)]
    for path in paths:
        flip(path)
    with pytest.raises(DamagedArtefactError, match="Move them away") as caught:
        checkpoints(tmp_path, v=variable).restore_newest()
    assert all(path in str(caught.value) for path in paths)


def test_nothing_to_restore_is_no_error(tmp_path: Path) -> None:
    """Nor is a directory that is not there yet."""
    assert checkpoints(tmp_path, v=tf.Variable(0.0)).restore_newest() is None
    assert checkpoints(tmp_path / "new", v=tf.Variable(0.0)).restore_newest() is None


def test_files_of_others_are_neither_read_nor_deleted(tmp_path: Path) -> None:
    """Not even one with the name of a checkpoint."""
    stranger = tmp_path / "ckpt-00000007.weights.h5"
    small_model().save_weights(stranger)
    (tmp_path / "ckpt-1.h5").write_text("notes")
    (tmp_path / "ckpt-00000003.weights.h5.bak").write_text("notes")
    variable = tf.Variable(0.0)
    engine = checkpoints(tmp_path, KeepLast(1), v=variable)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert engine.restore_newest() is None
    for _ in range(3):
        path = engine.save(TrainingProgress(1))
    assert path.endswith("ckpt-00000010.weights.h5")
    engine.kept.delete_all(TrainingProgress(1).run_id)
    assert len(list(tmp_path.iterdir())) == 3


def test_something_else_is_told_apart(tmp_path: Path) -> None:
    """A whole model, plain weights, nothing: each with the call that opens it."""
    model = constant_model(1.0)
    model.save(tmp_path / "a.keras")
    model.save_weights(tmp_path / "a.weights.h5")
    engine = checkpoints(tmp_path, model=model)
    for name in ("a.keras", "a.weights.h5"):
        with pytest.raises(ArtefactKindError, match=r"kct\.(safe_load_model|load_weights)"):
            engine.restore(str(tmp_path / name))
    with pytest.raises(ArtefactNotFoundError, match=r"a\.keras"):
        engine.restore(str(tmp_path / "b.keras"))


def test_what_cannot_be_tracked_is_told_at_once(tmp_path: Path) -> None:
    """All of it in one error."""
    with pytest.raises(ArgumentError) as caught:
        checkpoints(tmp_path, epoch=3, model=constant_model(1.0), names=["a"], function=print)
    for name in ("epoch=3", "names=['a']", "function="):
        assert name in str(caught.value)
    with pytest.raises(ArgumentError, match="nothing to track"):
        checkpoints(tmp_path)


def test_a_change_of_structure_between_saves_is_saved(tmp_path: Path) -> None:
    """A list that has grown, a layer that was added: a later save has them."""
    numbers = [tf.Variable(1.0)]
    model = constant_model(1.0, layers=1)
    engine = checkpoints(tmp_path, numbers=numbers, model=model)
    engine.save(TrainingProgress(1))
    numbers.append(tf.Variable(2.0))
    model.add(keras.layers.Dense(16))
    set_constant(model, 3.0)
    path = engine.save(TrainingProgress(2))
    other, restored = [tf.Variable(0.0), tf.Variable(0.0)], constant_model(0.0, layers=2)
    checkpoints(tmp_path, numbers=other, model=restored).restore(path)
    assert ([float(v) for v in other], constant_of(restored)) == ([1.0, 2.0], 3.0)


def test_a_saved_state_does_not_change_with_the_object(tmp_path: Path) -> None:
    """What is written is the moment of the save, also for an array that is changed in place."""

    class Holder:
        def __init__(self) -> None:
            self.array = np.zeros(3)

        def get_state(self) -> dict[str, Any]:
            return {"array": self.array}

        def set_state(self, state: dict[str, Any]) -> None:
            self.array = state["array"]

    holder = Holder()
    path = save(tmp_path, holder=holder)
    holder.array += 1
    checkpoints(tmp_path, holder=holder).restore(path)
    assert holder.array.tolist() == [0, 0, 0]

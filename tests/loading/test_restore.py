"""Loading weights is all or nothing, and says what did not fit."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    DamagedArtefactError,
    NotBuiltError,
    RestoreError,
)
from keras_ckpt_tools.metadata import TrainingProgress


def values(model):
    """Return copies of a model's weights and optimizer state."""
    optimizer = getattr(model, "optimizer", None)
    return [np.array(v.numpy()) for v in (*model.weights, *getattr(optimizer, "variables", ()))]


def equal(one, other):
    """Return whether two lists of arrays are the same."""
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def train(model):
    """Train for a batch, so that weights and optimizer have values of their own."""
    model.train_on_batch(np.ones((2, 8, 8, 1), "float32"), np.ones(2))
    return model


class Stack(keras.Model):
    """A subclassed model whose number of layers comes from an argument."""

    def __init__(self, depth, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [keras.layers.Dense(4) for _ in range(depth)]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras"])
@pytest.mark.parametrize("ours", [False, True])
def test_weights_and_optimizer_come_back(name, ours, build_cnn, save_ours, save, tmp_path):
    """From stock files and from ours, into a compiled model that was never trained."""
    model = train(build_cnn())
    path = tmp_path / name
    if ours:
        save_ours(model, path)
    elif name.endswith("weights.h5"):
        model.save_weights(path)
    else:
        save(model, path)
    other = build_cnn()
    report = kct.load_weights(other, path)
    assert report
    assert equal(values(other), values(model))


def test_optimizer_state_is_skipped_where_one_side_has_none(build_cnn, tmp_path):
    """An uncompiled model takes the weights; the report says what it left."""
    model = train(build_cnn())
    model.save_weights(tmp_path / "a.weights.h5")
    other = build_cnn(compiled=False)
    report = kct.load_weights(other, tmp_path / "a.weights.h5")
    assert report
    assert "optimizer/vars/0" in report.skipped_optimizer
    assert equal(values(other), [np.array(w.numpy()) for w in model.weights])


def test_misfit_is_a_report_and_changes_nothing(build_cnn, tmp_path):
    """The error has every path that does not fit; no variable has changed."""
    train(build_cnn(filters=8)).save_weights(tmp_path / "a.weights.h5")
    model = train(build_cnn(filters=4))
    before = values(model)
    with pytest.raises(RestoreError, match="nothing was changed") as caught:
        kct.load_weights(model, tmp_path / "a.weights.h5")
    assert {m.path for m in caught.value.report.shape_mismatch} >= {
        "layers/conv2d/vars/0",
        "layers/dense/vars/0",
    }
    assert equal(values(model), before)
    report = kct.load_weights(model, tmp_path / "a.weights.h5", strict=False)
    assert not report
    assert "layers/dense/vars/1" in report.matched
    assert not equal(values(model), before)


def test_two_layers_into_three_names_the_one_that_is_missing(tmp_path):
    """A model whose depth comes from an argument; stock Keras leaves the third layer random."""
    x = np.ones((1, 4), "float32")
    two, three = Stack(2), Stack(3)
    two(x), three(x)
    two.save_weights(tmp_path / "two.weights.h5")
    with pytest.raises(RestoreError) as caught:
        kct.load_weights(three, tmp_path / "two.weights.h5")
    assert caught.value.report.missing == (
        "blocks/dense_2/vars/0",
        "blocks/dense_2/vars/1",
    )
    assert "blocks/dense_2/vars/0" in str(caught.value)
    assert "strict=False" in str(caught.value)


def test_unbuilt_model_is_built_where_the_file_knows_the_shape(build_cnn, tmp_path):
    """A checkpoint of a manager and a `.keras` say what the model was built with."""
    x = np.ones((1, 4), "float32")
    model = Stack(2)
    model(x)
    kct.CheckpointManager(tmp_path / "run", model=model).save()
    fresh = Stack(2)
    assert kct.load_weights(fresh, tmp_path / "run")
    assert np.array_equal(fresh(x), model(x))


def test_unbuilt_model_is_refused_where_nobody_knows_the_shape(tmp_path):
    """A restore that restores nothing is no restore; the error has the call to make."""
    model = Stack(2)
    model(np.ones((1, 4), "float32"))
    model.save_weights(tmp_path / "a.weights.h5")
    for call in (kct.load_weights, kct.compare):
        with pytest.raises(NotBuiltError, match="Call it on one batch of data"):
            call(Stack(2), tmp_path / "a.weights.h5")


def test_checkpoint_gives_the_model_it_holds(build_cnn, tmp_path):
    """By the name `model`, or the only one there is; the optimizer beside it is not its own."""
    model = train(build_cnn())
    for name in ("model", "classifier"):
        manager = kct.CheckpointManager(
            tmp_path / name, **{name: model}, step=keras.Variable(3, dtype="int64")
        )
        manager.save()
        other = build_cnn()
        assert kct.load_weights(other, manager.latest_checkpoint)
        assert equal(
            [np.array(w.numpy()) for w in other.weights], values(model)[: len(model.weights)]
        )


def test_checkpoint_of_two_models_asks_for_the_manager(build_cnn, tmp_path):
    """Which of them is meant is not guessed."""
    one, two = build_cnn(), build_cnn()
    kct.CheckpointManager(tmp_path / "run", generator=one, critic=two).save()
    with pytest.raises(ArtefactKindError) as caught:
        kct.load_weights(one, tmp_path / "run")
    assert "The checkpoint holds 2 models" in str(caught.value)
    assert "generator=generator, critic=critic).restore_or_initialize()" in str(caught.value)


def test_directory_gives_its_newest_whole_checkpoint(build_cnn, tmp_path):
    """A damaged one is passed over, and named."""
    model = build_cnn()
    manager = kct.CheckpointManager(tmp_path / "run", model=model)
    manager.save()
    first = values(model)
    train(model)
    manager.save()
    other = build_cnn()
    kct.load_weights(other, tmp_path / "run")
    assert equal(values(other), values(model))
    newest = Path(str(manager.latest_checkpoint))
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    with pytest.warns(UserWarning, match=rf"skipped damaged checkpoints: {newest.name}"):
        kct.load_weights(other, tmp_path / "run")
    assert equal([np.array(w.numpy()) for w in other.weights], first[: len(model.weights)])
    for path in (tmp_path / "run").glob("ckpt-*"):
        os.truncate(path, 3000)
    with pytest.raises(DamagedArtefactError, match="No checkpoint of the directory"):
        kct.load_weights(other, tmp_path / "run")


def test_progress_goes_with_weights_that_fit(build_cnn, save_ours, tmp_path):
    """A model that got part of a file is not where the file was."""
    path = save_ours(build_cnn(), tmp_path / "a.weights.h5", TrainingProgress(epochs_completed=5))
    model = build_cnn()
    kct.load_weights(model, path)
    assert kct.training_progress(model).epochs_completed == 5
    wider = build_cnn(filters=8)
    kct.load_weights(wider, path, strict=False)
    assert kct.training_progress(wider).epochs_completed == 0


def test_damaged_file_changes_nothing(build_cnn, save_ours, tmp_path):
    """Everything is read before the first variable changes."""
    path = Path(save_ours(train(build_cnn()), tmp_path / "a.weights.h5"))
    data = bytearray(path.read_bytes())
    last = max(kct.inspect(path).tensors, key=lambda t: t.offset or 0)
    data[last.offset] ^= 1
    path.write_bytes(data)
    model = train(build_cnn())
    before = values(model)
    with pytest.raises(DamagedArtefactError):
        kct.load_weights(model, path)
    assert equal(values(model), before)


def test_arguments_in_the_wrong_order_are_told(build_cnn, tmp_path):
    """The first is the model."""
    with pytest.raises(ArgumentError, match=r"kct\.load_weights\(model, path\)"):
        kct.load_weights("a.weights.h5", build_cnn())
    with pytest.raises(ArgumentError, match="`strict` must be True or False"):
        kct.load_weights(build_cnn(), tmp_path, strict="yes")


def named(*names: str) -> keras.Model:
    """Return layers of the same shape, by name."""
    stack = [keras.layers.Dense(4, name=name) for name in names]
    return keras.Sequential([keras.Input((4,)), *stack])


def test_a_layer_of_another_name_is_an_error_with_the_line_to_paste(tmp_path):
    """Same shapes at the same place: stock Keras pours the one into the other."""
    named("a", "b").save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(RestoreError) as caught:
        kct.load_weights(named("a", "x"), tmp_path / "a.weights.h5")
    assert "the checkpoint's 'b' would have been loaded into 'x'" in str(caught.value)
    assert "rename={'layers/dense_1/*': 'layers/dense_1/*'}" in str(caught.value)


def test_renaming_and_leaving_out_go_together(tmp_path):
    """`include` and `exclude` are about the paths that tensors have in the model."""
    model = named("a", "b")
    model.save_weights(tmp_path / "a.weights.h5")
    other = named("x", "y")
    before = values(other)
    report = kct.load_weights(
        other,
        tmp_path / "a.weights.h5",
        rename={"layers/dense_1/*": "layers/dense/*", "layers/dense/*": "layers/dense_1/*"},
        exclude="layers/dense_1/vars/1",
    )
    assert report
    assert report.left_out == ("layers/dense_1/vars/1",)
    assert equal(values(other)[:3], [*values(model)[2:], values(model)[0]])
    assert equal(values(other)[3:], before[3:])


def test_a_part_of_a_file_does_not_bring_the_progress(build_cnn, save_ours, tmp_path):
    """A model that was given some of the weights is not where the file was."""
    path = save_ours(build_cnn(), tmp_path / "a.weights.h5", TrainingProgress(epochs_completed=5))
    model = build_cnn()
    assert kct.load_weights(model, path, exclude="layers/dense/*")
    assert kct.training_progress(model).epochs_completed == 0


def test_a_renaming_that_does_not_fit_changes_nothing(tmp_path):
    """Nor does an argument that cannot work."""
    model = named("a")
    model.save_weights(tmp_path / "a.weights.h5")
    for arguments in ({"rename": {"typo/*": "x/*"}}, {"include": "typo"}, {"by_name": 1}):
        with pytest.raises(ArgumentError):
            kct.load_weights(model, tmp_path / "a.weights.h5", strict=False, **arguments)


def test_what_was_saved_before_training_sets_the_optimizer_back(build_cnn, tmp_path):
    """Its state is that of a new optimizer, and not what the model has by now."""
    fresh = build_cnn()
    fresh.save_weights(tmp_path / "a.weights.h5")
    model = train(build_cnn())
    assert kct.load_weights(model, tmp_path / "a.weights.h5")
    assert all(not np.any(v.numpy()) for v in model.optimizer.variables[2:])


def test_names_come_from_the_config_where_the_weights_have_none(tmp_path):
    """As in a `.keras` of an older Keras."""
    import h5py

    model = named("a", "b")
    model.save(tmp_path / "a.keras")
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        archive.extractall(folder)
    with h5py.File(folder / "model.weights.h5", "r+") as file:
        file.visititems(lambda _, one: one.attrs.pop("name", None) and None)
    report = kct.compare(named("b", "a"), folder)
    assert report
    assert ("layers/dense_1/vars/0", "layers/dense/vars/0") in report.renamed

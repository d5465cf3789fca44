"""Classes that have changed open what their former selves have saved."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, MigrationError, RestoreError
from keras_ckpt_tools.formats.source import Source

FOLDER = Path(__file__).parents[1] / "files" / "generations"
GENERATIONS = ("first", "second", "third")


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The classes of the third generation, registered for the test."""
    name = "kct_third_generation"
    spec = importlib.util.spec_from_file_location(name, FOLDER / "third.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    module.register()
    return module


def build(present: Any, *, compiled: bool = True) -> keras.Model:
    """Return the model of the third generation, with other weights."""
    dense = keras.layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input((3,)), *present.layers(), dense], name="net")
    if compiled:
        model.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
        model.optimizer.build(model.trainable_variables)
    return model


def read(generation: str) -> tuple[Any, dict[str, Any]]:
    """Return inputs, and what the model of that generation made of them."""
    folder = FOLDER / generation
    return np.load(folder / "x.npy"), json.loads((folder / "expected.json").read_text())


def assert_answers(model: keras.Model, generation: str) -> None:
    """Check that the model answers as the one that was saved."""
    x, expected = read(generation)
    np.testing.assert_allclose(model(x).numpy(), expected["answers"], rtol=1e-5, atol=1e-6)


def slots(model: keras.Model) -> dict[str, Any]:
    """Return the state of the optimizer, by the end of its name."""
    return {v.name: v.numpy() for v in model.optimizer.variables}


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("file", ["ours.keras", "stock.keras"])
def test_every_generation_is_loaded_by_the_last_one(present, generation, file):
    """Renamed, moved, in another package, with other arguments, weights and parts."""
    _, expected = read(generation)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trusted = ["lab>*"]
        model = kct.safe_load_model(FOLDER / generation / file, trusted=trusted)
    assert_answers(model, generation)
    state = slots(model)
    assert int(state["iteration"]) == expected["iterations"]
    head = next(name for name in state if name.endswith("head_kernel_momentum"))
    np.testing.assert_allclose(state[head], expected["state"]["net_head_kernel_momentum"])
    lost = [str(one.message) for one in told if "without optimizer state" in str(one.message)]
    assert bool(lost) == (generation != "third")


@pytest.mark.parametrize("generation", ["first", "second"])
@pytest.mark.parametrize("door", ["load_weights", "objects", "file", "manager"])
def test_a_run_goes_on_with_state_of_what_is_still_the_same(present, tmp_path, generation, door):
    """A moved kernel keeps its momentum; a bias that was reshaped, and a new gate, have none."""
    model = build(present)
    folder = shutil.copytree(FOLDER / generation / "run", tmp_path / "run")
    if door == "manager":
        run = kct.CheckpointManager(folder, model=model, optimizer=model.optimizer)
        with pytest.warns(UserWarning, match="start without optimizer state"):
            run.restore_or_initialize()
    else:
        target: Any = model
        if door == "objects":
            target = {"model": model, "optimizer": keras.optimizers.Adam(0.1)}
            model.optimizer = target["optimizer"]
        path = FOLDER / generation / "ours.keras" if door == "file" else folder
        report = kct.load_weights(target, path)
        assert report
        assert not report.optimizer_differs
        assert report.skipped_optimizer
    assert_answers(model, generation)
    state, then = slots(model), read(generation)[1]["state"]
    for slot in ("momentum", "velocity"):
        now = [name for name in state if name.endswith(f"_kernel_{slot}") and "head" not in name]
        saved = [name for name in then if name.endswith(f"kernel_{slot}") and "head" not in name]
        assert len(now) == len(saved) == 3
        for one, other in zip(now, saved, strict=True):
            np.testing.assert_allclose(state[one], then[other])
            assert np.any(state[one])
    assert not any(np.any(v) for name, v in state.items() if name.endswith("gate_momentum"))
    biases = {
        name: v
        for name, v in state.items()
        if name.endswith("_bias_momentum") and "head" not in name
    }
    assert len(biases) == 3
    assert all(np.any(v) for v in biases.values()) == (generation == "second")


def test_without_a_record_state_is_known_in_front_of_and_behind_what_changed(present):
    """Stock files do not say which variables an optimizer was built on."""
    model = build(present)
    report = kct.load_weights(model, FOLDER / "first" / "stock.keras")
    assert report
    state, then = slots(model), read("first")[1]["state"]
    assert {path.partition("/")[0] for path in report.skipped_optimizer} == {"optimizer"}
    np.testing.assert_allclose(state["net_head_bias_velocity"], then["net_head_bias_velocity"])
    assert not np.any(state["net_entry_dense_kernel_momentum"])


def test_a_hand_written_loop_restores_an_optimizer_that_is_not_built(present, tmp_path):
    """It is built on what the model has now, and not on what it had."""
    model = build(present, compiled=False)
    optimizer = keras.optimizers.Adam(0.1)
    folder = shutil.copytree(FOLDER / "second" / "run", tmp_path / "run")
    run = kct.CheckpointManager(folder, model=model, optimizer=optimizer)
    with pytest.warns(UserWarning, match="start without optimizer state"):
        run.restore_or_initialize()
    assert len(optimizer.variables) == 2 + 2 * len(model.trainable_variables)
    assert_answers(model, "second")


def test_comparing_says_the_same_and_changes_nothing(present):
    """The report of `compare` is that of `load_weights`."""
    model = build(present)
    before = [v.numpy() for v in model.variables]
    report = kct.compare(model, FOLDER / "first" / "ours.keras")
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))
    assert report == kct.load_weights(model, FOLDER / "first" / "ours.keras")


class Wide(keras.layers.Layer):
    """A layer around a `Dense`, and an average of weights."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        return self.dense(x)


def saved_wide(path: Path, optimizer: Any = None) -> keras.Model:
    """Save the first version of `Wide` with stock Keras."""
    model = keras.Sequential([keras.Input((2,)), Wide(name="wide"), keras.layers.Dense(1)])
    model.compile(optimizer or "sgd", "mse", run_eagerly=True)
    model.fit(np.ones((2, 2), "float32"), np.ones((2, 1), "float32"), verbose=0)
    model.save(path)
    return model


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda w, v: w["nothing"], "raised KeyError"),
        (lambda w, v: None, "returned NoneType None, which is not a dict"),
        (lambda w, v: {"dense/vars/0": [1.0]}, r"'dense/vars/0': list \[1.0\]"),
        (lambda w, v: {**w, "gate": np.ones(1)}, r"does not have: gate \(it has dense/vars/0, "),
    ],
)
def test_what_a_function_does_wrong_is_said_at_once(tmp_path, function, said):
    """With the class and its versions; and the model is as it was."""
    model = saved_wide(tmp_path / "a.keras")
    before = [v.numpy() for v in model.variables]
    kct.register("shop", version=2, migrate_weights=function)(Wide)
    with pytest.raises(MigrationError, match=f"shop>Wide .version 2.*version 1.*{said}") as caught:
        kct.load_weights(model, tmp_path / "a.keras")
    assert (caught.value.from_version, caught.value.to_version) == (1, 2)
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))


def test_what_a_function_leaves_out_or_shapes_wrongly_is_in_the_report(tmp_path):
    """By its full path, as for any other file."""
    model = saved_wide(tmp_path / "a.keras")
    kct.register(
        "shop", version=2, migrate_weights=lambda w, v: {"dense/vars/0": w["dense/vars/0"][:1]}
    )(Wide)
    with pytest.raises(RestoreError) as caught:
        kct.load_weights(model, tmp_path / "a.keras")
    assert caught.value.report.missing == ("layers/wide/dense/vars/1",)
    assert [one.path for one in caught.value.report.shape_mismatch] == ["layers/wide/dense/vars/0"]


def test_layers_that_changed_are_still_found_by_their_names(tmp_path):
    """Each gets its own, however they are ordered, and whatever their class was called."""
    saved = keras.Sequential([keras.Input((2,)), Wide(name="one"), Wide(name="two")])
    saved.save(tmp_path / "a.keras")
    layer = type("Wider", (Wide,), {})
    kct.register(
        "shop",
        aliases=["Wide"],
        version=2,
        migrate_weights=lambda w, v: {n: 2 * array for n, array in w.items()},
    )(layer)
    model = keras.Sequential([keras.Input((2,)), layer(name="two"), layer(name="one")])
    assert kct.load_weights(model, tmp_path / "a.keras")
    for name in ("one", "two"):
        ours, theirs = (m.get_layer(name).dense.kernel.numpy() for m in (model, saved))
        np.testing.assert_array_equal(ours, 2 * theirs)


def test_state_of_another_optimizer_is_left_in_the_file(tmp_path):
    """Nothing of it is renumbered, and it is told as it always is."""
    saved_wide(tmp_path / "a.keras", keras.optimizers.RMSprop(0.1))
    kct.register("shop", version=2, migrate_weights=lambda w, v: {n: +a for n, a in w.items()})(
        Wide
    )
    model = keras.Sequential([keras.Input((2,)), Wide(name="wide"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    report = kct.load_weights(model, tmp_path / "a.keras", strict=False)
    assert "it is of RMSprop, and the model has Adam" in report.optimizer_differs[0]
    assert not any(path.startswith("optimizer/") for path in report.matched)


def test_only_the_arrays_of_that_object_are_read(tmp_path, monkeypatch):
    """Comparing reads them, because their shapes are not known before; it reads no others."""
    model = saved_wide(tmp_path / "a.keras")
    seen: list[str] = []
    kct.register("shop", version=2, migrate_weights=lambda w, v: w)(Wide)
    read_all = Source.read_all

    def noted(self: Source, paths: Any) -> Any:
        paths = list(paths)
        seen.extend(paths)
        return read_all(self, paths)

    monkeypatch.setattr(Source, "read_all", noted)
    assert kct.compare(model, tmp_path / "a.keras")
    assert sorted(seen) == ["layers/wide/dense/vars/0", "layers/wide/dense/vars/1"]


def test_an_average_of_weights_begins_with_the_weights(tmp_path):
    """With zeros it would pull the weights towards zero at the next overwrite."""
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True)
    model = saved_wide(tmp_path / "a.keras", optimizer)
    kct.register(
        "shop", version=2, migrate_weights=lambda w, v: {n: 2 * array for n, array in w.items()}
    )(Wide)
    report = kct.load_weights(model, tmp_path / "a.keras")
    kernel = model.layers[0].dense.kernel
    averages = dict(
        zip(
            map(id, optimizer._trainable_variables),
            optimizer._model_variables_moving_average,
            strict=True,
        )
    )
    np.testing.assert_array_equal(averages[id(kernel)].numpy(), kernel.numpy())
    assert len(report.skipped_optimizer) == 4


def test_a_file_of_this_version_is_not_migrated(tmp_path):
    """What we save says the version; the function is for older ones."""
    called: list[int] = []

    def migrate_weights(weights: Any, from_version: int) -> Any:
        called.append(from_version)
        return weights

    kct.register("shop", version=2, migrate_weights=migrate_weights)(Wide)
    model = keras.Sequential([keras.Input((2,)), Wide()])
    model.compile("sgd", "mse")
    kct.CheckpointManager(tmp_path / "run", model=model).save()
    kct.load_weights(model, tmp_path / "run")
    assert not called


def test_arguments_that_cannot_work_are_refused():
    """A function without a version has nothing older to migrate."""
    with pytest.raises(ArgumentError, match="migrate_weights= without version="):
        kct.register("shop", migrate_weights=lambda w, v: w)
    with pytest.raises(ArgumentError, match="migrate_weights=3 is not a function"):
        kct.register("shop", version=2, migrate_weights=3)  # type: ignore[call-overload]

"""Checkpoints of `OrbaxCheckpoint`: inspected, compared, loaded, and hostile ones refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import (
    ArgumentError,
    ArtefactKindError,
    DamagedArtefactError,
    MissingPackageError,
    ObjectsNotFoundError,
    OverBudgetError,
    RestoreError,
    UnsafeArtefactError,
)
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.live.foreign.orbax import _same_names
from keras_ckpt_tools.tools.diff import diff
from keras_ckpt_tools.tools.export import export

FOLDER = Path(__file__).parents[1] / "files" / "orbax"
WHOLE, WEIGHTS = FOLDER / "whole", FOLDER / "weights"
STOCK = getattr(keras.callbacks, "OrbaxCheckpoint", None)


def program() -> Any:
    """Return the module that made the files."""
    spec = importlib.util.spec_from_file_location("kct_orbax_make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(model: keras.Model) -> Any:
    """Return what a model makes of the data of the program."""
    (words, numbers), _ = program().data()
    return model(
        [keras.ops.convert_to_tensor(words.astype(str)), keras.ops.convert_to_tensor(numbers)]
    ).numpy()


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A function that copies a checkpoint, to be damaged."""
    return lambda source: Path(shutil.copytree(source, tmp_path / source.name))


def test_inspecting_says_what_is_in_it(registry):
    """Objects with their verdicts, tensors by name, and where training was."""
    report = kct.inspect(WHOLE, registry=registry)
    assert report.kind is Kind.ORBAX
    assert not report.errors
    names = {use.registered_name for use in report.objects}
    assert {"paints>Tint", "StringLookup", "Adam"} <= names
    assert not report
    shapes = {info.path: (info.shape, info.dtype) for info in report.tensors}
    assert shapes["trainable_variables/dense/kernel"] == ((7, 4), "float32")
    assert (report.progress.epochs_completed, report.progress.step) == (2, 4)
    assert report.size > 10_000
    one = kct.inspect(WHOLE / "0", registry=registry)
    assert (one.progress.epochs_completed, one.progress.step) == (1, 2)
    assert kct.training_progress(WHOLE) == report.progress


def test_inspecting_imports_no_framework():
    """Neither Keras nor TensorFlow, JAX or Orbax."""
    code = (
        "import sys, keras_ckpt_tools as kct; "
        f"print(len(kct.inspect({str(WHOLE)!r}).tensors)); "
        "print(sorted({'jax', 'keras', 'orbax', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["31", "[]"]


def test_without_tensorstore_the_objects_are_still_told(monkeypatch, registry):
    """And the extra that is missing; a load says the same."""
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    report = kct.inspect(WHOLE, registry=registry)
    assert any(use.registered_name == "paints>Tint" for use in report.objects)
    assert ["keras_ckpt_tools[orbax]" in one for one in report.problems] == [True]
    model, _ = program().build()
    with pytest.raises(MissingPackageError, match=r"pip install 'keras_ckpt_tools\[orbax\]'"):
        kct.load_weights(model, WHOLE)


@pytest.mark.skipif(STOCK is None, reason="this Keras does not know all arguments in the config")
def test_a_whole_model_is_loaded_with_its_optimizer_and_vocabulary():
    """After the gate: the custom class has to be vouched for."""
    with pytest.raises(ObjectsNotFoundError) as caught:
        kct.safe_load_model(WHOLE)
    assert caught.value.missing == ("paints>Tint",)
    _, tint = program().build()
    model = kct.safe_load_model(WHOLE, custom_objects={"paints>Tint": tint})
    np.testing.assert_allclose(answers(model), np.load(FOLDER / "whole.npy"), rtol=1e-5)
    assert int(model.optimizer.iterations) == 4
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.01)
    assert any(np.any(v.numpy()) for v in model.optimizer.variables if "momentum" in v.name)
    assert kct.training_progress(model).epochs_completed == 2
    earlier = kct.safe_load_model(WHOLE, {"paints>Tint": tint}, which=0)
    assert int(earlier.optimizer.iterations) == 2
    assert not np.allclose(answers(earlier), np.load(FOLDER / "whole.npy"), rtol=1e-5)
    with pytest.raises(ArgumentError, match=r"no step 7 .* there: 0, 1\."):
        kct.safe_load_model(WHOLE, {"paints>Tint": tint}, which=7)


@pytest.mark.parametrize("source", [WHOLE, WHOLE / "1", WEIGHTS, WEIGHTS / "0" / "pytree"])
def test_weights_go_into_a_model_that_was_built_anew(source):
    """Whose layers and generators have other numbers in their names than when it was saved."""
    program().build()
    model, _ = program().build()
    assert kct.compare(model, source)
    report = kct.load_weights(model, source)
    assert report
    assert not report.skipped_optimizer or "weights" in str(source)
    name = "whole.npy" if WHOLE in (source, source.parent) else "weights.npy"
    np.testing.assert_allclose(answers(model), np.load(FOLDER / name), rtol=1e-5)
    if name == "whole.npy":
        assert int(model.optimizer.iterations) == 4


def test_an_uncompiled_model_leaves_the_optimizers_state(tmp_path):
    """It is set apart in the report, and no reason to refuse."""
    model, _ = program().build()
    plain = keras.Model(model.inputs, model.outputs)
    report = kct.load_weights(plain, WHOLE)
    assert report
    assert len(report.skipped_optimizer) == 16


def test_state_of_another_optimizer_is_never_poured_in():
    """Nor is anything else then, if it is to be all or nothing."""
    model, _ = program().build()
    model.compile(keras.optimizers.RMSprop(), "mse")
    before = [v.numpy() for v in model.variables]
    with pytest.raises(RestoreError) as caught:
        kct.load_weights(model, WHOLE)
    assert any("adam/" in path for path in caught.value.report.unexpected)
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))


def test_a_model_that_does_not_fit_is_told_by_name():
    """Both sides with the names that they have."""
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(5, name="dense")])
    with pytest.raises(RestoreError) as caught:
        kct.load_weights(model, WEIGHTS)
    report = caught.value.report
    assert "trainable_variables/dense_1/kernel" in report.unexpected


def test_it_holds_no_objects_of_their_own():
    """An optimizer by itself has no place in it that could be told."""
    with pytest.raises(ArtefactKindError, match=r"one model.*`kct.load_weights\(model, "):
        kct.load_weights({"model": program().build()[0]}, WHOLE)


def test_weights_alone_are_no_model():
    """The error says what is."""
    with pytest.raises(ArtefactKindError, match=r"`kct.load_weights\(model, "):
        kct.safe_load_model(WEIGHTS)


def test_a_damaged_step_is_passed_over(copy):
    """The one before it is taken, and a warning says so."""
    folder = copy(WHOLE)
    for path in (folder / "1" / "pytree" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:-50])
    model, _ = program().build()
    with pytest.warns(UserWarning, match="Loaded .*/0.; skipped damaged .*: 1: TensorStore"):
        assert kct.load_weights(model, folder)
    assert int(model.optimizer.iterations) == 2
    (folder / "1" / "pytree" / "_METADATA").write_text("{")
    assert kct.compare(model, folder).path.endswith("/0")
    with pytest.raises(DamagedArtefactError):
        kct.load_weights(model, folder / "1")


def test_the_newest_step_is_the_same_for_all(copy):
    """A damaged one is passed over; one step that is passed has to be the one that is asked for."""
    _, tint = program().build()
    run = copy(WHOLE)
    (run / "1" / "_CHECKPOINT_METADATA").write_text("{")
    for path in (run / "1").glob("**/_METADATA"):
        path.write_text("{")
    with pytest.warns(UserWarning, match="skipped damaged ones: 1"):
        assert kct.training_progress(run) == kct.training_progress(run / "0")
    with pytest.warns(UserWarning, match="skipped damaged"):
        assert kct.inspect(run).progress == kct.training_progress(run)
    with pytest.raises(ArgumentError, match=r"Steps that are there: 0\."):
        kct.safe_load_model(run / "0", {"paints>Tint": tint}, which=1)
    with pytest.raises(ArgumentError, match="Invalid `which`"):
        kct.safe_load_model(run, {"paints>Tint": tint}, which="newest")  # type: ignore[arg-type]
    assert kct.safe_load_model(run / "0", {"paints>Tint": tint}, which=0)


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a document of JSON."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def renamed_to(name: str) -> Callable[[dict[str, Any]], Any]:
    """Return what gives the first tensor a part of a name."""

    def change(document: dict[str, Any]) -> None:
        next(iter(document["tree_metadata"].values()))["key_metadata"][0]["key"] = name

    return change


@pytest.mark.parametrize("name", ["..", "/etc", "a/b", "", None, 3])
def test_names_that_lead_elsewhere_are_refused(copy, name):
    """Keras' names are parts of paths, and nothing else."""
    step = copy(WHOLE / "1")
    rewritten(step / "pytree" / "_METADATA", renamed_to(name))
    (problem,) = kct.inspect(step).errors
    assert problem.kind == "DamagedArtefactError"
    assert "a name that Keras never writes" in problem


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(tree_metadata=[1]),
        lambda d: d.update(tree_metadata={"a": 3}),
        lambda d: d.update(use_ocdbt=False),
        lambda d: d["tree_metadata"].update(
            {"x": {"key_metadata": [{"key": "absent"}], "value_metadata": {}}}
        ),
    ],
)
def test_other_metadata_is_damage(copy, change):
    """Whatever it says, the error is of one kind."""
    step = copy(WHOLE / "1")
    rewritten(step / "pytree" / "_METADATA", change)
    (problem,) = kct.inspect(step).errors
    assert problem.kind == "DamagedArtefactError"


def test_links_are_refused(copy, tmp_path):
    """Anywhere in it; and a step that is a link is no step."""
    step = copy(WHOLE / "1")
    (step / "pytree" / "manifest.ocdbt").unlink()
    (step / "pytree" / "manifest.ocdbt").symlink_to(WHOLE / "1" / "pytree" / "manifest.ocdbt")
    with pytest.raises(UnsafeArtefactError):
        kct.safe_load_model(step)
    run = tmp_path / "run"
    shutil.copytree(WHOLE / "0", run / "0")
    (run / "5").symlink_to(WHOLE / "1")
    assert kct.training_progress(run).step == 2


def test_what_would_be_too_much_is_refused():
    """Before it is read."""
    model, _ = program().build()
    with pytest.raises(OverBudgetError):
        kct.load_weights(model, WHOLE, max_bytes=100)


def test_handlers_that_the_metadata_names_are_not_looked_up(copy):
    """Nothing is imported because a file says so."""
    step = copy(WHOLE / "1")
    rewritten(
        step / "_CHECKPOINT_METADATA",
        lambda d: d.update(item_handlers={"pytree": "kct_hostile_payload.Handler"}),
    )
    model, _ = program().build()
    assert kct.load_weights(model, step)
    assert "kct_hostile_payload" not in sys.modules


def test_numbers_in_names_are_counted_only_where_all_agree():
    """A name that is the same is the same; a model with one layer more is not renumbered."""
    assert _same_names(["d_3/k", "d_4/k"], ["d/k", "d_1/k"]) == {"d_3/k": "d/k", "d_4/k": "d_1/k"}
    assert _same_names(["d/k", "d_1/k"], ["d/k", "d_1/k"]) == {"d/k": "d/k", "d_1/k": "d_1/k"}
    assert _same_names(["d_1/k", "d_2/k"], ["d/k", "d_1/k", "d_2/k"]) == {
        "d_1/k": "d_1/k",
        "d_2/k": "d_2/k",
    }
    assert _same_names(["d_1/k", "d_5/k"], ["d/k", "d_1/k", "d_2/k"]) == {"d_1/k": "d_1/k"}


@pytest.mark.skipif(STOCK is None, reason="this Keras has no OrbaxCheckpoint")
def test_what_the_callback_writes_today_is_opened(tmp_path):
    """Also in the background, and by batches: then the step is no epoch."""
    pytest.importorskip("orbax.checkpoint", reason="orbax-checkpoint is not installed")
    assert STOCK is not None
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile("adam", "mse", run_eagerly=True)
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    callback = STOCK(str(tmp_path / "run"), save_freq=3)
    model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[callback])
    progress = kct.training_progress(tmp_path / "run")
    assert (progress.epochs_completed, progress.step) == (0, 6)
    loaded = kct.safe_load_model(tmp_path / "run")
    assert int(loaded.optimizer.iterations) == 6


def test_every_byte_of_each_step_is_read_by_verify(copy):
    """A directory is all of its steps; one that is damaged is named, and the other is whole."""
    run = copy(WHOLE)
    assert [Path(check.path).name for check in kct.verify(run).files] == ["1", "0"]
    assert kct.verify(run)
    for path in (run / "1" / "pytree" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:-50])
    report = kct.verify(run)
    assert [bool(check) for check in report.files] == [False, True]
    assert "TensorStore cannot read it" in report.problems[0]


def test_two_steps_are_held_against_each_other():
    """By the names of variables, without a model; a number after `@` is that of a step."""
    report = diff(WHOLE, WHOLE, which=(0, 1))
    moved = {change.name for change in report.tensors if change.verdict == "changed"}
    assert any(name.startswith("trainable_variables/") for name in moved)
    assert report.first.path.endswith("/0")
    assert diff(WHOLE, WHOLE / "1")


def test_a_step_is_exported_as_the_model_that_it_holds(tmp_path):
    """Keras' paths are known to the model only; weights alone do not say where they belong."""
    _, tint = program().build()
    with kct.scope({"paints>Tint": tint}):
        done = export(WHOLE, tmp_path / "a.keras")
        loaded = kct.safe_load_model(WHOLE)
    model = kct.safe_load_model(tmp_path / "a.keras", {"paints>Tint": tint})
    assert done.kind is Kind.ORBAX
    np.testing.assert_array_equal(answers(model), answers(loaded))
    assert int(model.optimizer.iterations) == int(loaded.optimizer.iterations) > 0
    with pytest.raises(ArtefactKindError, match="--config-from"):
        export(WEIGHTS, tmp_path / "b.weights.h5")

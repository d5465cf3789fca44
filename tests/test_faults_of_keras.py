"""The faults of Keras' `ModelCheckpoint`, of registering and of loading, which ours do not have.

Each test runs twice: on stock Keras it has to find the fault, and on ours it must not. So a fault
that Keras has overcome does not stay on the list (that test is skipped, and says so), and a test
that could find nothing is noticed.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from processes import outcome, run, run_killed
from programs import (
    constant_model,
    constant_of,
    overwrite_model,
    overwrite_on_a_full_disk,
    set_constant,
    small_data,
    small_model,
)

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, DuplicateNameError, RestoreError

STOCK = SimpleNamespace(
    ours=False,
    ModelCheckpoint=keras.callbacks.ModelCheckpoint,
    register=keras.saving.register_keras_serializable,
    scope=keras.saving.custom_object_scope,
    load_weights=lambda model, path: model.load_weights(path),
)
OURS = SimpleNamespace(
    ours=True,
    ModelCheckpoint=kct.ModelCheckpoint,
    register=kct.register,
    scope=kct.scope,
    load_weights=kct.load_weights,
)
on_both = pytest.mark.parametrize("library", [STOCK, OURS], ids=["keras", "ours"])


def judge(library: SimpleNamespace, faulty: bool) -> None:
    """Require the fault of stock Keras, and its absence from ours."""
    if library is OURS:
        assert not faulty
    elif not faulty:
        pytest.skip(f"Keras {keras.__version__} does not have this fault")


def value_in(path: Path) -> float | None:
    """Return the constant that a saved model holds; `None` if it cannot be loaded, or is mixed."""
    try:
        if path.name.endswith(".weights.h5"):
            model = constant_model(-1.0)
            model.load_weights(path)
        else:
            model = keras.models.load_model(path, compile=False)
    except Exception:  # noqa: BLE001 - a broken file is broken in many ways
        return None
    return constant_of(model)


def error_of(action: Callable[[], Any]) -> Exception | None:
    """Return what an action raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error
    return None


def best_only(library: SimpleNamespace, path: Path, **arguments: Any) -> Any:
    """Return a callback that saves the best by `val_loss`, on a model of its own."""
    callback = library.ModelCheckpoint(str(path), save_best_only=True, **arguments)
    callback.set_model(constant_model(1.0))
    return callback


def end_epoch(callback: Any, epoch: int, weights: float, **logs: float) -> None:
    """Let an epoch end with these weights and logs."""
    set_constant(callback.model, weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, logs)


# What a save changes.


@on_both
def test_a_save_leaves_the_compile_config_of_the_model(
    library: SimpleNamespace, tmp_path: Path
) -> None:
    """A `.h5` beside a `.keras`: what is saved next still says its optimizer."""
    model = small_model()
    callback = library.ModelCheckpoint(str(tmp_path / "model.h5"), monitor="loss")
    callback.set_model(model)
    end_epoch(callback, 0, 1.0, loss=1.0)
    judge(library, "optimizer" not in model.get_compile_config())


@on_both
@pytest.mark.parametrize("what", ["operations", "vocabulary"])
def test_a_model_that_was_saved_as_h5_opens_whole(
    library: SimpleNamespace, what: str, tmp_path: Path
) -> None:
    """`x + y` between layers cannot be opened again; what a lookup has learnt is lost."""
    if what == "operations":
        x = keras.Input((1,))
        model = keras.Model(x, keras.layers.Dense(1)(keras.ops.relu(x) + x))
        inputs: Any = np.ones((2, 1), "float32")
    else:
        x, inputs = keras.Input((1,), dtype="string"), keras.ops.convert_to_tensor([["b"], ["a"]])
        lookup = keras.layers.StringLookup()
        lookup.adapt(inputs)
        model = keras.Model(x, lookup(x))
    callback = library.ModelCheckpoint(str(tmp_path / "model.h5"), monitor="loss")
    callback.set_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callback.on_epoch_begin(0)
        callback.on_epoch_end(0, {"loss": 1.0})
        try:
            opened = keras.models.load_model(tmp_path / "model.h5")
            faulty = not np.array_equal(opened(inputs), model(inputs))
        except Exception:  # noqa: BLE001 - of Keras or of TensorFlow; either is the fault
            faulty = True
    judge(library, faulty)


# Overwriting.


@on_both
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_a_kill_in_the_middle_of_a_save_loses_no_model(
    library: SimpleNamespace, suffix: str, tmp_path: Path
) -> None:
    """A SIGKILL at any instant of a save: the old model is there, or the new one."""
    calls = run(overwrite_model, library.ours, str(tmp_path / f"whole{suffix}"), None)
    found = []
    for tenths in (2, 4, 6, 8):
        path = tmp_path / f"killed-{tenths}{suffix}"
        run_killed(overwrite_model, library.ours, str(path), calls * tenths // 10)
        found.append(value_in(path))
        if library is OURS:
            assert kct.verify(path)
    judge(library, not set(found) <= {1.0, 2.0})


@on_both
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_a_full_disk_loses_no_model(library: SimpleNamespace, suffix: str, tmp_path: Path) -> None:
    """The old file is there, byte for byte, and nothing is left beside it."""
    path = tmp_path / f"model{suffix}"
    run(overwrite_model, library.ours, str(path), None)
    before = path.read_bytes()
    said = outcome(overwrite_on_a_full_disk, library.ours, str(path))
    if library is OURS:
        assert said.startswith("CommitError")
        assert "unchanged" in said
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
    judge(library, path.read_bytes() != before)


# The best.


@on_both
def test_the_best_is_known_after_a_restart(library: SimpleNamespace, tmp_path: Path) -> None:
    """A worse model does not overwrite a better one of the process before."""
    path = tmp_path / "best.keras"
    end_epoch(best_only(library, path), 0, weights=1.0, val_loss=0.1)
    end_epoch(best_only(library, path), 1, weights=2.0, val_loss=0.5)
    judge(library, value_in(path) == 2.0)


@on_both
def test_a_save_that_failed_is_not_the_best(library: SimpleNamespace, tmp_path: Path) -> None:
    """The next model is saved, although the one that could not be saved was better."""
    folder = tmp_path / "folder"
    callback = best_only(library, folder / "best.keras")
    folder.write_text("in the way")
    with pytest.raises(OSError):
        end_epoch(callback, 0, weights=1.0, val_loss=0.1)
    folder.unlink()
    end_epoch(callback, 1, weights=2.0, val_loss=0.2)
    judge(library, not (folder / "best.keras").exists())


@on_both
def test_nan_is_not_the_best_for_ever(library: SimpleNamespace, tmp_path: Path) -> None:
    """After a first value of NaN, a number is better."""
    path = tmp_path / "best.keras"
    callback = best_only(library, path)
    end_epoch(callback, 0, weights=1.0, val_loss=float("nan"))
    end_epoch(callback, 1, weights=2.0, val_loss=0.2)
    judge(library, value_in(path) != 2.0)


@on_both
def test_a_missing_metric_does_not_cost_the_best_model(
    library: SimpleNamespace, tmp_path: Path
) -> None:
    """Without `val_loss` in the logs, what was best stays."""
    path = tmp_path / "best.keras"
    callback = best_only(library, path)
    end_epoch(callback, 0, weights=1.0, val_loss=0.1)
    end_epoch(callback, 1, weights=2.0, loss=0.3)
    judge(library, value_in(path) == 2.0)


@on_both
def test_the_best_can_be_saved_by_batches(library: SimpleNamespace, tmp_path: Path) -> None:
    """`save_best_only` with an integer `save_freq`, in `fit()`, from the first batch."""
    callback = library.ModelCheckpoint(
        tmp_path / "best.keras", monitor="loss", save_best_only=True, save_freq=1
    )
    raised = error_of(
        lambda: small_model().fit(*small_data(), batch_size=4, verbose=0, callbacks=[callback])
    )
    judge(library, "'NoneType' object is not callable" in str(raised))
    assert (tmp_path / "best.keras").exists()


# Hooks and arguments.


@on_both
def test_a_batch_may_end_before_an_epoch_began(library: SimpleNamespace, tmp_path: Path) -> None:
    """A loop over `train_on_batch` that calls the one hook that it needs."""
    callback = library.ModelCheckpoint(str(tmp_path / "{epoch}-{batch}.keras"), save_freq=1)
    callback.set_model(constant_model(1.0))
    raised = error_of(lambda: callback.on_train_batch_end(0, {"loss": 0.5}))
    judge(library, "_current_epoch" in str(raised))
    assert (tmp_path / "1-1.keras").exists() == (library is OURS)


@on_both
@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_end"])
def test_hooks_work_without_logs(library: SimpleNamespace, hook: str, tmp_path: Path) -> None:
    """`logs=None` is the default of each hook."""
    save_freq = 1 if hook == "on_train_batch_end" else "epoch"
    callback = library.ModelCheckpoint(str(tmp_path / "model.keras"), save_freq=save_freq)
    callback.set_model(constant_model(1.0))
    callback.on_epoch_begin(0)
    raised = error_of(lambda: getattr(callback, hook)(0))
    judge(library, isinstance(raised, TypeError))
    assert (tmp_path / "model.keras").exists() == (library is OURS)


@on_both
@pytest.mark.parametrize("save_freq", [False, 0, -1])
def test_a_save_freq_that_is_none_is_refused(
    library: SimpleNamespace, save_freq: int, tmp_path: Path
) -> None:
    """`False` is an integer for Python, and every batch would be saved."""
    raised = error_of(lambda: library.ModelCheckpoint(tmp_path / "a.keras", save_freq=save_freq))
    judge(library, not isinstance(raised, ArgumentError))
    if library is OURS:
        assert f"save_freq={save_freq}" in str(raised)


# Registering.


@on_both
def test_a_taken_name_is_not_given_away(library: SimpleNamespace) -> None:
    """A second object under a name is refused; which of the two would load?"""

    def first(x: Any) -> Any:
        return x

    def second(x: Any) -> Any:
        return -x

    library.register("shop", name="price")(first)
    raised = error_of(lambda: library.register("shop", name="price")(second))
    judge(library, keras.saving.get_registered_object("shop>price") is not first)
    if library is OURS:
        assert isinstance(raised, DuplicateNameError)
        assert str(raised).count(__file__) == 2


@on_both
def test_an_inner_scope_does_not_hide_the_outer(library: SimpleNamespace) -> None:
    """Both names are known where both scopes are open."""
    with library.scope({"Outer": len}), library.scope({"Inner": max}):
        assert keras.saving.get_registered_object("Inner") is max
        judge(library, keras.saving.get_registered_object("Outer") is not len)


@on_both
def test_another_thread_sees_the_scope(library: SimpleNamespace) -> None:
    """A thread that is started inside a scope finds its names."""
    found = []
    with library.scope({"Outer": len}):
        thread = threading.Thread(target=lambda: found.append(_find(library, "Outer")))
        thread.start()
        thread.join()
    judge(library, found != [len])


def _find(library: SimpleNamespace, name: str) -> Any:
    if library is OURS:
        return kct.registry.get(name)
    return keras.saving.get_registered_object(name)


# Loading weights.


def save_ones(path: Path, layers: int) -> Path:
    """Save the weights of a model with that many layers, all ones, as stock Keras does."""
    constant_model(1.0, layers).save_weights(path)
    return path


@on_both
def test_surplus_weights_are_told(library: SimpleNamespace, tmp_path: Path) -> None:
    """A file with three layers does not fit a model with two."""
    path = save_ones(tmp_path / "a.weights.h5", layers=3)
    model = constant_model(0.0, layers=2)
    raised = error_of(lambda: library.load_weights(model, path))
    judge(library, constant_of(model) == 1.0)
    if library is OURS:
        assert isinstance(raised, RestoreError)
        assert "layers/dense_2/vars/0" in str(raised)


@on_both
def test_a_failed_load_leaves_the_model_as_it_was(library: SimpleNamespace, tmp_path: Path) -> None:
    """Not half of the file's weights and half of its own."""
    path = save_ones(tmp_path / "a.weights.h5", layers=2)
    model = constant_model(0.0, layers=3)
    with pytest.raises(ValueError):
        library.load_weights(model, path)
    judge(library, constant_of(model) != 0.0)


@on_both
def test_the_state_of_an_unbuilt_optimizer_is_loaded(
    library: SimpleNamespace, tmp_path: Path
) -> None:
    """Otherwise momenta are lost, and the learning rate's schedule starts over."""
    trained = small_model()
    trained.fit(*small_data(), batch_size=4, verbose=0)
    trained.save_weights(tmp_path / "model.weights.h5")
    model = small_model()
    assert not model.optimizer.built
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.load_weights(model, tmp_path / "model.weights.h5")
    judge(library, int(np.asarray(model.optimizer.iterations)) != 4)

"""Programs that call `fit()` several times with one directory: each call finds its own again."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import small_data, small_model

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.runs.phases import forget_phases

X, Y = small_data(4)
STEPS = 4  # Of an epoch.
EVERYWHERE = bool(os.environ.get("KCT_TORTURE"))
CUTS = (6, 9, 14)  # In the first phase, at the beginning of the second, and in it.


class Interrupted(Exception):
    """The end of a process, to a run."""


class Cut(keras.callbacks.Callback):
    """Count the batches of a whole program, and interrupt it after one."""

    def __init__(self, at: int | None = None):
        super().__init__()
        self.at, self.trained = at, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.trained += 1
        if self.trained == self.at:
            raise Interrupted


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    forget_phases()
    yield
    forget_phases()


def restart(program: Any, *arguments: Any, **named: Any) -> Any:
    """Run a program as in a new process."""
    forget_phases()
    return program(*arguments, **named)


def data() -> kct.data.ArrayDataset:
    """Return four batches of another order in each epoch."""
    return kct.data.ArrayDataset(X, Y, batch_size=4, shuffle=True, seed=2)


def train(model: keras.Model, directory: Path, epochs: int, *more: Any, **backup: Any) -> Any:
    """Train with a backup."""
    callback = kct.BackupAndRestore(directory, **backup)
    return model.fit(data(), epochs=epochs, verbose=0, callbacks=[callback, *more])


def eager(model: keras.Model, optimizer: Any) -> None:
    """Compile a model; its few steps are over before they would have been traced."""
    model.compile(optimizer, "mse", run_eagerly=True)


def transfer(
    directory: Path, cut: Cut, names: tuple[Any, Any] = (None, None), **backup: Any
) -> dict[str, Any]:
    """Train a head, unfreeze the rest, compile again with a lower rate, train on."""
    keras.utils.set_random_seed(3)
    base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.2)])
    model = keras.Sequential([base, keras.layers.Dense(1)])
    base.trainable = False
    eager(model, keras.optimizers.Adam(0.1))
    first = train(model, directory, 2, cut, phase=names[0], **backup)
    between = [weight.tobytes() for weight in model.get_weights()]
    base.trainable = True
    eager(model, keras.optimizers.SGD(0.001, momentum=0.5))
    second = train(model, directory, 3, cut, phase=names[1], **backup)
    return {
        "histories": (first.history, second.history, first.epoch, second.epoch),
        "between": between,
        "rate": float(model.optimizer.learning_rate),
        "model": [np.asarray(v).tobytes() for v in (*model.variables, *model.optimizer.variables)],
    }


KINDS: dict[str, dict[str, Any]] = {
    "by default": {},
    "kept": {"delete_checkpoint": False},
    "named": {"names": ("head", "fine-tune"), "save_freq": 3},
}


CUTS_OF = {"by default": (6, 14), "kept": (9,), "named": (14,)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_of_two_phases_resumes_in_the_one_it_was_in(kind: str, tmp_path: Path) -> None:
    """The first is not trained a second time, and the second has its own learning rate."""
    whole = transfer(tmp_path / "whole", Cut(), **KINDS[kind])
    assert whole["rate"] == pytest.approx(0.001)
    for at in CUTS if EVERYWHERE else CUTS_OF[kind]:
        directory = tmp_path / str(at)
        with pytest.raises(Interrupted):
            restart(transfer, directory, Cut(at), **KINDS[kind])
        cut = Cut()
        assert restart(transfer, directory, cut, **KINDS[kind]) == whole
        assert cut.trained <= 5 * STEPS - at + STEPS  # At most an epoch is repeated.


def test_a_program_that_is_started_again_in_its_process_does_the_same(tmp_path: Path) -> None:
    """A notebook whose cells are run again after an interruption: another model, the same run."""
    whole = transfer(tmp_path / "whole", Cut())
    for at in CUTS if EVERYWHERE else (9,):
        with pytest.raises(Interrupted):
            transfer(tmp_path / "cut", Cut(at))
        assert transfer(tmp_path / "cut", Cut()) == whole


def test_the_checkpoints_of_all_phases_go_with_the_last_one(tmp_path: Path) -> None:
    """By default nothing is left of a program that has come to its end."""
    transfer(tmp_path / "run", Cut())
    assert not (tmp_path / "run").exists()


def test_named_phases_keep_one_checkpoint_each(tmp_path: Path) -> None:
    """And a program that has ended trains nothing when it is started again."""
    whole = transfer(tmp_path, Cut(), **KINDS["named"])
    assert len(list(tmp_path.iterdir())) == 2
    cut = Cut()
    assert restart(transfer, tmp_path, cut, **KINDS["named"]) == whole
    assert cut.trained == 0


def test_a_phase_whose_checkpoints_are_gone_is_not_trained_again(tmp_path: Path) -> None:
    """The warning says whose weights there are meanwhile; the result is the same."""
    whole = transfer(tmp_path / "whole", Cut(), save_freq=3)
    with pytest.raises(Interrupted):
        restart(transfer, tmp_path / "cut", Cut(14), save_freq=3)
    with pytest.warns(UserWarning, match=r"Phase 1 has ended after 2 epochs.*phase='head'"):
        resumed = restart(transfer, tmp_path / "cut", Cut(), save_freq=3)
    assert {**resumed, "between": 0} == {**whole, "between": 0}


def test_longer_epochs_of_a_phase_that_has_ended_are_said(tmp_path: Path) -> None:
    """A later phase has begun: nothing can be trained in between."""
    model = make()
    train(model, tmp_path, 2, delete_checkpoint=False)
    with pytest.raises(Interrupted):
        train(model, tmp_path, 2, Cut(2), delete_checkpoint=False)
    forget_phases()
    cut = Cut()
    with pytest.warns(UserWarning, match=r"ended with `epochs=2`.*`epochs=7` trains nothing more"):
        train(make(), tmp_path, 7, cut, delete_checkpoint=False)
    assert cut.trained == 0


def make() -> keras.Model:
    """Return a small model, always the same."""
    model = small_model()
    model.run_eagerly = True
    return model


def test_the_same_model_trained_again_is_a_phase_of_its_own(tmp_path: Path) -> None:
    """As without a callback of ours: so many epochs more."""
    model, cut = make(), Cut()
    for _ in range(2):
        assert train(model, tmp_path, 2, cut, delete_checkpoint=False).epoch == [0, 1]
    assert cut.trained == 4 * STEPS


def test_another_model_never_gets_the_first_ones_result(tmp_path: Path) -> None:
    """It is trained, and the warning says how to resume the other."""
    train(make(), tmp_path, 2, delete_checkpoint=False)
    cut = Cut()
    with pytest.warns(UserWarning, match=r"another model .*resume='must'.*phase=f'fold-"):
        train(make(), tmp_path, 2, cut, delete_checkpoint=False)
    assert cut.trained == 2 * STEPS
    # The advice, followed: the newest run of the directory.
    cut = Cut()
    assert train(make(), tmp_path, 3, cut, resume="must").epoch == [0, 1, 2]
    assert cut.trained == STEPS


def folds(directory: Path, cut: Cut, named: bool = False, skipped: int = 0) -> list[Any]:
    """Train three models; each is another one."""
    results = []
    for fold in range(skipped, 3):
        keras.utils.set_random_seed(fold)
        model = make()
        name = f"fold-{fold}" if named else None
        history = train(model, directory, 2, cut, phase=name)
        results.append((history.history, [w.tobytes() for w in model.get_weights()]))
    return results


@pytest.mark.parametrize("skipped", [0, 2])
def test_named_folds_are_resumed_each_in_its_own_run(skipped: int, tmp_path: Path) -> None:
    """Also where a program leaves out those that are done, as tuners do."""
    whole = folds(tmp_path / "whole", Cut(), named=True)
    forget_phases()
    with pytest.raises(Interrupted):
        folds(tmp_path / "cut", Cut(5 * STEPS + 2), named=True)
    forget_phases()
    cut = Cut()
    assert folds(tmp_path / "cut", cut, named=True, skipped=skipped) == whole[skipped:]
    assert cut.trained == STEPS


@pytest.mark.parametrize("skipped", [0, 2])
def test_folds_without_names_are_trained_again_and_it_is_said(skipped: int, tmp_path: Path) -> None:
    """Which of them a restart begins with is not known, and no other one's result will do."""
    whole = folds(tmp_path / "whole", Cut())
    forget_phases()
    with pytest.raises(Interrupted):
        folds(tmp_path / "cut", Cut(5 * STEPS + 2))
    forget_phases()
    with pytest.warns(UserWarning, match=r"runs of several models.*phase=f'fold-"):
        assert folds(tmp_path / "cut", Cut(), skipped=skipped) == whole[skipped:]


def test_a_copy_that_is_put_back_is_resumed(tmp_path: Path) -> None:
    """What lies there is not what this process has left: it is nobody's of this process."""
    with pytest.raises(Interrupted):
        train(make(), tmp_path / "run", 3, Cut(6))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    for _ in range(2):
        cut = Cut()
        assert train(make(), tmp_path / "run", 3, cut).epoch == [0, 1, 2]
        assert cut.trained == 2 * STEPS
        shutil.copytree(tmp_path / "copy", tmp_path / "run")


@pytest.mark.parametrize("epochs", [1, 2])
def test_nothing_left_to_train_is_said_and_the_advice_works(epochs: int, tmp_path: Path) -> None:
    """The number of epochs is that of the run or smaller."""
    train(make(), tmp_path, 2, delete_checkpoint=False)
    forget_phases()
    said = r"Nothing is left to train.* has 2 epochs.*larger `epochs`.*resume='never'"
    with pytest.warns(UserWarning, match=said):
        train(make(), tmp_path, epochs, delete_checkpoint=False)
    forget_phases()
    assert train(make(), tmp_path, 3, delete_checkpoint=False).epoch == [0, 1, 2]
    forget_phases()
    assert train(make(), tmp_path, 1, delete_checkpoint=False, resume="never").epoch == [0]


def test_a_new_run_after_resume_never_is_the_one_that_a_restart_resumes(tmp_path: Path) -> None:
    """Not what an earlier program has left in the directory."""
    transfer(tmp_path, Cut(), delete_checkpoint=False)
    forget_phases()
    with pytest.raises(Interrupted):
        transfer(tmp_path, Cut(6), delete_checkpoint=False, resume="never")
    forget_phases()
    cut = Cut()
    transfer(tmp_path, cut, delete_checkpoint=False)
    assert cut.trained == 4 * STEPS


@pytest.mark.parametrize("phase", ["", 2, True])
def test_a_phase_that_is_no_name_is_refused(phase: Any, tmp_path: Path) -> None:
    """Before any training."""
    for make_one in (kct.BackupAndRestore, kct.CheckpointManager):
        with pytest.raises(ArgumentError, match=r'phase="fine-tune"'):
            make_one(tmp_path, phase=phase)


def loops(directory: Path, cut: int = 99) -> list[float]:
    """Train in two loops, each with a manager."""
    weight, count, seen = tf.Variable(0.0), itertools.count(1), []
    for name in ("warm-up", "main"):
        manager = kct.CheckpointManager(directory, phase=name, max_to_keep=1, weight=weight)
        for _ in manager.epochs(3):
            for batch in manager.batches([1.0, 2.0]):
                if next(count) > cut:
                    raise Interrupted
                weight.assign(weight * 1.5 + batch)
        seen.append(float(weight))
    return seen


def test_loops_with_names_resume_each_in_its_own_run(tmp_path: Path) -> None:
    """A manager for each; what has ended is restored in silence."""
    whole = loops(tmp_path / "whole")
    for cut in (3, 6, 8, 11):
        with pytest.raises(Interrupted):
            loops(tmp_path / str(cut), cut)
        assert loops(tmp_path / str(cut)) == whole
        assert len(list((tmp_path / str(cut)).iterdir())) == 2


def test_a_loop_with_nothing_left_says_so(tmp_path: Path) -> None:
    """A second loop over the same manager, or another one in the same directory."""
    manager = kct.CheckpointManager(tmp_path, weight=tf.Variable(0.0))
    assert list(manager.epochs(2)) == [0, 1]
    with pytest.warns(UserWarning, match=r"Nothing is left to train.*phase="):
        assert list(manager.epochs(2)) == []
    assert list(manager.epochs(3)) == [2]


@pytest.mark.parametrize("reused", [False, True])
def test_the_best_of_another_model_of_the_process_starts_over(reused: bool, tmp_path: Path) -> None:
    """K-fold on one path: the second fold's file is the second fold's best."""
    path, saver = tmp_path / "best.keras", None
    for scale in (1.0, 100.0):
        if saver is None or not reused:
            saver = kct.ModelCheckpoint(path, monitor="loss", save_best_only=True)
        model = make()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            losses = model.fit(X, Y * scale, epochs=2, verbose=0, callbacks=[saver]).history["loss"]
        assert kct.training_progress(path).best.value == pytest.approx(min(losses))
    assert any("another model that this process has trained" in str(w.message) for w in told)


def test_the_best_of_an_interrupted_run_is_carried_to_its_new_model(tmp_path: Path) -> None:
    """The run is the same, and so a worse model does not replace it."""
    path = tmp_path / "best.keras"

    def fit(scale: float, *more: Any) -> None:
        saver = kct.ModelCheckpoint(path, monitor="loss", save_best_only=True)
        backup = kct.BackupAndRestore(tmp_path / "backup")
        make().fit(
            X, Y * scale, batch_size=4, epochs=2, shuffle=False, verbose=0,
            callbacks=[saver, backup, *more],
        )  # fmt: skip

    with pytest.raises(Interrupted):
        fit(1.0, Cut(6))
    best = kct.training_progress(path).best.value
    fit(100.0)
    assert kct.training_progress(path).best.value == best

"""A user's program as type checkers see it. It is checked by `test_user_view.py`, and never run.

What is right must pass, with the types that `assert_type` names. What is wrong stands in `mistakes`
and must be an error: a comment that silences an error which is not there is an error itself.
"""

from __future__ import annotations

import io
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import keras_ckpt_tools as kct

# What a decorator is given, it returns: a class with its constructor, a function with its types.


@kct.register
class Bare:
    """Registered without arguments."""

    def __init__(self, units: int, *, name: str = "bare") -> None:
        self.units = units


@kct.register("my_package", name="Res", aliases=["OldRes"], version=2, replace=True)
class WithArguments:
    """Registered with arguments."""

    def __init__(self, rate: float) -> None:
        self.rate = rate


@kct.register("my_package")
def steep(x: float, *, twice: bool = False) -> float:
    """Return something."""
    return x


def migrated(config: dict[str, Any], from_version: int) -> dict[str, Any]:
    """Return the config of this version."""
    return config


@kct.register("my_package", version=3, migrate=migrated)
class Migrated(WithArguments):
    """Registered with a migration."""


def registry() -> None:
    """Names, and objects by name."""
    assert_type(Bare(3).units, int)
    assert_type(WithArguments(0.5).rate, float)
    assert_type(Migrated(0.5).rate, float)
    assert_type(steep(1.0, twice=True), float)
    assert_type(kct.register(Bare), type[Bare])
    assert_type(kct.registry.name_of(Bare), str)
    assert_type(len(kct.registry), int)
    assert_type("my_package>Res" in kct.registry, bool)
    for entry in kct.registry:
        assert_type(entry.name, str)
    with kct.scope({"Bare": Bare}):
        assert_type(kct.check_serializable(Bare(3)), dict[str, Any])


def reading(model: Any) -> None:
    """Reports are true or false, and have their parts."""
    inspection = kct.inspect("model.keras", trusted=["my_package>*"])
    assert_type(inspection.missing, tuple[str, ...])
    assert_type(inspection.progress, kct.TrainingProgress)
    assert_type(bool(inspection), bool)
    report = kct.load_weights(model, Path("model.weights.h5"), strict=False)
    assert_type(report, kct.RestoreReport)
    assert_type(report.matched, tuple[str, ...])
    assert_type(kct.compare(model, "model.weights.h5"), kct.RestoreReport)
    assert_type(kct.compare("a.weights.h5", Path("b.weights.h5")), kct.RestoreReport)
    assert_type(kct.verify("runs").problems, tuple[str, ...])
    kct.safe_load_model("runs", compile=False, which="latest", max_seconds=60)
    kct.safe_load_model(Path("runs"), {"Bare": Bare}, "auto", which=3)
    kct.safe_load_model(io.BytesIO(), trusted="registered-here")


def progress(model: Any) -> None:
    """The one record of where training is."""
    now = kct.training_progress(model)
    assert_type(now, kct.TrainingProgress)
    assert_type(now.epochs_completed, int)
    assert_type(now.elapsed_s, float)
    assert_type(now.best.value if now.best else None, float | None)


def callbacks(model: Any) -> None:
    """Keras' arguments by place, the new ones by name."""
    keep = kct.KeepLast(3) | kct.KeepBest(1, "val_loss", "min") | kct.KeepEvery(10)
    keep = keep | kct.KeepEvery(hours=2) | kct.KeepEvery(steps=1000)
    assert_type(keep, kct.Policy)
    best = kct.ModelCheckpoint("best.keras", "val_loss", 1, True, mode="min", keep=keep)
    kct.ModelCheckpoint(
        "{epoch}.keras", every_n_epochs=5, last="last.keras", save_on_signal=signal.SIGUSR1
    )
    kct.BackupAndRestore(
        "backup", callbacks=None, save_on_signal=[signal.SIGTERM, signal.SIGUSR1], every_n_epochs=2
    )
    backup = kct.BackupAndRestore(
        Path("backup"), save_freq=timedelta(minutes=10), callbacks=[best], resume="must", verbose=1
    )
    kct.BackupAndRestore("runs", phase="fine-tune", changed=("data", "learning_rate"))
    kct.ModelCheckpoint(Path("{epoch}.keras"), save_freq=100, tensorboard=Path("logs"))
    model.fit(callbacks=[best, backup])


def loop(model: Any, optimizer: Any, dataset: list[tuple[float, str]]) -> None:
    """A hand-written loop: batches are of the type that the data has."""
    with kct.CheckpointManager("run", model=model, optimizer=optimizer, max_to_keep=3) as manager:
        assert_type(manager, kct.CheckpointManager)
        for epoch in manager.epochs(10):
            assert_type(epoch, int)
            for batch in manager.batches(dataset):
                assert_type(batch, tuple[float, str])
                manager.log(loss=batch[0])
    assert_type(manager.save(), str)
    assert_type(manager.restore("run/ckpt-00000001.weights.h5"), kct.TrainingProgress)
    assert_type(manager.restore_or_initialize(), str | None)
    assert_type(manager.latest_checkpoint, str | None)
    assert_type(manager.checkpoints, list[str])
    assert_type(manager.progress.step, int)
    kct.data.ArrayDataset([1.0], [2.0], batch_size=1, shuffle=True, seed=7)


def errors() -> None:
    """Each error is also the built-in that a caller would expect, and has its facts."""
    try:
        kct.safe_load_model("model.keras")
    except kct.errors.CkptError as error:
        assert_type(error.remedy, str)
    expected: type[ValueError] = kct.errors.ArgumentError
    del expected


def mistakes(model: Any) -> None:
    """Each line is wrong, and a checker says so."""
    Bare("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    steep("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    kct.register("p", version="2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    kct.KeepLast("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    kct.KeepLast(3) | 4  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]
    kct.load_weights(model, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    kct.load_weights(model, "a", False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    kct.safe_load_model("a", compile="never")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    kct.ModelCheckpoint("a.keras", mode="best")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    kct.ModelCheckpoint("a.keras", keep=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    kct.BackupAndRestore("a", resume=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    kct.CheckpointManager("a", save_freq="batch")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    kct.training_progress(model).step = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    kct.ModelCheckpiont  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

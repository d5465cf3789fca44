"""Story: a save is a guest on somebody's disk, and training does not wait for it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct

X, Y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")


def compiled() -> keras.Model:
    """Return a small model, ready for `fit()`."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def save_in_every_way(folder: Path, background: bool) -> list[Path]:
    """Train for an epoch; return the files that callbacks and a manager wrote."""
    names = ("a.keras", "a.h5", "a.weights.h5")
    callbacks: list[Any] = [
        kct.ModelCheckpoint(folder / n, save_weights_only="weights" in n, background=background)
        for n in names
    ]
    backup = kct.BackupAndRestore(folder / "backup", delete_checkpoint=False, background=background)
    model = compiled()
    model.fit(X, Y, verbose=0, callbacks=[*callbacks, backup])
    manager = kct.CheckpointManager(folder / "run", model=model, background=background)
    manager.save()
    manager.wait()
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_has_the_permissions_that_the_umask_gives(
    umask: int, background: bool, tmp_path: Path
) -> None:
    """As if `open` had made it, whoever wrote it."""
    before = os.umask(umask)
    try:
        paths = save_in_every_way(tmp_path, background)
    finally:
        os.umask(before)
    assert len(paths) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o666 & ~umask}


@pytest.mark.parametrize("background", [False, True])
def test_a_linked_directory_works(background: bool, tmp_path: Path) -> None:
    """Files go to where it points, it stays a link, and they are found through it."""
    real = tmp_path / "elsewhere" / "real"
    real.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(real, target_is_directory=True)
    save_in_every_way(link, background)
    assert link.is_symlink()
    assert len([path for path in real.rglob("*") if path.is_file()]) == 5
    for path in real.rglob("*"):
        assert ".kct-staged" not in path.name
    assert kct.load_weights(compiled(), link / "run")
    model = compiled()
    again = kct.BackupAndRestore(link / "backup", resume="must")
    assert model.fit(X, Y, epochs=2, verbose=0, callbacks=[again]).epoch == [0, 1]


@pytest.mark.parametrize("background", [False, True])
def test_a_linked_file_stays_a_link(background: bool, tmp_path: Path) -> None:
    """The file that it points to, in another directory, is the one that is replaced."""
    real = tmp_path / "elsewhere" / "best.keras"
    real.parent.mkdir()
    real.write_bytes(b"an older model")
    link = tmp_path / "best.keras"
    link.symlink_to(real)
    compiled().fit(X, Y, verbose=0, callbacks=[kct.ModelCheckpoint(link, background=background)])
    assert link.is_symlink()
    assert kct.verify(real)
    assert [path.name for path in real.parent.iterdir()] == ["best.keras"]


def test_what_is_resumed_from_stays_until_there_is_something_newer(tmp_path: Path) -> None:
    """Though `KeepLast(1)` would have let it go."""
    model = compiled()
    manager = kct.CheckpointManager(tmp_path, model=model, max_to_keep=2)
    first = manager.save()
    kernel = model.layers[-1].kernel
    kernel.assign_add(np.ones(kernel.shape))  # The same state, saved twice, would count once.
    second = manager.save()
    again = kct.CheckpointManager(tmp_path, model=model, max_to_keep=1)
    again.restore(first)
    third = again.save()
    assert [os.path.exists(path) for path in (first, second, third)] == [True, False, True]
    again.save()
    assert not os.path.exists(first)


class TwoOptimizers:
    """Two models that are trained by turns, one of them with sparse gradients, compiled or not."""

    def __init__(self, jit_compile: bool):
        self.dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        self.words = keras.Sequential(
            [
                keras.Input((2,), dtype="int32"),
                keras.layers.Embedding(50, 4),
                keras.layers.Flatten(),
                keras.layers.Dense(4),
            ]
        )
        self.slow, self.fast = keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.Adam(0.1)
        self.slow.build(self.dense.trainable_variables)
        self.fast.build(self.words.trainable_variables)
        self.step = tf.function(self._step, jit_compile=jit_compile)

    @property
    def tracked(self) -> dict[str, Any]:
        """What a manager is given."""
        return {"dense": self.dense, "words": self.words, "slow": self.slow, "fast": self.fast}

    def _step(self, x: Any) -> None:
        for model, optimizer in ((self.dense, self.slow), (self.words, self.fast)):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self.dense(self.words(x)) - 1.0))
            weights = model.trainable_variables
            optimizer.apply(tape.gradient(loss, weights), weights)

    def values(self) -> list[bytes]:
        """All that a checkpoint has to bring back."""
        return [np.asarray(v).tobytes() for o in self.tracked.values() for v in o.variables]


def batches(count: int) -> Iterator[Any]:
    """Yield batches of a few of the words."""
    rng = np.random.default_rng(1)
    return (tf.constant(rng.integers(0, 9, (8, 2)), tf.int32) for _ in range(count))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_background_save_of_two_optimizers_is_of_its_moment(
    jit_compile: bool, tmp_path: Path
) -> None:
    """Several saves under way while training never stops, each with the values of its call."""
    run = TwoOptimizers(jit_compile)
    manager = kct.CheckpointManager(tmp_path, **run.tracked, max_to_keep=None, background=True)
    expected = {}
    for number, batch in enumerate(batches(12)):
        run.step(batch)
        if number % 3 == 0:
            before = run.values()
            expected[manager.save()] = before
    manager.wait()
    assert len(set(map(tuple, expected.values()))) == 4
    other = TwoOptimizers(jit_compile)
    for path, values in expected.items():
        kct.CheckpointManager(tmp_path, **other.tracked).restore(path)
        assert other.values() == values

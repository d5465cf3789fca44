"""Checkpoints with NaN in their weights are kept, and a run resumes from one without."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from programs import constant_model, names_in, set_constant

import keras_ckpt_tools as kct
from keras_ckpt_tools.formats.common.finite import worst_in
from keras_ckpt_tools.formats.record.userblock import digest_of
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.checkpoints import read_record
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.runs.listing import checkpoints_in
from keras_ckpt_tools.runs.resume_preview import foresee
from keras_ckpt_tools.runs.retention import KeepLast, to_delete
from keras_ckpt_tools.storage.throttle import PIECE

KERNEL = "model/layers/dense/vars/0"


def spoil(model: keras.Model) -> None:
    """Put one NaN into a model."""
    kernel = model.layers[0].kernel
    value = kernel.numpy()
    value.flat[-1] = np.nan
    kernel.assign(value)


def compiled(value: float = 1.0) -> keras.Model:
    """Return a model whose weights all have one value."""
    model = constant_model(value)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


def managed(directory: Path, model: keras.Model, **how: Any) -> Any:
    """Return a manager of a model."""
    return kct.CheckpointManager(directory, model=model, **how)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
@pytest.mark.parametrize(
    ("value", "found"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity"), (3.0, "")]
)
def test_the_worst_is_found_in_every_type(dtype: str, value: float, found: str) -> None:
    """Also in those that NumPy has no arithmetic for, and beside large numbers."""
    array = np.full((3, 5), 3e4, getattr(ml_dtypes, dtype, dtype))
    array[1, 2] = value
    assert worst_in(array) == found
    assert worst_in(array[1:, 1:]) == found


def test_eight_bits_and_integers_are_looked_at_too() -> None:
    """Of float8 there are kinds without infinity; integers have neither."""
    assert worst_in(np.array([1, np.nan], ml_dtypes.float8_e4m3fn)) == "NaN"
    assert worst_in(np.array([1, 2])) == ""
    assert worst_in(np.zeros((0, 3), np.float32)) == ""


@pytest.mark.parametrize("format", ["h5", "tf"])
def test_the_writer_notes_what_is_not_finite(format: Any, tmp_path: Path) -> None:
    """In the record, so that no choice has to read tensors."""
    model = compiled()
    manager = managed(tmp_path, model, format=format)
    manager.save()
    spoil(model)
    manager.save()
    saved, _ = checkpoints_in(tmp_path)
    assert [item.finite for item in saved] == [True, False]
    if format == "h5":
        records = [read_record(item.path) for item in saved]
        assert [record and record.not_finite for record in records] == [(), (KERNEL,)]


def test_a_nan_in_any_piece_of_a_large_tensor_is_noted(tmp_path: Path) -> None:
    """Large tensors are looked at piece by piece."""
    weight = tf.Variable(np.zeros(PIECE, np.float32))
    manager = kct.CheckpointManager(tmp_path, weight=weight)
    for place in (0, PIECE // 4, PIECE - 1):
        value = np.zeros(PIECE, np.float32)
        value[place] = np.nan
        weight.assign(value)
        record = read_record(manager.save())
        assert record is not None
        assert record.not_finite == ("weight/vars/0",)


def test_infinity_counts_only_where_it_cannot_be_meant(tmp_path: Path) -> None:
    """In what an optimizer trains; not in a mask, or in the best loss so far."""
    model = compiled()
    best = tf.Variable(np.inf)
    manager = kct.CheckpointManager(tmp_path, model=model, best=best)
    record = read_record(manager.save())
    assert record is not None
    assert record.not_finite == ()
    model.layers[0].kernel.assign(np.full_like(model.layers[0].kernel, -np.inf))
    record = read_record(manager.save())
    assert record is not None
    assert record.not_finite == (KERNEL,)


def test_the_newest_finite_one_is_resumed_from_and_that_is_said(tmp_path: Path) -> None:
    """As the command line foretells; nothing is deleted for it."""
    model = compiled()
    manager = managed(tmp_path, model)
    paths = []
    for value in (1.0, 2.0):
        set_constant(model, value)
        paths.append(manager.save())
    spoil(model)
    paths += [manager.save(), manager.save()]
    found = foresee(str(tmp_path))
    other = compiled(0.0)
    with pytest.warns(UserWarning, match="skipped newer checkpoints whose weights") as w:
        assert managed(tmp_path, other).restore_or_initialize() == paths[1] == found.chosen
    assert all(path in str(w[0].message) for path in paths[2:])
    assert KERNEL in str(w[0].message)
    assert [path for path, _ in found.passed] == [paths[3], paths[2]]
    assert np.all(other.layers[0].kernel == 2.0)
    assert names_in(tmp_path) == sorted(Path(path).name for path in paths)


def test_where_there_is_no_other_the_run_resumes_and_is_told_what_to_do(tmp_path: Path) -> None:
    """A run is not refused, and the advice works."""
    model = compiled()
    spoil(model)
    path = managed(tmp_path, model).save()
    with pytest.warns(UserWarning, match="(?s)the run has no other checkpoint.*resume='never'"):
        assert managed(tmp_path, compiled()).restore_or_initialize() == path
    fresh = managed(tmp_path, compiled(), resume="never")
    assert list(fresh.epochs(1)) == [0]


def test_another_runs_checkpoint_is_no_replacement(tmp_path: Path) -> None:
    """Of two runs in one directory, a finite result of the other is not handed over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        managed(tmp_path, compiled()).save()
        model = compiled()
        spoil(model)
        path = managed(tmp_path, model, resume="never").save()
        assert managed(tmp_path, compiled()).restore_or_initialize() == path


def test_an_explicit_path_is_restored_as_it_is(tmp_path: Path) -> None:
    """Whoever names a checkpoint wants that one."""
    model, other = compiled(), compiled()
    manager = managed(tmp_path, model)
    manager.save()
    spoil(model)
    path = manager.save()
    managed(tmp_path, other).restore(path)
    assert np.isnan(other.layers[0].kernel).any()


def test_a_policy_never_deletes_the_last_finite_one() -> None:
    """However many with NaN come after it."""
    saved = [CheckpointEntry(str(n), n, TrainingProgress(n), finite=n < 3) for n in range(1, 6)]
    assert [item.path for item in to_delete(saved, KeepLast(1))] == ["1", "3", "4"]


def test_a_backup_comes_back_from_before_the_nan(tmp_path: Path) -> None:
    """`BackupAndRestore` keeps one, and another where that has NaN."""

    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch >= 1:
                spoil(self.model)

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 3:
                raise KeyboardInterrupt

    x, y = np.ones((4, 4)), np.ones((4, 1))

    def fit(*callbacks: Any) -> Any:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        backup = kct.BackupAndRestore(tmp_path, delete_checkpoint=False)
        return model.fit(x, y, epochs=4, verbose=0, callbacks=[*callbacks, backup])

    with pytest.raises(KeyboardInterrupt):
        fit(Spoil(), Stop())
    assert names_in(tmp_path) == ["ckpt-00000001.weights.h5", "ckpt-00000003.weights.h5"]
    with pytest.warns(UserWarning, match="ckpt-00000003"):
        history = fit()
    assert history.epoch == [0, 1, 2, 3]
    assert np.isfinite(history.history["loss"]).all()
    assert len(names_in(tmp_path)) == 1


def test_a_file_whose_writer_did_not_look_is_looked_at(tmp_path: Path) -> None:
    """Checkpoints of earlier versions do not say whether they have NaN."""
    model = compiled()
    manager = managed(tmp_path, model)
    paths = [manager.save()]
    spoil(model)
    paths.append(manager.save())
    _forget(paths[1])
    record = read_record(paths[1])
    assert record is not None
    assert record.not_finite is None
    assert foresee(str(tmp_path)).chosen == paths[0]
    with pytest.warns(UserWarning, match="NaN or infinity"):
        assert managed(tmp_path, compiled()).restore_or_initialize() == paths[0]


def _forget(path: str) -> None:
    """Write the head of a file again, as a version wrote it that knew nothing of NaN."""
    data = Path(path).read_bytes()
    block = int.from_bytes(data[16:24], "little")
    length = int.from_bytes(data[24:32], "little")
    told = json.loads(data[48 : 48 + length])
    del told["not_finite"]
    body = json.dumps(told, separators=(",", ":")).encode()
    head = data[:24] + len(body).to_bytes(8, "little")
    head += bytes.fromhex(digest_of(head, body)) + body
    Path(path).write_bytes(head + bytes(block - len(head)) + data[block:])

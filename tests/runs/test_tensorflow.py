"""The TensorFlow checkpoints of a run on disk: killed at any instant, one is whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from processes import run_killed
from tf_programs import commit_number, save_next

from keras_ckpt_tools.errors import CommitError, DamagedArtefactError, NewerFormatError
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.tensorflow.recorded import SUFFIXES, is_prefix
from keras_ckpt_tools.runs.checkpoints import clear_leftovers, next_number
from keras_ckpt_tools.runs.listing import checkpoints_in
from keras_ckpt_tools.runs.tensorflow import delete_prefixes, prefix_path
from keras_ckpt_tools.storage.commit_set import staged_set

STRANGERS = ("ckpt-00000001.txt", "notes.index", "ckpt-5.index", "model.keras")


def value_of(prefix: str) -> float:
    """Return the value of the one variable, as TensorFlow reads it."""
    values = tf.train.load_variable(prefix, "x/.ATTRIBUTES/VARIABLE_VALUE")
    assert len(set(values.tolist())) == 1
    return float(values[0])


def _read_checked(prefix: str) -> None:
    """Read the one tensor, having seen that the whole is reported as damaged."""
    with open_source(prefix) as source:
        assert source.verify()
        source.read_all(["x/vars/0"])


def test_a_kill_at_any_file_operation_leaves_one_that_is_whole(tmp_path: Path) -> None:
    """For us and for `tf.train.latest_checkpoint`; the next save clears up, and nobody else's."""
    for name in STRANGERS:
        (tmp_path / name).write_text("mine")
    save_next(str(tmp_path), None)
    calls = save_next(str(tmp_path), None)
    assert calls > 20
    newest = 2
    for call in range(1, calls + 1, 1 if os.environ.get("KCT_TORTURE") else 2):
        run_killed(save_next, str(tmp_path), call)
        saved, damaged = checkpoints_in(tmp_path)
        assert not damaged
        assert saved[-1].number in (newest, newest + 1), call
        newest = saved[-1].number
        named = tf.train.latest_checkpoint(str(tmp_path))
        # It may not have come to the last one, and its own is whole.
        assert 0 < value_of(named) <= newest, call
        with open_source(saved[-1].path) as source:
            assert not source.verify()
    save_next(str(tmp_path), None)
    last = f"ckpt-{newest + 1:08d}"
    expected = {*STRANGERS, "checkpoint", *(last + suffix for suffix in SUFFIXES)}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert all((tmp_path / name).read_text() == "mine" for name in STRANGERS)


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Neither files of its own, nor another newest one."""
    commit_number(str(tmp_path), 1)
    before = sorted(tmp_path.iterdir())
    prefix = prefix_path(tmp_path, 2)
    with pytest.raises(CommitError, match="No space"), staged_set(prefix, SUFFIXES):
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt), staged_set(prefix, SUFFIXES):
        raise KeyboardInterrupt
    assert sorted(tmp_path.iterdir()) == before


def test_what_somebody_else_wrote_is_left_alone(tmp_path: Path) -> None:
    """TensorFlow's own checkpoints of such names are neither listed nor deleted."""
    value = tf.Variable(1.0)
    path = tf.train.Checkpoint(x=value).write(str(tmp_path / "ckpt-00000007"))
    (tmp_path / "ckpt-00000009.record").write_text("a record of somebody's")
    assert checkpoints_in(tmp_path) == ([], [])
    assert next_number(tmp_path) == 10
    delete_prefixes([path, str(tmp_path / "ckpt-00000009")])
    clear_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_others_stay_named_in_the_state_file(tmp_path: Path) -> None:
    """The newest is ours; theirs are still among all."""
    objects = tf.train.Checkpoint(x=tf.Variable(np.ones(5, "float32")))
    tf.train.CheckpointManager(objects, str(tmp_path), None, checkpoint_name="old").save()
    commit_number(str(tmp_path), 1)
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert [Path(p).name for p in state.all_model_checkpoint_paths] == ["old-1", "ckpt-00000001"]
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-00000001")


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    """In whichever of the three files it is; and a file that is cut off, or gone."""
    commit_number(str(tmp_path), 1)
    prefix = prefix_path(tmp_path, 1)
    for suffix in SUFFIXES:
        path = Path(f"{prefix}{suffix}")
        whole = path.read_bytes()
        for place in range(0, len(whole), 3):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            if not is_prefix(prefix):
                continue  # Without its magic it is none of ours.
            # A changed version reads as a later one's.
            with pytest.raises((DamagedArtefactError, NewerFormatError)):
                _read_checked(prefix)
        path.write_bytes(whole[:-1])
        assert dict(checkpoints_in(tmp_path)[1]).keys() == {prefix} or suffix == SUFFIXES[1]
        path.write_bytes(whole)
    Path(f"{prefix}.index").unlink()
    assert checkpoints_in(tmp_path) == ([], [(prefix, "its index file is missing")])

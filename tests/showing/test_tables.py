"""Each thing that shows itself: as text in a terminal, as HTML in a notebook, harmless in both."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.metadata import Best, TrainingProgress
from keras_ckpt_tools.showing.tables import as_html, facts_as_html, size_of
from keras_ckpt_tools.training.save_schedule import Cadence

EVIL = "<script>alert(1)</script>\x1b[2J"
HARMLESS = "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J"


def test_everything_in_a_table_is_escaped():
    """Names come from anybody's files and code."""
    for shown in (as_html(EVIL, [EVIL], [[EVIL]]), facts_as_html(EVIL, {EVIL: EVIL})):
        assert shown.count(HARMLESS) == 3
        assert "<script" not in shown
        assert "\x1b" not in shown


def test_progress_shows_itself():
    """What people look for, and not a thousand epochs of history."""
    progress = TrainingProgress(
        3, 0, 120, {"loss": 0.25}, {"loss": (0.5,) * 999}, best=Best(value=0.125, epoch=1),
        run_id=EVIL, elapsed_s=3661.2,
    )  # fmt: skip
    for shown in (str(progress), progress._repr_html_()):
        for part in ("epochs completed", "120", "0.25", "best val_loss", "0.125", "1:01:01"):
            assert part in shown
        assert "\x1b" not in shown
    assert HARMLESS in progress._repr_html_()
    assert "0.5, 0.5" not in repr(progress)
    assert "epochs_completed=3" in repr(progress)


def test_retention_shows_itself():
    """As it is written, and in words."""
    policy = kct.KeepLast(3) | kct.KeepBest(1, "val_loss", "min") | kct.KeepEvery(10)
    assert repr(policy) == (
        "KeepLast(n=3) | KeepBest(n=1, monitor='val_loss', mode='min') | KeepEvery(n=10)"
    )
    assert eval(repr(policy), vars(kct)) == policy  # noqa: S307 (it is what was just made)
    assert str(kct.KeepLast(1)) == "the newest"
    assert str(policy) == (
        "the newest 3; the one with the lowest val_loss; "
        "each with a multiple of 10 epochs completed"
    )
    assert policy._repr_html_().count("<tr>") == 1 + 3


@pytest.mark.parametrize(
    ("save_freq", "words"),
    [
        ("epoch", "at the end of each epoch"),
        (10, "every 10 batches; 7 to go"),
        (datetime.timedelta(hours=1), "at the end of a batch, every 1:00:00; 1:00:00 to go"),
    ],
)
def test_the_next_save_is_told(save_freq, words):
    """In words, whatever it is counted by."""
    cadence = Cadence(save_freq)
    for batch in range(3):
        cadence.batch_ends(batch)
    assert cadence.next_save == words


def test_a_manager_shows_itself(tmp_path: Path):
    """Where the run is, what is tracked and kept, which is the best, and when the next save is."""
    import tensorflow as tf

    manager = kct.CheckpointManager(
        tmp_path / "a<b", monitor="loss", keep=kct.KeepLast(2), weight=tf.Variable(1.0)
    )
    assert "0 checkpoints" in str(manager)
    for epoch in manager.epochs(3):
        manager.log(loss=[0.5, 0.25, 0.75][epoch])
    for shown in (str(manager), manager._repr_html_()):
        for part in ("weight (ResourceVariable)", "the newest 2", "at the end of each epoch"):
            assert part in shown
        assert "2 checkpoints" in shown
        assert shown.count("best") == shown.count("newest") - 1 == 1
    assert "a&lt;b" in manager._repr_html_()


@pytest.mark.parametrize(("nbytes", "words"), [(0, "0 B"), (999_960, "1 MB"), (5e15, "5e+03 TB")])
def test_sizes_are_told_as_people_do(nbytes, words):
    """Rounded up into the next unit, never to 1000 of one."""
    assert size_of(nbytes) == words

"""What is told of a run, whatever it was handed as."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from keras_ckpt_tools.errors import ArgumentError, ArtefactError, ArtefactNotFoundError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.pictures.run_summary import stories_of


def states(story):
    """Return the state of each save, by its epoch."""
    return {save.place.epochs: save.state for save in story.saves}


def test_a_directory_tells_what_is_kept_and_what_is_gone(run):
    """All eight saves are known from the newest file; three are there."""
    (story,) = stories_of(run)
    assert story.name == "digits"
    assert states(story) == {n: "kept" if n in (4, 7, 8) else "deleted" for n in range(1, 9)}
    assert [tuple(place) for place in story.restarts] == [(2, 0, 20), (5, 3, 53)]
    assert next(save.file.name for save in story.saves if save.file) == "ckpt-00000004.weights.h5"


def test_of_one_file_it_is_not_said_that_its_neighbours_are_gone(run):
    """Whoever passes one file has not said where the others are."""
    (story,) = stories_of(run / "ckpt-00000007.weights.h5")
    assert states(story) == {**dict.fromkeys(range(1, 7), "saved"), 7: "kept"}


def test_files_of_another_run_are_not_its_saves(run, write):
    """A second run in the directory does not fill the gaps of the first."""
    other = TrainingProgress(2, step=20, run_id="other", saved_at=1.0)
    write(run / "ckpt-00000002.weights.h5", other)
    (story,) = stories_of(run)
    assert states(story)[2] == "deleted"


def test_runs_are_named_so_that_they_differ(run, write):
    """By the last part of the path that tells them apart, or as the caller says."""
    progress = TrainingProgress(1, step=1)
    same = write(run.parent / "other" / "digits" / "ckpt-00000001.weights.h5", progress).parent
    assert [story.name for story in stories_of([run, same])][1] == "other/digits"
    assert [story.name for story in stories_of({"a": run, "b": progress})] == ["a", "b"]
    assert [story.name for story in stories_of([progress, run])] == ["run 1", "digits"]
    assert [story.name for story in stories_of([run, run])] == ["digits (1)", "digits (2)"]


def test_what_fit_returns_is_a_run():
    """A `History`, also with a metric that was not computed in each epoch."""
    history = SimpleNamespace(
        epoch=[0, 1, 2], params={"steps": 4}, history={"loss": [0.9, 0.5, 0.4], "val_loss": [0.6]}
    )
    (story,) = stories_of(history)
    assert (story.progress.epochs_completed, story.progress.step) == (3, 12)
    assert story.progress.history_epochs == {"loss": (0, 1, 2), "val_loss": (2,)}


@pytest.mark.parametrize("source", [3, [], {}, None, {"a": [0.1]}], ids=repr)
def test_what_is_no_run_is_refused(source):
    """With what a run is."""
    with pytest.raises(ArgumentError, match="A run is drawn from"):
        stories_of(source)


def test_a_place_without_a_run_is_refused(tmp_path):
    """Nothing there, and nothing of ours there, are two errors."""
    with pytest.raises(ArtefactNotFoundError):
        stories_of(tmp_path / "nowhere")
    (tmp_path / "ckpt-00000001.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ArtefactError, match=r"no checkpoint here .* Not counted: ckpt-00000001"):
        stories_of(tmp_path)


def test_a_real_run_that_was_killed_twice_tells_so(tmp_path):
    """From a loop to the story: saves, retention, an interruption inside an epoch, the best."""
    import keras
    import numpy as np

    import keras_ckpt_tools as kct

    x, y = np.ones((12, 2), "float32"), np.ones((12, 1), "float32")

    def train(stop=None):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        manager = kct.CheckpointManager(
            tmp_path / "run", model=model, max_to_keep=1, monitor="loss", mode="max", save_freq=2
        )
        for epoch in manager.epochs(4):
            for batch in manager.batches(range(3)):
                if (epoch, batch) == stop:
                    return manager
                model.train_on_batch(x[batch * 4 :][:4], y[batch * 4 :][:4])
            manager.log(loss=float(epoch))
        return manager

    train(stop=(0, 1))
    train(stop=(2, 1))
    manager = train()
    (by_path,) = stories_of(tmp_path / "run")
    (by_manager,) = stories_of(manager)
    assert by_path.saves == by_manager.saves
    assert [save.place.step for save in by_path.saves] == [2, 4, 6, 8, 10, 12]
    assert [tuple(place) for place in by_path.restarts] == [(2, 0, 6)]
    assert [save.state for save in by_path.saves] == ["deleted"] * 5 + ["kept"]
    assert stories_of(manager)[0].progress.history["loss"] == (0.0, 1.0, 2.0, 3.0)

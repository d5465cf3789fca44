"""Where things lie: epochs and steps, gaps, panels."""

from __future__ import annotations

import math

import pytest

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.metadata import Best, TrainingProgress
from keras_ckpt_tools.pictures.curves import Axis, curves_of, panels_of
from keras_ckpt_tools.pictures.run_summary import stories_of
from keras_ckpt_tools.runs.save_history import Place


def curves(source, by="epoch"):
    """Lay one source out."""
    return curves_of(stories_of(source)[0], by)


def test_marks_lie_on_the_curve(run):
    """A save at the end of an epoch is where the epoch's metrics are, by epochs and by steps."""
    for by, scale in (("epoch", 1), ("step", 10)):
        found = curves(run, by)
        line = found.lines["val_loss"]
        assert line.xs == tuple(scale * n for n in range(1, 9))
        assert [x for x, _ in found.saves] == list(line.xs)
        assert found.restarts == (2.0 * scale, 5.3 * scale)
        assert (found.best.x, found.best.y, found.best.epoch) == (4.0 * scale, 0.25, 4)


def test_epochs_of_unequal_length_have_their_own_steps():
    """As far as the places of the record tell; in between steps are even."""
    axis = Axis("step", [Place(1, 0, 10), Place(3, 0, 50), Place(3, 5, 55)])
    assert [axis.of_epochs(n) for n in (1, 2, 3)] == [10.0, 30.0, 50.0]
    assert Axis("epoch", [Place(2, 0, 20), Place(2, 5, 25)]).of(Place(2, 5, 25)) == 2.5
    assert Axis("epoch", [Place(0, 7, 7)]).of(Place(0, 7, 7)) == 1.0


def test_a_value_that_is_no_number_is_a_gap(infinite):
    """NaN and infinity break the curve; what is between two breaks is still drawn."""
    line = curves(infinite).lines["loss"]
    assert [len(piece) for piece in line.pieces()] == [1, 2, 1]
    assert math.isnan(line.at(2.0))
    assert math.isnan(line.at(2.5))
    assert line.at(3.5) == 0.25


def test_a_loop_without_epochs_is_drawn_from_its_saves(tmp_path, write):
    """There the logs of the checkpoints are all that is known."""
    for number in (1, 2):
        progress = TrainingProgress(
            0, 50 * number, 50 * number, logs={"loss": 1 / number}, run_id="r", saved_at=number
        )
        write(tmp_path / f"ckpt-{number:08d}.weights.h5", progress)
    line = curves(tmp_path, "step").lines["loss"]
    assert (line.xs, line.ys) == ((50.0, 100.0), (1.0, 0.5))


def test_training_and_validation_share_a_panel(run):
    """The loss comes first; a name asks for its pair, a validation metric for itself alone."""
    runs = [curves(run)]
    assert [(p.title, p.metrics) for p in panels_of(runs)] == [
        ("loss", ("val_loss", "loss")),
        ("accuracy", ("accuracy",)),
    ]
    assert [p.metrics for p in panels_of(runs, ["accuracy", "loss"])] == [
        ("accuracy",),
        ("val_loss", "loss"),
    ]
    assert [p.metrics for p in panels_of(runs, ["val_loss"])] == [("val_loss",)]
    with pytest.raises(
        ArgumentError, match=r"'f1'\. Received.*Available metrics: 'loss', 'val_loss'"
    ):
        panels_of(runs, ["loss", "f1"])
    with pytest.raises(ArgumentError, match="`metrics` is empty"):
        panels_of(runs, [])


def test_a_run_without_an_epoch_has_nothing_to_draw():
    """And says when it will."""
    with pytest.raises(ArgumentError, match=r"nothing to draw.*manager\.log"):
        panels_of([curves(TrainingProgress(0, 3, 3))])


def test_steps_that_nobody_counted_are_no_axis():
    """All points would lie on one spot."""
    progress = TrainingProgress(2, history={"loss": (1, 2)}, history_epochs={"loss": (0, 1)})
    with pytest.raises(ArgumentError, match=r"Nothing has counted.*x=\"epoch\""):
        curves(progress, "step")


def test_numbers_that_no_float_can_hold_are_gaps():
    """JSON has integers of any length."""
    huge = 10**400
    progress = TrainingProgress(
        huge,
        step=huge,
        history={"loss": (huge, 0.5, 0.4)},
        history_epochs={"loss": (0, huge, 2)},
        best=Best("loss", "min", huge, 0),
        restarts=((huge, 0, 1, math.inf), (1.5, 0, 1, 0.0)),
        saves=((huge, 0, 1), (-1, 0, 0), (1, 0, 10, huge, 1, 0, 10)),
    )
    found = curves(progress)
    assert found.lines["loss"].pieces() == [[(3.0, 0.4)]]
    assert (found.best, found.restarts) == (None, ())
    assert len(found.saves) <= 100_000

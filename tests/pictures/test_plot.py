"""Figures of Matplotlib: what is on them, in which files, and that nothing else is touched."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pictures.records import progress_after

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, CommitError, MissingPackageError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.pictures.figure import save_plot


def legend(figure):
    """Return the entries of the legend."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


def marks(axes, marker):
    """Return where marks of a kind are."""
    found = [line for line in axes.lines if line.get_marker() == marker]
    return sorted(float(x) for line in found for x in line.get_xdata())


def test_a_run_is_drawn_with_all_that_happened_to_it(run):
    """Curves in pairs, every save on the curve, the best, both restarts; and a legend of these."""
    figure = kct.plot(run)
    loss, accuracy = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy"]
    assert marks(loss, "o") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (marks(loss, "*"), marks(accuracy, "*")) == ([4.0], [])
    assert [line.get_xdata()[0] for line in loss.lines if len(set(line.get_xdata())) == 1][:2]
    assert [text.get_text() for text in loss.texts] == ["0.25"]
    assert legend(figure) == [
        "training",
        "validation",
        "saved, kept",
        "saved, deleted",
        "restart",
        "best",
    ]
    assert figure.get_suptitle() == "digits"
    assert loss.get_xlabel() == "epochs completed"
    by_step = kct.plot(run, x="step", metrics="val_loss", title="Steps")
    assert by_step.axes[0].get_xlabel() == "step"
    assert marks(by_step.axes[0], "*") == [40.0]
    assert by_step.get_suptitle() == "Steps"


def test_runs_are_overlaid_or_side_by_side(run):
    """One panel for a metric and a colour for a run, or a column for a run."""
    runs = {"_one": run, "two $x_1$": progress_after(3)}
    overlaid = kct.plot(runs)
    assert len(overlaid.axes) == 2
    assert [name.strip() for name in legend(overlaid)[:2]] == ["_one", r"two \$x_1\$"]
    apart = kct.plot(runs, side_by_side=True)
    assert len(apart.axes) == 4
    assert apart.axes[0].get_ylim() == apart.axes[1].get_ylim()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_figure_is_saved_by_the_end_of_its_name(suffix, tmp_path):
    """Also with a hole, with one epoch, and with a name in letters that no font here has."""
    magic = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    path = tmp_path / f"кривые 曲線{suffix}"
    save_plot(kct.plot({"曲線": progress_after(1)}), path)
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_that_cannot_be_is_refused(tmp_path):
    """An unknown kind of file, and a place that is none."""
    figure = kct.plot(progress_after(2))
    with pytest.raises(ArgumentError, match=r"'\.png'"):
        save_plot(figure, tmp_path / "a.jpeg")
    (tmp_path / "file").touch()
    with pytest.raises(CommitError):
        save_plot(figure, tmp_path / "file" / "a.png")


def test_holes_and_single_epochs_are_drawn(infinite):
    """A gap has no mark on the curve, but one on the axis; points alone are points."""
    (axes,) = kct.plot(infinite).axes
    assert marks(axes, ".") == [1.0, 6.0]
    assert marks(axes, "|") == [2.0, 5.0]
    (axes,) = kct.plot(progress_after(1), metrics=["loss"]).axes
    assert axes.get_xlim() == (0.0, 2.0)


def test_ten_thousand_epochs_are_drawn(tmp_path):
    """The marks stand along the axis then, and leave the curve to be seen."""
    many = 10_000
    progress = TrainingProgress(
        many,
        step=many,
        history={"loss": tuple(np.linspace(1, 0, many))},
        history_epochs={"loss": tuple(range(many))},
        saves=((1, 0, 1, many - 1, 1, 0, 1),),
    )
    figure = kct.plot(progress)
    (axes,) = figure.axes
    assert len(marks(axes, "|")) == many
    save_plot(figure, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size < 2_000_000


def test_a_wrong_axis_is_refused():
    """At once, and with the two that there are."""
    with pytest.raises(ArgumentError, match="'epoch' or 'step'"):
        kct.plot(progress_after(1), x="time")


def test_without_matplotlib_the_remedy_is_said(monkeypatch, run):
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        MissingPackageError, match=r"pip install 'keras_ckpt_tools\[plot\]'"
    ) as told:
        kct.plot(run)
    assert isinstance(told.value, ImportError)
    assert told.value.package == "matplotlib"


def test_drawing_leaves_pyplot_and_tensorflow_alone(run):
    """No framework is loaded, no window can open, and a notebook gets a PNG all the same."""
    code = (
        "import sys, keras_ckpt_tools as kct\n"
        "figure = kct.plot(sys.argv[1])\n"
        "assert figure._repr_png_().startswith(b'\\x89PNG')\n"
        "seen = {'matplotlib.pyplot', 'keras', 'tensorflow'} & set(sys.modules)\n"
        "assert not seen, seen\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

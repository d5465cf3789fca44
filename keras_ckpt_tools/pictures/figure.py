"""Show and save Matplotlib figures without pyplot.

Everything about Matplotlib as a package is here: it may not be installed, a notebook has to show a
figure that pyplot does not know, and text must not be parsed as a formula.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools.errors import ArgumentError, MissingPackageError
from keras_ckpt_tools.storage.commit import staged
from keras_ckpt_tools.storage.local_paths import local_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg", ".pdf")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure.

    Raises:
        MissingPackageError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            "Matplotlib is needed to draw, and it is not installed.",
            received=f"import: {error}",
            remedy="Install it with `pip install 'keras_ckpt_tools[plot]'`, or use `keras-ckpt "
            "report`, which does without.",
            package="matplotlib",
        ) from error

    class RunFigure(Figure):
        """A figure that a notebook shows, also where pyplot was never imported."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            with _boxes_for_unknown_letters():
                self.savefig(file, format="png", dpi=110)
            return file.getvalue()

    figure = RunFigure(figsize=(width, height), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.1, h_pad=0.06, wspace=0.02, hspace=0.02)
    return figure


def literally(text: str) -> str:
    """Return text that Matplotlib takes as it is.

    To it a `$` begins a formula, and what begins with an underscore is no entry of a legend.
    """
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    shown = f" {shown}" if shown.startswith("_") else shown
    return (shown if len(shown) <= 80 else f"{shown[:79]}…").replace("$", r"\$")


@contextlib.contextmanager
def _boxes_for_unknown_letters() -> Iterator[None]:
    """Let letters that the font lacks be boxes, which say so themselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def save_plot(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file.

    Args:
        figure: What `plot` has returned.
        path: A name that ends in `.png`, `.svg` or `.pdf`.

    Raises:
        ArgumentError: it ends in something else.
        CommitError: the operating system refused.
    """
    name = local_path(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in _SUFFIXES:
        raise ArgumentError(
            "A picture is a PNG, an SVG or a PDF.",
            received=f"path={name!r}",
            remedy="Let its name end in '.png', '.svg' or '.pdf'.",
        )
    date = "CreationDate" if suffix == ".pdf" else "Date"
    with staged(name) as file, _boxes_for_unknown_letters():
        figure.savefig(
            file, format=suffix[1:], dpi=160, metadata={} if suffix == ".png" else {date: None}
        )

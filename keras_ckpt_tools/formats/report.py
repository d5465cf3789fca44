"""What fits and what does not, between a file and an object: source + model -> *report*.

One shape for every format and every caller: `compare` shows it, a strict load raises it inside a
`RestoreError`, a lenient load returns it.
"""

from __future__ import annotations

import difflib
import html
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Mismatch", "RestoreReport"]


@dataclass(frozen=True)
class Mismatch:
    """A tensor that both sides have, unlike each other.

    Attributes:
        path: Its path, the same on both sides.
        in_file: Shape or dtype in the checkpoint.
        in_model: Shape or dtype in the model.
    """

    path: str
    in_file: str
    in_model: str


@dataclass(frozen=True)
class RestoreReport:
    """What a restore would do, or did.

    Attributes:
        path: The checkpoint.
        matched: Paths that fit.
        missing: Paths that the model has and the checkpoint lacks.
        unexpected: Paths that the checkpoint has and the model lacks.
        shape_mismatch: Paths with different shapes.
        dtype_mismatch: Paths with different dtypes.
        skipped_optimizer: Paths of optimizer state in the checkpoint for which there is no
            optimizer (an uncompiled model). They do not count against a match.
        suggestions: For missing paths, the nearest unexpected one of the same shape.
        not_finite: Paths with NaN or infinity, where the tensors were read. They do not count
            against a match.

    `bool(report)` is "everything matched".

    Example:

    >>> report = RestoreReport("a.weights.h5", missing=("layers/dense_2/vars/0",))
    >>> bool(report)
    False
    >>> print(report.summary)
    0 matched, 1 missing in the checkpoint
    """

    path: str
    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shape_mismatch: tuple[Mismatch, ...] = ()
    dtype_mismatch: tuple[Mismatch, ...] = ()
    skipped_optimizer: tuple[str, ...] = ()
    suggestions: Mapping[str, str] = field(default_factory=dict)
    not_finite: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not (self.missing or self.unexpected or self.shape_mismatch or self.dtype_mismatch)

    @property
    def summary(self) -> str:
        """One line with the counts."""
        counts = [
            (len(self.missing), "missing in the checkpoint"),
            (len(self.unexpected), "unexpected in the checkpoint"),
            (len(self.shape_mismatch), "of another shape"),
            (len(self.dtype_mismatch), "of another dtype"),
            (len(self.skipped_optimizer), "of an optimizer that only one side has"),
            (len(self.not_finite), "with NaN or infinity"),
        ]
        parts = [f"{len(self.matched)} matched", *(f"{n} {what}" for n, what in counts if n)]
        return ", ".join(parts)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return `(what, path, note)` for everything that does not match."""
        rows = [
            ("missing", path, f"renamed from {self.suggestions[path]}?")
            if path in self.suggestions
            else ("missing", path, "in the model, not in the checkpoint")
            for path in self.missing
        ]
        rows += [
            ("unexpected", path, "in the checkpoint, not in the model") for path in self.unexpected
        ]
        for what, found in (("shape", self.shape_mismatch), ("dtype", self.dtype_mismatch)):
            rows += [
                (what, m.path, f"in the checkpoint {m.in_file}, in the model {m.in_model}")
                for m in found
            ]
        rows += [
            ("skipped", path, "state of an optimizer that the other side does not have")
            for path in self.skipped_optimizer
        ]
        rows += [("not finite", path, "NaN or infinity is in it") for path in self.not_finite]
        # The paths are somebody else's text; in a terminal it could move the cursor.
        return [(what, _printable(path), _printable(note)) for what, path, note in rows]

    def __str__(self) -> str:
        rows = self.rows()
        width = max((len(path) for _, path, _ in rows), default=0)
        lines = [f"{self.path}: {self.summary}"]
        lines += [f"  {what:<10}  {path:<{width}}  {note}" for what, path, note in rows]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows()
        )
        caption = html.escape(f"{self.path}: {self.summary}")
        return f"<table><caption>{caption}</caption>{body}</table>"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def suggest_renames(
    missing: Mapping[str, tuple[int, ...]], unexpected: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Return, for missing paths, the nearest unexpected path of the same shape.

    >>> suggest_renames({"layers/conv_b/vars/0": (3, 3)}, {"layers/conv_a/vars/0": (3, 3)})
    {'layers/conv_b/vars/0': 'layers/conv_a/vars/0'}
    """
    left = dict(unexpected)
    found = {}
    for path, shape in missing.items():
        candidates = [other for other, its_shape in left.items() if its_shape == shape]
        nearest = difflib.get_close_matches(path, candidates, n=1, cutoff=0.5)
        if nearest:
            found[path] = nearest[0]
            del left[nearest[0]]
    return found

"""`RestoreReport`: what matches and what does not, between a file and an object.

It is the same for every format: `compare` returns it, a strict load raises it in a `RestoreError`,
and a load with `strict=False` returns it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_ckpt_tools.formats.layer_names import shown_as
from keras_ckpt_tools.matching.suggestions import as_rename
from keras_ckpt_tools.showing.tables import as_html, as_text, printable

# Rows of one kind that are shown.
_MOST = 30
_HEADER = ("what", "in the checkpoint", "in the model", "")


@dataclass(frozen=True)
class Mismatch:
    """A tensor that both sides have, unlike each other.

    Attributes:
        path: Its path in the model.
        in_file: Shape or dtype in the checkpoint.
        in_model: Shape or dtype in the model.
        path_in_file: Its path in the checkpoint.
    """

    path: str
    in_file: str
    in_model: str
    path_in_file: str = ""

    def __post_init__(self) -> None:
        if not self.path_in_file:
            object.__setattr__(self, "path_in_file", self.path)


@dataclass(frozen=True)
class Misnamed:
    """Two layers of the same place and the same shapes, of which the users' names differ.

    Attributes:
        in_file: Group of the layer in the checkpoint.
        name_in_file: What it was called there.
        in_model: Group of the layer in the model.
        name_in_model: What it is called here.
    """

    in_file: str
    name_in_file: str
    in_model: str
    name_in_model: str

    def __str__(self) -> str:
        return (
            f"the checkpoint's {self.name_in_file!r} would have been loaded into "
            f"{self.name_in_model!r}"
        )


@dataclass(frozen=True)
class RestoreReport:
    """The result of comparing or restoring a checkpoint.

    Attributes:
        path: The checkpoint.
        matched: Paths in the model that match.
        missing: Paths in the model that are not in the checkpoint.
        unexpected: Paths in the checkpoint that are not in the model.
        shape_mismatch: Tensors with different shapes.
        dtype_mismatch: Tensors with different dtypes that cannot be converted.
        cast: Tensors with different dtypes that are converted: between floating dtypes, or
            between integers whose values fit. They are in `matched`, too.
        skipped_optimizer: Paths of optimizer state that is not loaded. If only one side has an
            optimizer (an uncompiled model), the report still counts as matching; if the optimizers
            or their variables differ, it does not.
        nearest: For missing paths, the unexpected path with the same shape and the most similar
            name.
        not_finite: Paths with NaN or infinity, if the tensors were read. The report still counts as
            matching.
        renamed: Tensors with another path in the model, as `(in the checkpoint, in the model)`:
            because of `rename=`, or because layers were matched by name.
        misnamed: Layers with the same position but different names, which are not matched.
        optimizer_differs: Why optimizer state was not loaded, as sentences.
        left_out: Paths that `include=`, `exclude=` or `rename=` exclude. They are not compared.
        names: For missing and unexpected paths, the names that users gave their layers, if known.
        variables: Keras' names of the variables of the model (`dense/kernel`), by path.
        variables_in_file: The same for unexpected paths, if known.

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
    nearest: Mapping[str, str] = field(default_factory=dict)
    not_finite: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    misnamed: tuple[Misnamed, ...] = ()
    optimizer_differs: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    cast: tuple[Mismatch, ...] = ()
    # Keras numbers the layers of a process: the same model has other names in the next cell.
    variables: Mapping[str, str] = field(default_factory=dict, compare=False)
    variables_in_file: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __bool__(self) -> bool:
        return not (
            self.missing
            or self.unexpected
            or self.shape_mismatch
            or self.dtype_mismatch
            or self.misnamed
            or self.optimizer_differs
        )

    @property
    def suggestions(self) -> dict[str, str]:
        """What may have been renamed, ready for `rename=`: what it was, and what it is.

        >>> RestoreReport("a", nearest={"layers/b/vars/0": "layers/a/vars/0"}).suggestions
        {'layers/a/*': 'layers/b/*'}
        """
        return as_rename(self.nearest)

    @property
    def summary(self) -> str:
        """One line with the counts."""
        counts = [
            (len(self.renamed), "renamed"),
            (len(self.cast), "cast to another dtype"),
            (len(self.missing), "missing in the checkpoint"),
            (len(self.unexpected), "unexpected in the checkpoint"),
            (len(self.shape_mismatch), "of another shape"),
            (len(self.dtype_mismatch), "of another dtype"),
            (len(self.skipped_optimizer), self._about_skipped()),
            (len(self.left_out), "left out"),
            (len(self.not_finite), "with NaN or infinity"),
        ]
        parts = [f"{len(self.matched)} matched", *(f"{n} {what}" for n, what in counts if n)]
        return ", ".join(parts)

    def _about_skipped(self) -> str:
        if not self.optimizer_differs:
            return "of the optimizer not loaded (only one side has an optimizer)"
        return "of the optimizer not loaded (different optimizer or variables)"

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return `(what, place in the checkpoint, place in the model, note)` for each difference.

        Matching tensors are included only if their path or dtype differs. A place is a path, after
        Keras' name of the variable if it is known: `dense/kernel (layers/dense/vars/0)`.
        """

        def here(path: str) -> str:
            return shown_as(path, self.variables)

        renamed = dict(self.renamed)
        rows = [("renamed", theirs, here(ours), "") for theirs, ours in self.renamed]
        rows += [
            ("cast", m.path_in_file, here(m.path), f"from {m.in_file} to {m.in_model}")
            for m in self.cast
        ]
        rows += [("misnamed", m.in_file, m.in_model, str(m)) for m in self.misnamed]
        for path in self.missing:
            note = f"{self._whose(path)}in the model, not in the checkpoint"
            if path in self.nearest:
                note = _may_be(self.nearest[path], path)
            rows.append(("missing", "", here(path), note))
        for path in self.unexpected:
            note = f"{self._whose(path)}in the checkpoint, not in the model"
            rows.append(("unexpected", shown_as(path, self.variables_in_file), "", note))
        for what, found in (("shape", self.shape_mismatch), ("dtype", self.dtype_mismatch)):
            rows += [
                (
                    what,
                    m.path_in_file,
                    here(m.path),
                    f"in the checkpoint {m.in_file}, in the model {m.in_model}",
                )
                for m in found
            ]
        rows += [("optimizer", "", "", sentence) for sentence in self.optimizer_differs]
        rows += [
            ("skipped", path, here(path), self._about_skipped()) for path in self.skipped_optimizer
        ]
        for path in self.not_finite:
            ours = renamed.get(path, path)
            ours = here(ours) if ours in self.variables else ""
            rows.append(("not finite", path, ours, "NaN or infinity is in it"))
        # The paths are third-party text; in a terminal they could move the cursor.
        return [(what, printable(a), printable(b), printable(c)) for what, a, b, c in rows]

    def _whose(self, path: str) -> str:
        if path not in self.names or path in {**self.variables, **self.variables_in_file}:
            return ""
        return f"of {self.names[path]!r}, "

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values.

        >>> RestoreReport("a.weights.h5", matched=("a",)).to_dict()["matched"]
        ['a']
        """
        told = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {
            "fits": bool(self),
            "summary": self.summary,
            **told,
            "suggestions": self.suggestions,
        }

    def __str__(self) -> str:
        rows = _shortened(self.rows())
        return as_text(f"{self.path}: {self.summary}", [_HEADER, *rows] if rows else ())

    def _repr_html_(self) -> str:
        caption = f"{self.path}: {self.summary}"
        return as_html(caption, _HEADER, _shortened(self.rows()))


def _shortened(rows: list[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """Leave rows away where one kind has very many; `rows` and `to_dict` have them all."""
    number = Counter(row[0] for row in rows)
    shown: Counter[str] = Counter()
    kept = []
    for row in rows:
        shown[row[0]] += 1
        if shown[row[0]] <= _MOST:
            kept.append(row)
        elif shown[row[0]] == number[row[0]]:
            kept.append((row[0], "", "", f"... and {number[row[0]] - _MOST:,} more"))
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, Mismatch | Misnamed):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _may_be(theirs: str, ours: str) -> str:
    if theirs == ours:
        return "possibly the tensors at this path; to use them, `rename=report.suggestions`"
    return f"renamed from {theirs}?"

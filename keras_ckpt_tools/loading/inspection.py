"""What inspecting a file found: report -> *reader*, a table, HTML or JSON.

Each problem says how bad it is and what to do about it. A program asks `bool(report)`: whether
nothing is wrong with the file, and everything that it needs may be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.loading.resolve import ObjectUse
from keras_ckpt_tools.metadata import TensorInfo, TrainingProgress
from keras_ckpt_tools.showing.messages import harmless
from keras_ckpt_tools.showing.tables import as_html, as_text, plural

__all__ = ["Inspection", "Problem", "Severity"]

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an artefact.

    Attributes:
        severity: `"error"` where it keeps the artefact from being loaded, `"warning"` where it does
            not.
        what: What is wrong, a full sentence.
        remedy: What to do about it, a full sentence.
        kind: Name of the error that a load would raise; empty for a warning.

    >>> print(Problem("error", "The file is damaged.", "Copy it again."))
    The file is damaged. Copy it again.
    """

    severity: Severity
    what: str
    remedy: str
    kind: str = ""

    @classmethod
    def of(cls, error: CkptError) -> Problem:
        """Return an error as a problem."""
        return cls("error", error.what.strip(), error.remedy, type(error).__name__)

    def __str__(self) -> str:
        return harmless(f"{self.what} {self.remedy}")

    def __contains__(self, text: str) -> bool:
        return text in str(self)


@dataclass(frozen=True)
class Inspection:
    """What an artefact is and what it needs; true if nothing keeps it from being loaded whole.

    Attributes:
        path: Where it is.
        kind: What it is, told by its content.
        size: Bytes.
        versions: Versions that wrote it, as far as it says: `{"keras": "3.15.1"}`.
        progress: Where training was; the zero record where the file does not say.
        objects: Every place that names an object, with the verdict on it.
        tensors: Every tensor, in the order of the file.
        problems: What is wrong with the artefact itself, the worst first. Whether the tensors of a
            file of ours are intact is for `verify`, which reads every byte.
        estimated_bytes: What the variables of its model take at least, by its config; 0 where
            there is none.
        variables: What Keras calls the variables in the file (`dense/kernel`), by the path of the
            tensor, as far as that is known.
    """

    path: str
    kind: Kind
    size: int
    versions: Mapping[str, str] = field(default_factory=dict)
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    objects: tuple[ObjectUse, ...] = ()
    tensors: tuple[TensorInfo, ...] = ()
    problems: tuple[Problem, ...] = ()
    estimated_bytes: int = 0
    variables: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return not self.errors and all(use.usable for use in self.objects)

    @property
    def loads(self) -> bool:
        """Whether the model would load, if need be uncompiled."""
        return not self.errors and all(use.usable for use in self.objects if use.part == "model")

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep it from being loaded."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that do not."""
        return tuple(p for p in self.problems if p.severity == "warning")

    @property
    def missing(self) -> tuple[str, ...]:
        """Names that nothing in this process has, each once."""
        return self._names("missing")

    @property
    def untrusted(self) -> tuple[str, ...]:
        """Names of what is there, but that nobody vouches for, each once."""
        return self._names("untrusted")

    @property
    def refused(self) -> tuple[str, ...]:
        """Names of what is not loaded whoever vouches for it, each once."""
        return self._names("refused")

    def _names(self, verdict: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(o.registered_name for o in self.objects if o.verdict == verdict))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it: dicts, lists, strings and numbers."""
        return {
            "path": self.path,
            "kind": str(self.kind),
            "size": self.size,
            "good": bool(self),
            "loads": self.loads,
            "versions": dict(self.versions),
            "progress": self.progress.to_json(),
            "objects": [
                {
                    "where": use.where,
                    "role": use.role,
                    "registered_name": use.registered_name,
                    "class_name": use.class_name,
                    "module": use.module,
                    "part": use.part,
                    "verdict": use.verdict,
                    "usable": use.usable,
                    "note": use.note,
                    "nearest": list(use.nearest),
                }
                for use in self.objects
            ],
            "tensors": self.tensors_to_json(),
            "estimated_bytes": self.estimated_bytes,
            "problems": [
                {"severity": p.severity, "what": p.what, "remedy": p.remedy, "error": p.kind}
                for p in self.problems
            ],
        }

    def tensors_to_json(self) -> list[dict[str, Any]]:
        """Return the tensors as JSON has them; `variable` is there where it is known."""
        return [
            {"path": t.path, "shape": list(t.shape), "dtype": t.dtype, "nbytes": t.nbytes}
            | ({"variable": self.variables[t.path]} if t.path in self.variables else {})
            for t in self.tensors
        ]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return `(verdict, name, where, note)` for what is not Keras' own, then the problems."""
        rows = [
            (use.verdict, use.registered_name, f"{use.role} at {use.where}", _origin(use))
            for use in self.objects
            if use.verdict != "built-in"
        ]
        return rows + [(p.severity, "", "", str(p)) for p in self.problems]

    def _caption(self) -> str:
        facts = [f"{self.path}: {self.kind}, {self.size:,} bytes"]
        if self.versions:
            facts.append("by " + ", ".join(f"{n} {v}" for n, v in self.versions.items()))
        if self.progress.trained:
            done = self.progress
            facts.append(f"{plural(done.epochs_completed, 'epoch')} completed, step {done.step}")
        if self.tensors:
            size = sum(t.nbytes for t in self.tensors)
            facts.append(f"{plural(len(self.tensors), 'tensor')} of {size:,} bytes")
        own = sum(use.verdict == "built-in" for use in self.objects)
        if self.objects:
            facts.append(f"{own} of {len(self.objects)} objects are Keras' own")
        return "; ".join(facts)

    def __str__(self) -> str:
        return as_text(self._caption(), self.rows())

    def _repr_html_(self) -> str:
        return as_html(self._caption(), ("verdict", "name", "where", "note"), self.rows())


def _origin(use: ObjectUse) -> str:
    parts = [f"saved from {use.module}"] if use.module else []
    parts += [use.note] if use.note else []
    parts += [f"nearest: {', '.join(use.nearest)}"] if use.nearest else []
    return "; ".join(parts)

"""Report what inspecting a file found, as a table, HTML or JSON.

Each problem has a severity and a remedy. `bool(report)` is true if the file is intact and
everything that it needs may be used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.layer_names import variable_names
from keras_ckpt_tools.formats.tensor_source import ModelSource
from keras_ckpt_tools.inspection.verdicts import ObjectUse
from keras_ckpt_tools.metadata import TensorInfo, TrainingProgress
from keras_ckpt_tools.showing.messages import harmless, warn
from keras_ckpt_tools.showing.tables import as_html, as_text, plural

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One problem of a file.

    Attributes:
        severity: `"error"` if the file cannot be loaded because of it, else `"warning"`.
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
    """What a file is and what it needs; true if it can be loaded completely.

    Attributes:
        path: Its path.
        kind: Its kind, detected from its content.
        size: Bytes.
        versions: Versions that wrote it, if known: `{"keras": "3.15.1"}`.
        progress: The training progress; all zero if the file contains none.
        objects: Every place that names an object, with its verdict.
        tensors: Every tensor, in the order of the file.
        problems: Problems of the file itself, the worst first. `verify` reads every byte and checks
            that the tensors are intact.
        estimated_bytes: A lower bound of the bytes of its model's variables, by its config; 0
            without a config.
        groups: Names of the layers and optimizers in the file, by their path in it.
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
    groups: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """Keras' names of the variables (`dense/kernel`), by the path of the tensor."""
        return variable_names((tensor.path for tensor in self.tensors), self.groups)

    def __bool__(self) -> bool:
        return not self.errors and all(use.usable for use in self.objects)

    @property
    def loads(self) -> bool:
        """Whether the model can be loaded, at least uncompiled."""
        return not self.errors and all(use.usable for use in self.objects if use.part == "model")

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems because of which it cannot be loaded."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that do not prevent a load."""
        return tuple(p for p in self.problems if p.severity == "warning")

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of objects that are not found in this process, each once."""
        return self._names("missing")

    @property
    def untrusted(self) -> tuple[str, ...]:
        """Names of objects that exist, but are not trusted, each once."""
        return self._names("untrusted")

    @property
    def refused(self) -> tuple[str, ...]:
        """Names of objects that are never loaded, even if trusted, each once."""
        return self._names("refused")

    def _names(self, verdict: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(o.registered_name for o in self.objects if o.verdict == verdict))

    def to_json(self) -> dict[str, Any]:
        """Return the report as dicts, lists, strings and numbers, for JSON."""
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
        """Return the tensors for JSON; with `variable` if it is known."""
        return [
            {"path": t.path, "shape": list(t.shape), "dtype": t.dtype, "nbytes": t.nbytes}
            | ({"variable": self.variables[t.path]} if t.path in self.variables else {})
            for t in self.tensors
        ]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return `(verdict, name, where, note)` for objects outside Keras, then the problems."""
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


# Older versions are not supported, so their files are not newer than the installed Keras.
_OLDEST = [3, 10]
# Members of an archive that are named.
_NAMED = 5


def newer_than_here(versions: Mapping[str, str]) -> list[Problem]:
    """Return a warning if a later Keras than the installed one wrote a file.

    >>> newer_than_here({"keras": "0.1"})
    []
    """
    theirs = versions.get("keras", "")
    if _numbers(theirs)[:2] <= _OLDEST:
        return []
    ours = _installed("keras")
    if not ours or _numbers(theirs)[:2] <= _numbers(ours)[:2]:
        return []
    return [
        Problem(
            "warning",
            f"Keras {theirs} wrote the file, and Keras {ours} is installed here.",
            f"If it does not load, run `pip install 'keras>={theirs}'`.",
        )
    ]


def passed_over(source: ModelSource) -> list[Problem]:
    """Return a warning for each part of a file that a load skips, or that is missing."""
    names = source.passed_over
    problems = []
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        problems.append(
            Problem(
                "warning",
                f"Skipped, not part of the model: {', '.join(map(repr, names[:_NAMED]))}{more}.",
                "The loaded model does not depend on them.",
            )
        )
    if source.lacks_metadata:
        problems.append(
            Problem(
                "warning",
                "It has no metadata.json, so the version of Keras that wrote it is unknown.",
                "It is read as a file of Keras 3.",
            )
        )
    return problems


def warn_of_passed_over(source: ModelSource, stacklevel: int) -> None:
    """Warn in one line about parts that a load skipped; `stacklevel` as for `warnings.warn`."""
    if problems := passed_over(source):
        what = " ".join(problem.what for problem in problems)
        warn(f"{source.path!r}: {what}", UserWarning, stacklevel=stacklevel)


def writer(versions: Mapping[str, str]) -> str:
    """Return a sentence on the writer of a file, if that may be why it does not load.

    >>> writer({"keras": "2.15.0"}).split(";")[0]
    'The file was written by Keras 2.15.0'
    """
    newer = newer_than_here(versions)
    if newer:
        return str(newer[0])
    theirs = versions.get("keras", "")
    if _numbers(theirs)[:1] in ([1], [2]):
        return (
            f"The file was written by Keras {theirs}; if Keras 3 cannot open it, use "
            "`pip install tf_keras` and `tf_keras.models.load_model`."
        )
    return ""


def _installed(package: str) -> str:
    # Importing it takes a third of the time of an inspection.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d{1,9}", version)[:3]]

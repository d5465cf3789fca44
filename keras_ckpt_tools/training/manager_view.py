"""Show a manager as text or HTML: progress, checkpoints, the best, and the next save.

It answers the questions of a user who looks at a running program. It reads nothing from disk that
the manager does not know already.
know already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.runs.retention import Policy
from keras_ckpt_tools.showing.tables import as_html, as_text, facts_as_html


@dataclass(frozen=True)
class ManagerView:
    """The contents of the view of a manager.

    Attributes:
        directory: Directory of the checkpoints.
        progress: The position of training.
        objects: The tracked objects, by name.
        saved: The existing checkpoints, oldest first.
        best: Path of the best one, or `None`.
        policy: The retention policy.
        next_save: When the next save is due, in words.
    """

    directory: str
    progress: TrainingProgress
    objects: Mapping[str, Any]
    saved: tuple[CheckpointEntry, ...]
    best: str | None
    policy: Policy
    next_save: str

    def facts(self) -> dict[str, str]:
        """Return the values above the table of checkpoints."""
        return {
            "epochs completed": str(self.progress.epochs_completed),
            "step": str(self.progress.step),
            "tracked": ", ".join(
                f"{name} ({type(tracked).__name__})" for name, tracked in self.objects.items()
            ),
            "what stays": str(self.policy),
            "saves": self.next_save,
        }

    def rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield `(checkpoint, epochs completed, step, logs, note)`, oldest first."""
        for item in self.saved:
            logs = ", ".join(f"{n}={value:.4g}" for n, value in item.progress.logs.items())
            notes = ["best"] if item.path == self.best else []
            notes += ["newest"] if item is self.saved[-1] else []
            yield (
                os.path.basename(item.path),
                str(item.progress.epochs_completed),
                str(item.progress.step),
                logs,
                ", ".join(notes),
            )

    def as_text(self) -> str:
        """Return it for a terminal."""
        head = as_text(f"CheckpointManager of {self.directory}", self.facts().items())
        rows = list(self.rows())
        return f"{head}\n{as_text(_count(rows), [_HEADINGS, *rows] if rows else [])}"

    def as_html(self) -> str:
        """Return it for a notebook."""
        facts = facts_as_html(f"CheckpointManager of {self.directory}", self.facts())
        rows = list(self.rows())
        return facts + as_html(_count(rows), _HEADINGS, rows)


_HEADINGS = ("checkpoint", "epochs completed", "step", "logs", "")


def _count(rows: list[tuple[str, str, str, str, str]]) -> str:
    return f"{len(rows)} checkpoint{'' if len(rows) == 1 else 's'}"

"""Which checkpoint of a directory a run goes on from: directory -> *choice* -> resume.

The newest that is whole. `Checkpoints` asks, and tries each by restoring it; the command line asks
too, and tries each by reading every byte, so that what it foretells is what happens. Hence no
framework here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from keras_ckpt_tools.errors import DamagedArtefactError
from keras_ckpt_tools.formats.checkpoint_dir import list_checkpoints
from keras_ckpt_tools.storage.retention import Saved

__all__ = ["Choice", "choose_newest", "other_major"]

T = TypeVar("T")


@dataclass(frozen=True)
class Choice(Generic[T]):
    """What was chosen.

    Attributes:
        result: What the attempt returned; `None` where there is nothing to go on from.
        saved: The checkpoints that are whole as far as was seen, oldest first.
        passed: What was passed over, as `(path, why)`.
    """

    result: T | None
    saved: list[Saved]
    passed: list[tuple[str, str]]


def choose_newest(
    directory: str,
    attempt: Callable[[str], T],
    among: Callable[[list[Saved]], Sequence[Saved]] = lambda saved: saved,
) -> Choice[T]:
    """Try the checkpoints of a directory, the newest first, until one is whole.

    Args:
        directory: The directory; one that is not there has none.
        attempt: Called with a path; raises `DamagedArtefactError` where the file is damaged.
        among: Returns those that come into question, oldest first.
    """
    saved, damaged = list_checkpoints(directory)
    passed = [(path, "its record is damaged") for path in damaged]
    for item in reversed(list(among(saved))):
        try:
            return Choice(attempt(item.path), saved, passed)
        except DamagedArtefactError as error:
            saved.remove(item)
            passed.append((item.path, error.what))
    return Choice(None, saved, passed)


def other_major(saved: str, installed: str) -> bool:
    """Return whether two versions of Keras have different major numbers.

    >>> other_major("3.10.0", "3.15.1"), other_major("2.15.0", "3.15.1"), other_major("", "3.0")
    (False, True, False)
    """
    return saved.partition(".")[0] not in ("", installed.partition(".")[0])

"""Every error that the package raises, in one tree.

    CkptError
    ├── ArgumentError             (ValueError)   an argument that cannot work, told at once
    │   ├── FilepathKeyError      (KeyError)     a pattern asks for a key that the logs lack
    │   ├── MonitorError                         the metric is missing, or has no direction
    │   └── PathInUseError                       two writers were given one path
    ├── ArtefactError
    │   ├── ArtefactNotFoundError (FileNotFoundError, ValueError)  nothing is there
    │   ├── ArtefactKindError     (ValueError)   it is something else than what this call opens
    │   ├── DamagedArtefactError  (OSError, ValueError)  empty, truncated, or bytes have changed
    │   ├── UnsafeArtefactError   (ValueError)   it leads out of itself: a link, a device, a path
    │   ├── ConfigError           (ValueError, TypeError)  intact, but its model cannot be built
    │   ├── OverBudgetError       (MemoryError, ValueError)  it would take more than it may
    │   ├── NewerFormatError      (ValueError)   written by a later version of this package
    │   └── UntranslatableError   (ValueError)   Keras 2 wrote it, and Keras 3 cannot say it
    ├── MissingPackageError       (ImportError)  an extra of this package is not installed
    ├── CommitError               (OSError)      a save failed; what was there before is untouched
    ├── RegistryError             (ValueError)
    │   ├── DuplicateNameError                   another object already has that name
    │   └── NotSerializableError  (TypeError)    it could be saved, but never be built again
    ├── ObjectsNotFoundError      (ValueError)   objects of a file are missing or not trusted
    ├── NotBuiltError             (ValueError)   there are no variables yet that could be restored
    ├── RestoreError              (ValueError)   a checkpoint and an object do not fit
    ├── MigrationError            (ValueError)   older weights could not be made into newer ones
    ├── ResumeError               (RuntimeError) a run cannot go on from what is there
    └── UntrackedStateError       (ValueError)   a save would leave something out

One message says three things: what happened, what was received, and the call that fixes it. The
same facts are attributes, because a program that catches an error should not have to parse a
sentence. Names out of files are escaped in the message, and as they were in the attributes. Each
error also derives from the built-in that a caller would expect; what Keras raises as `ValueError`
(for a file that is missing, damaged or too large, too) is one here. Errors travel through pickle:
they are raised in worker processes too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_ckpt_tools.showing.messages import harmless

__all__ = [
    "ArgumentError",
    "ArtefactError",
    "ArtefactKindError",
    "ArtefactNotFoundError",
    "CkptError",
    "CommitError",
    "ConfigError",
    "DamagedArtefactError",
    "DuplicateNameError",
    "FilepathKeyError",
    "MigrationError",
    "MissingPackageError",
    "MonitorError",
    "NewerFormatError",
    "NotBuiltError",
    "NotSerializableError",
    "ObjectsNotFoundError",
    "OverBudgetError",
    "PathInUseError",
    "RegistryError",
    "RestoreError",
    "ResumeError",
    "UnsafeArtefactError",
    "UntrackedStateError",
    "UntranslatableError",
]


_MOST_SHOWN = 2000
"""How many characters of a value an error shows; somebody may pass a whole file as its path."""


class CkptError(Exception):
    """Base of all errors of this package.

    Args:
        what: What happened, a full sentence.
        remedy: What to do about it, a full sentence.
        received: The value that led here, as `name=value`.
        **facts: Kept as attributes of the error.

    Example:

    >>> error = CkptError("The disk is full.", remedy="Free 3 MB.", received="path='a.keras'")
    >>> print(error)
    The disk is full. Received: path='a.keras'. Free 3 MB.
    """

    what: str
    remedy: str
    received: str | None
    facts: Mapping[str, Any]

    def __init__(self, what: str, *, remedy: str, received: str | None = None, **facts: Any):
        text = what if what.endswith("\n") else f"{what} "
        if received is not None:
            shown = received if len(received) <= _MOST_SHOWN else f"{received[:_MOST_SHOWN]}..."
            text += f"Received: {shown}. "
        super().__init__(harmless(text + remedy))
        self.what = what
        self.remedy = remedy
        self.received = received
        self.facts = dict(facts)
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        # KeyError would show the repr of its argument, quotes and all.
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.remedy, self.received, dict(self.facts))


def _rebuild(
    kind: type[CkptError], what: str, remedy: str, received: str | None, facts: dict[str, Any]
) -> CkptError:
    return kind(what, remedy=remedy, received=received, **facts)


class ArgumentError(CkptError, ValueError):
    """An argument cannot work. Raised as early as that can be known."""


class FilepathKeyError(ArgumentError, KeyError):
    """A file name pattern names a key that the logs do not have. Attributes: `key`, `available`."""

    key: str
    available: tuple[str, ...]


class MonitorError(ArgumentError):
    """The monitored metric is missing, or has no known direction.

    Attributes: `monitor`, `available` (names in the logs).
    """

    monitor: str
    available: tuple[str, ...]


class PathInUseError(ArgumentError):
    """Two writers of one run were given the same path. Attribute: `path`."""

    path: str


class ArtefactError(CkptError):
    """Something is wrong with a file or directory that was handed over. Attribute: `path`."""

    path: str


class ArtefactNotFoundError(ArtefactError, FileNotFoundError, ValueError):
    """There is nothing at the path. Attributes: `path`, `nearby` (names that are there)."""

    nearby: tuple[str, ...]


class ArtefactKindError(ArtefactError, ValueError):
    """The artefact is something else than what the call opens. Attributes: `path`, `kind`."""

    kind: str


class DamagedArtefactError(ArtefactError, OSError, ValueError):
    """The artefact is empty, truncated, or some of its bytes have changed.

    Attributes: `path`, `how` (what is wrong, without a full stop: `"it ends after 12 bytes"`).
    """

    how: str


def damaged(
    path: str,
    how: str,
    remedy: str = "Restore it from a copy, or load an earlier checkpoint of the run.",
    *,
    thing: str = "file",
) -> DamagedArtefactError:
    """Return the error for a damaged artefact.

    >>> print(damaged("a.keras", "its zip structure cannot be read", "Copy it again."))
    The file is damaged: its zip structure cannot be read. Received: path='a.keras'. Copy it again.
    """
    return DamagedArtefactError(
        f"The {thing} is damaged: {how}.",
        received=f"path={path!r}",
        remedy=remedy,
        path=path,
        how=how,
    )


class UnsafeArtefactError(ArtefactError, ValueError):
    """The artefact has what would lead out of it, or what Keras never writes. Attribute: `path`."""


class ConfigError(ArtefactError, ValueError, TypeError):
    """The file is intact, and its model cannot be built from the config in it.

    Attributes: `path`, `class_name` (of what could not be built; empty where that is not known),
    `arguments` (those that the config lacks, or that the class does not take).
    """

    class_name: str
    arguments: tuple[str, ...]


class OverBudgetError(ArtefactError, MemoryError, ValueError):
    """Opening the artefact would take more than it may.

    Attributes: `path`, `limit` (which one: `"max_bytes"`, `"max_seconds"`, `"members"` ...),
    `needed` and `allowed` (numbers of that unit; `needed` is what is known so far, at least).
    """

    limit: str
    needed: float
    allowed: float


class NewerFormatError(ArtefactError, ValueError):
    """A later version of this package wrote the file. Attributes: `path`, `found`, `supported`."""

    found: int
    supported: int


class UntranslatableError(ArtefactError, ValueError):
    """Keras 2 wrote a model that Keras 3 has no words for.

    Attributes: `path`, `places` (each layer, what it has, and what to do, as sentences).
    """

    places: tuple[str, ...]


class CommitError(CkptError, OSError):
    """A save failed. What stood at the path before is as it was. Attributes: `path`, `errno`."""

    path: str


class MissingPackageError(CkptError, ImportError):
    """Something optional is asked for, and its package is not installed. Attribute: `package`."""

    package: str


class RegistryError(CkptError, ValueError):
    """Something cannot be registered as asked. Attribute: `name`."""

    name: str


class DuplicateNameError(RegistryError):
    """Another object has the name. Attributes: `name`, `existing`, `new` (places, `file:line`)."""

    existing: str
    new: str


class NotSerializableError(RegistryError, TypeError):
    """The object could be saved, but not be built again. Attributes: `name`, `lost` (arguments)."""

    lost: tuple[str, ...]


class ObjectsNotFoundError(CkptError, ValueError):
    """A file needs objects that are missing or not trusted.

    Attributes: `path`, `missing`, `untrusted` and `refused` (tuples of registered names).
    """

    path: str
    missing: tuple[str, ...]
    untrusted: tuple[str, ...]
    refused: tuple[str, ...]


class NotBuiltError(CkptError, ValueError):
    """An object has no variables yet, and the shape to build it with is not known.

    Attribute: `name`.
    """

    name: str


class RestoreError(CkptError, ValueError):
    """A checkpoint and an object do not fit; nothing was changed. Attributes: `path`, `report`."""

    path: str
    report: Any


class MigrationError(CkptError, ValueError):
    """A class's `migrate_weights` failed; nothing was changed.

    Attributes: `path`, `name` (of the class), `from_version` and `to_version`.
    """

    path: str
    name: str
    from_version: int
    to_version: int


class ResumeError(CkptError, RuntimeError):
    """A run cannot go on from what is there. Attribute: `path`."""

    path: str


class UntrackedStateError(CkptError, ValueError):
    """A save would leave something out; nothing was written.

    Attribute: `untracked` (for each: where it is, what it is, what to do about it).
    """

    untracked: tuple[tuple[str, str, str], ...]

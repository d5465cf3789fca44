"""Define every error that the package raises.

    CkptError
    ├── ArgumentError             (ValueError)   an argument cannot work
    │   ├── FilepathKeyError      (KeyError)     a pattern has a key that is not in the logs
    │   ├── MonitorError                         the metric is missing, or has no direction
    │   └── PathInUseError                       two writers have the same path
    ├── ArtefactError
    │   ├── ArtefactNotFoundError (FileNotFoundError, ValueError)  there is nothing at the path
    │   ├── ArtefactKindError     (ValueError)   this call does not open files of this kind
    │   ├── DamagedArtefactError  (OSError, ValueError)  empty, truncated, or bytes have changed
    │   ├── UnsafeArtefactError   (ValueError)   a link, a device, or a path that leads outside
    │   ├── ConfigError           (ValueError, TypeError)  intact, but its model cannot be built
    │   ├── OverBudgetError       (MemoryError, ValueError)  it would exceed a limit
    │   ├── NewerFormatError      (ValueError)   written by a later version of this package
    │   └── UntranslatableError   (ValueError)   a Keras 2 model that Keras 3 does not support
    ├── MissingPackageError       (ImportError)  an extra of this package is not installed
    ├── CommitError               (OSError)      a save failed; an existing file is unchanged
    ├── RegistryError             (ValueError)
    │   ├── DuplicateNameError                   another object already has that name
    │   └── NotSerializableError  (TypeError)    it could be saved, but not rebuilt
    ├── ObjectsNotFoundError      (ValueError)   objects of a file are missing or not trusted
    ├── NotBuiltError             (ValueError)   there are no variables to restore yet
    ├── RestoreError              (ValueError)   a checkpoint and an object do not match
    ├── MigrationError            (ValueError)   older weights could not be converted
    ├── ResumeError               (RuntimeError) a run cannot be resumed
    └── UntrackedStateError       (ValueError)   a save would be incomplete

A message contains what happened, the value received, and what to do. The same facts are attributes,
so programs need not parse the message. Names from files are escaped in the message, and unchanged
in the attributes. Each error also derives from the built-in error that a caller would expect: where
Keras raises `ValueError`, so do these. Errors can be pickled, because worker processes raise them.
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
"""Maximum number of characters of a value in a message; the value may be the content of a file."""


class CkptError(Exception):
    """Base of all errors of this package.

    Args:
        what: What happened, a full sentence.
        remedy: What to do about it, a full sentence.
        received: The value that caused it, as `name=value`.
        **facts: Attributes of the error.

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
    """An argument cannot work. Raised as early as possible."""


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
    """Two writers of one run have the same path. Attribute: `path`."""

    path: str


class ArtefactError(CkptError):
    """There is a problem with a file or directory. Attribute: `path`."""

    path: str


class ArtefactNotFoundError(ArtefactError, FileNotFoundError, ValueError):
    """There is nothing at the path. Attributes: `path`, `nearby` (names that are there)."""

    nearby: tuple[str, ...]


class ArtefactKindError(ArtefactError, ValueError):
    """The call does not open files of this kind. Attributes: `path`, `kind`."""

    kind: str


class DamagedArtefactError(ArtefactError, OSError, ValueError):
    """The file is empty, truncated, or some of its bytes have changed.

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
    """Return the error for a damaged file.

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
    """The file refers to data outside it, or has parts unknown to Keras. Attribute: `path`."""


class ConfigError(ArtefactError, ValueError, TypeError):
    """The file is intact, but its model cannot be built from its config.

    Attributes: `path`, `class_name` (the class that could not be built; empty if unknown),
    `arguments` (missing in the config, or not accepted by the class).
    """

    class_name: str
    arguments: tuple[str, ...]


class OverBudgetError(ArtefactError, MemoryError, ValueError):
    """Opening the file would exceed a limit.

    Attributes: `path`, `limit` (which one: `"max_bytes"`, `"max_seconds"`, `"members"` ...),
    `needed` and `allowed` (numbers of that unit; `needed` is a lower bound).
    """

    limit: str
    needed: float
    allowed: float


class NewerFormatError(ArtefactError, ValueError):
    """A later version of this package wrote the file. Attributes: `path`, `found`, `supported`."""

    found: int
    supported: int


class UntranslatableError(ArtefactError, ValueError):
    """A model of Keras 2 cannot be translated to Keras 3.

    Attributes: `path`, `places` (each layer, what it has, and what to do, as sentences).
    """

    places: tuple[str, ...]


class CommitError(CkptError, OSError):
    """A save failed. An existing file at the path is unchanged. Attributes: `path`, `errno`."""

    path: str


class MissingPackageError(CkptError, ImportError):
    """An optional feature needs a package that is not installed. Attribute: `package`."""

    package: str


class RegistryError(CkptError, ValueError):
    """An object cannot be registered. Attribute: `name`."""

    name: str


class DuplicateNameError(RegistryError):
    """Another object has the name. Attributes: `name`, `existing`, `new` (places, `file:line`)."""

    existing: str
    new: str


class NotSerializableError(RegistryError, TypeError):
    """The object could be saved, but not rebuilt. Attributes: `name`, `lost` (arguments)."""

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
    """An object has no variables yet, and the shape to build it with is unknown.

    Attribute: `name`.
    """

    name: str


class RestoreError(CkptError, ValueError):
    """A checkpoint and an object differ; nothing was changed. Attributes: `path`, `report`."""

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
    """A run cannot be resumed from this path. Attribute: `path`."""

    path: str


class UntrackedStateError(CkptError, ValueError):
    """A save would be incomplete; nothing was written.

    Attribute: `untracked` (for each: its place, what it is, and what to do).
    """

    untracked: tuple[tuple[str, str, str], ...]

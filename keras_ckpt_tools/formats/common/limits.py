"""Limits on memory and counts that every reader applies.

A file of two kilobytes can declare ten terabytes. So each count and size in a file is compared with
a limit before memory is allocated, and all raise the same error. The limits on structure are far
above any Keras model. The most important one, `max_bytes`, is by default the free memory of this
machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from keras_ckpt_tools.errors import ArgumentError, OverBudgetError

_DIGITS = 18
_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Limits:
    """What one artefact may take.

    Attributes:
        max_bytes: Bytes of tensors, of unpacked members and of variables, each in total.
        json_bytes: Bytes of one JSON document.
        json_nodes: Values in one JSON document.
        json_depth: Levels in one JSON document.
        members: Files in an archive or directory.
        directory_bytes: Bytes of a zip's table of contents.
        expansion: Bytes that one packed byte may become, in members of more than a megabyte.
        objects: Groups, datasets and attributes in an HDF5 file.
        levels: Groups within groups.
        attribute_bytes: Bytes of all attributes of an HDF5 file.
        chunk_bytes: Bytes of one compressed piece of a dataset.
        seconds: CPU time for scanning an HDF5 file, in addition to the time for its size.
        patience: Wall time for the same.
    """

    max_bytes: int
    json_bytes: int = 128 * _MIB
    json_nodes: int = 5_000_000
    json_depth: int = 256
    members: int = 10_000
    directory_bytes: int = 16 * _MIB
    expansion: int = 200
    objects: int = 500_000
    levels: int = 128
    attribute_bytes: int = 64 * _MIB
    chunk_bytes: int = 256 * _MIB
    seconds: float = 6.0
    patience: float = 30.0

    @classmethod
    def of(cls, max_bytes: int | None = None) -> Limits:
        """Read a `max_bytes=` argument; `None` stands for what this machine can hold.

        Raises:
            ArgumentError: it is no positive number of bytes.

        >>> Limits.of(1_000_000).max_bytes
        1000000
        """
        if max_bytes is None:
            return cls(available_memory())
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes <= 0:
            raise ArgumentError(
                "`max_bytes` must be a positive number of bytes.",
                received=f"max_bytes={max_bytes!r}",
                remedy="Pass 2_000_000_000 for two gigabytes, for example, or None for what this "
                "machine can hold.",
            )
        return cls(max_bytes)


def over_budget(
    path: str, what: str, limit: str, needed: float, allowed: float, remedy: str = ""
) -> OverBudgetError:
    """Return the error for what is too much.

    Args:
        path: The artefact.
        what: What it would take, `"its tensors take"` for example.
        limit: Which limit.
        needed: How much, as far as it is known.
        allowed: How much it may be.
        remedy: What to do; by default, to allow more where that can be done.
    """
    if not remedy and limit == "max_bytes":
        remedy = f"If you know the file, allow it: `max_bytes={needed}`."
    unit = "bytes" if limit.endswith("bytes") else limit.replace("json_", "").replace("_", " ")
    unit = unit.removeprefix("max ")
    return OverBudgetError(
        f"Refused, because {what} {needed:,} {unit}, and {allowed:,} are allowed.",
        received=f"path={path!r}",
        remedy=remedy or "No model has so many. Get the original file from its source.",
        path=path,
        limit=limit,
        needed=needed,
        allowed=allowed,
    )


def number_in(name: str) -> int | None:
    """Return the number that a name in a file is, `None` if it is none.

    Python calls other characters digits as well, and refuses to read very long numbers.

    >>> number_in("12"), number_in("²"), number_in("1" * 5000), number_in("-1")
    (12, None, None, None)
    """
    return int(name) if len(name) <= _DIGITS and name.isascii() and name.isdigit() else None


def available_memory() -> int:
    """Return the bytes of memory that this process could still take, as far as can be told."""
    found = [n for n in (_linux_available(), _control_group()) if n is not None]
    if not found:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    return max(min(found), 64 * _MIB)


def _linux_available() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * _KIB
    except (OSError, ValueError, IndexError):
        pass
    return None


def _control_group() -> int | None:
    """Return what is left to a container, which `/proc/meminfo` does not know."""
    folders = (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    )
    for most, now in folders:
        try:
            with open(most, encoding="ascii") as file, open(now, encoding="ascii") as used:
                return int(file.read()) - int(used.read())
        except (OSError, ValueError):
            continue  # There is no such file, or it says "max".
    return None

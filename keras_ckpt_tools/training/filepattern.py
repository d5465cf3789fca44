"""File name patterns of `ModelCheckpoint`: logs -> *path*, and path -> what was saved there before.

`"{epoch:02d}-{val_loss:.2f}.keras"` is filled in at each save, and read the other way round after a
restart, to find the files that it can have named.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_ckpt_tools.errors import ArgumentError, CkptError, FilepathKeyError
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.metadata import Record, epoch_number
from keras_ckpt_tools.storage.commit import remove_leftovers_of
from keras_ckpt_tools.storage.local_paths import local_path
from keras_ckpt_tools.training.run import plain_logs


def check_pattern(filepath: str | os.PathLike[str]) -> str:
    """Return a pattern as a string, if it can be filled in.

    Raises:
        ArgumentError: it is no path, is an address, is malformed, or is a directory.
    """
    if not isinstance(filepath, (str, os.PathLike)) or not str(filepath):
        raise ArgumentError(
            "`filepath` is the path of a file.",
            received=f"filepath={filepath!r}",
            remedy="Pass a non-empty string or a `pathlib.Path`, ending in `.keras`.",
        )
    path = local_path(filepath, "filepath")
    try:
        fields = _fields(path)
    except ValueError as error:
        raise ArgumentError(
            f"`filepath` is not a pattern that can be filled in: {error}.",
            received=f"filepath={path!r}",
            remedy="Write `{epoch:02d}` for a value, `{{` for a brace.",
        ) from error
    if any(not field or field.isdigit() for field in fields):
        raise ArgumentError(
            "`filepath` has a `{}` without a name.",
            received=f"filepath={path!r}",
            remedy="Name what goes there: `{epoch:02d}`, `{val_loss:.2f}`.",
        )
    if not fields and os.path.isdir(path):
        raise ArgumentError(
            "`filepath` is a directory; the path of a file is needed.",
            received=f"filepath={path!r}",
            remedy=f"Pass {os.path.join(path, 'model-{epoch:02d}.keras')!r}.",
        )
    return path


def _fields(path: str) -> list[str]:
    """Return the names in a pattern.

    Raises:
        ValueError: it is malformed, or has a format that no number can be written in.
    """
    names = []
    for _, name, spec, conversion in string.Formatter().parse(path):
        if name is None:
            continue
        names.append(name)
        if set(name) & set(".["):
            raise ValueError(f"{{{name}}} is no name of a number in the logs")
        # A count or a metric; which of the two a name of the logs is, nobody knows yet.
        numbers: tuple[float, ...] = (1,) if name in ("epoch", "batch") else (1, 0.5)
        if spec and "{" not in spec and not conversion:
            if not any(_formats(number, spec) for number in numbers):
                raise ValueError(f"no such number can be written as {spec!r}")
    return names


def _formats(number: float, spec: str) -> bool:
    try:
        format(number, spec)
    except ValueError:
        return False
    return True


def matching_files(pattern: str) -> list[str]:
    """Return the files that a pattern can have named."""
    return [p for p in glob.glob(_wild(pattern), include_hidden=True) if os.path.isfile(p)]


def _wild(pattern: str) -> str:
    return "".join(
        glob.escape(text) + ("" if name is None else "?*")
        for text, name, _, _ in string.Formatter().parse(pattern)
    )


def clear_leftovers(pattern: str) -> None:
    """Remove what killed runs left of staging files that a pattern can have named."""
    folder, name = os.path.split(_wild(pattern))
    for place in glob.glob(folder) if folder else ["."]:
        with contextlib.suppress(OSError):  # It was no folder, or is gone.
            remove_leftovers_of(Path(place), re.compile(fnmatch.translate(name)).fullmatch)


def fill_pattern(
    pattern: str, epoch: int, batch: int | None, logs: Mapping[str, Any] | None
) -> str:
    """Return the path that a pattern means now.

    Args:
        pattern: The pattern.
        epoch: Zero-based epoch; `{epoch}` is one-based.
        batch: Zero-based batch, or `None` at the end of an epoch; `{batch}` is one-based.
        logs: What else can be named.

    Raises:
        FilepathKeyError: it names what is not there.

    >>> fill_pattern("{epoch:02d}-{loss:.1f}.keras", 0, None, {"loss": 0.25})
    '01-0.2.keras'
    """
    values: dict[str, Any] = {"epoch": epoch_number(epoch)}
    if batch is not None:
        values["batch"] = batch + 1
    numbers = plain_logs(logs)
    values |= {
        name: value if isinstance(value, (int, float)) else numbers.get(name, value)
        for name, value in (logs or {}).items()
    }
    try:
        return pattern.format(**values)
    except KeyError as error:
        raise FilepathKeyError(
            f'Failed to format this callback filepath: "{pattern}". Reason: there is no {error} in '
            f"the logs; there are: {', '.join(values)}.",
            received=f"filepath={pattern!r}",
            remedy="Use one of those, or give `fit()` its `validation_data`.",
            key=str(error.args[0]),
            available=tuple(values),
        ) from error


def interrupted_path(
    pattern: str, epoch: int, batch: int | None, logs: Mapping[str, Any], suffix: str
) -> str:
    """Return where a model goes that is saved because training is interrupted.

    Not where a regular save would go: it must not overwrite the best.

    >>> interrupted_path("runs/best.keras", 0, None, {}, ".keras")
    'runs/best-interrupted.keras'
    """
    marked = f"{pattern.removesuffix(suffix)}-interrupted{suffix}"
    try:
        return fill_pattern(marked, epoch, batch, logs)
    except FilepathKeyError:
        # There are no metrics yet, and this is not the moment to insist on them.
        return os.path.join(os.path.dirname(pattern), f"model-interrupted{suffix}")


def last_path(pattern: str, last: str | os.PathLike[str], suffix: str) -> str:
    """Return the second name of the newest file that a pattern has named.

    Args:
        pattern: The pattern.
        last: A name, which is meant in the directory of the pattern, or a path.
        suffix: How the names end.

    Raises:
        ArgumentError: it is a pattern itself, that of the files, or of another format.

    >>> last_path("runs/{epoch:02d}.keras", "last.keras", ".keras")
    'runs/last.keras'
    """
    name = local_path(last, "last")
    folder = os.path.dirname(pattern)
    while _fields(folder):
        folder = os.path.dirname(folder)
    path = os.path.join(folder, name) if not os.path.dirname(name) else name
    same = os.path.abspath(path) == os.path.abspath(pattern)
    if "{" in name or not name.endswith(suffix) or name == suffix or same or os.path.isdir(path):
        raise ArgumentError(
            f"`last` is the name of one file that ends in {suffix!r}, beside those of `filepath`.",
            received=f"last={name!r}, filepath={pattern!r}",
            remedy=f"Pass `last={f'last{suffix}'!r}`"
            + (", and a pattern like '{epoch:02d}" + suffix + "' as `filepath`." if same else "."),
        )
    return path


def record_in(path: str) -> Record | None:
    """Return the record of a file, or `None` where it is not ours or cannot be read."""
    try:
        with open_source(path) as source:
            return source.record
    except CkptError:
        return None

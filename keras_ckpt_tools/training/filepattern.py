"""Fill in the file name patterns of `ModelCheckpoint`, and find the files that they name.

`"{epoch:02d}-{val_loss:.2f}.keras"` is filled in at each save. After a restart, it is used to find
the files that may have been written with it.
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
    """Return a pattern as a string if it is valid.

    Raises:
        ArgumentError: it is not a path, is a URL or a directory, or is malformed.
    """
    if not isinstance(filepath, (str, os.PathLike)) or not str(filepath):
        raise ArgumentError(
            "`filepath` must be the path of a file.",
            received=f"filepath={filepath!r}",
            remedy="Pass a non-empty string or a `pathlib.Path`, ending in `.keras`.",
        )
    path = local_path(filepath, "filepath")
    try:
        fields = _fields(path)
    except ValueError as error:
        raise ArgumentError(
            f"`filepath` is not a valid pattern: {error}.",
            received=f"filepath={path!r}",
            remedy="Write `{epoch:02d}` for a value, `{{` for a brace.",
        ) from error
    if any(not field or field.isdigit() for field in fields):
        raise ArgumentError(
            "`filepath` has a `{}` without a name.",
            received=f"filepath={path!r}",
            remedy="Add a name: `{epoch:02d}`, `{val_loss:.2f}`.",
        )
    if not fields and os.path.isdir(path):
        raise ArgumentError(
            "`filepath` is a directory, but must be the path of a file.",
            received=f"filepath={path!r}",
            remedy=f"Pass {os.path.join(path, 'model-{epoch:02d}.keras')!r}.",
        )
    return path


def _fields(path: str) -> list[str]:
    """Return the names in a pattern.

    Raises:
        ValueError: it is malformed, or a format cannot be used with any number.
    """
    names = []
    for _, name, spec, conversion in string.Formatter().parse(path):
        if name is None:
            continue
        names.append(name)
        if set(name) & set(".["):
            raise ValueError(f"{{{name}}} is not the name of a number in the logs")
        # It may be a count or a metric; that is not known yet.
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
    """Return the files that a pattern may have named."""
    return [p for p in glob.glob(_wild(pattern), include_hidden=True) if os.path.isfile(p)]


def _wild(pattern: str) -> str:
    return "".join(
        glob.escape(text) + ("" if name is None else "?*")
        for text, name, _, _ in string.Formatter().parse(pattern)
    )


def clear_leftovers(pattern: str) -> None:
    """Delete the staging files of a pattern that killed runs left."""
    folder, name = os.path.split(_wild(pattern))
    for place in glob.glob(folder) if folder else ["."]:
        with contextlib.suppress(OSError):  # It may not be a directory, or may be deleted.
            remove_leftovers_of(Path(place), re.compile(fnmatch.translate(name)).fullmatch)


def fill_pattern(
    pattern: str, epoch: int, batch: int | None, logs: Mapping[str, Any] | None
) -> str:
    """Return the path that a pattern currently gives.

    Args:
        pattern: The pattern.
        epoch: Zero-based epoch; `{epoch}` is one-based.
        batch: Zero-based batch, or `None` at the end of an epoch; `{batch}` is one-based.
        logs: Further values by name.

    Raises:
        FilepathKeyError: the pattern contains an unknown name.

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
            remedy="Use one of those, or pass `validation_data` to `fit()`.",
            key=str(error.args[0]),
            available=tuple(values),
        ) from error


def interrupted_path(
    pattern: str, epoch: int, batch: int | None, logs: Mapping[str, Any], suffix: str
) -> str:
    """Return the path of a model that is saved because training is interrupted.

    It differs from that of a regular save, so that the best model is not overwritten.

    >>> interrupted_path("runs/best.keras", 0, None, {}, ".keras")
    'runs/best-interrupted.keras'
    """
    marked = f"{pattern.removesuffix(suffix)}-interrupted{suffix}"
    try:
        return fill_pattern(marked, epoch, batch, logs)
    except FilepathKeyError:
        # There are no metrics yet, but the model must be saved now.
        return os.path.join(os.path.dirname(pattern), f"model-interrupted{suffix}")


def last_path(pattern: str, last: str | os.PathLike[str], suffix: str) -> str:
    """Return the second path of the newest file of a pattern.

    Args:
        pattern: The pattern.
        last: A file name in the directory of the pattern, or a path.
        suffix: Extension of the files.

    Raises:
        ArgumentError: it is a pattern, the same as `pattern`, or has another extension.

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
            f"`last` must be a file name that ends in {suffix!r} and differs from `filepath`.",
            received=f"last={name!r}, filepath={pattern!r}",
            remedy=f"Pass `last={f'last{suffix}'!r}`"
            + (", and a pattern like '{epoch:02d}" + suffix + "' as `filepath`." if same else "."),
        )
    return path


def record_in(path: str) -> Record | None:
    """Return the record of a file; `None` if it has none or it cannot be read."""
    try:
        with open_source(path) as source:
            return source.record
    except CkptError:
        return None

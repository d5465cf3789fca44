"""Convert path arguments to local paths; refuse URLs.

For the operating system, `gs://bucket/run` is a valid local path: a directory named `gs:`. A save
would succeed, and its files would be lost with the machine. So every path argument is checked here,
also `gs:/bucket/run`, which `pathlib` makes of it. `~` is replaced by the home directory.
"""

from __future__ import annotations

import os
import re
from typing import Any

from keras_ckpt_tools.errors import ArgumentError

# Two letters at least: one is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(::[A-Za-z0-9+.:-]+)?:/")
# `Path("gs://bucket").absolute()` hides the address behind the working directory.
_HIDDEN = re.compile(
    r"(.*/)(abfss?|adl|az|dbfs|file|ftps?|gcs|github|gs|hdfs|hf|https?|memory|oss|r2|s3[an]?|sftp"
    r"|ssh|wasbs?|webdavs?|webhdfs):/.*",
    re.DOTALL,
)


def local_path(path: Any, argument: str = "path") -> str:
    """Return a path as a string, with the home directory for `~`.

    Args:
        path: A string, or path-like.
        argument: What the argument is called, for the message.

    Raises:
        ArgumentError: it is an address (`gs://`, `s3://`, `hf://`, `memory://`, `file://`, ...).

    >>> local_path("runs/digits")
    'runs/digits'
    """
    # Some path-like objects are addresses to `str`, and `os.fspath` would fetch what is there.
    for shown in (str, _plain):
        name = shown(path)
        if _is_address(name):
            raise _remote(name, argument)
    return os.path.expanduser(name)


def _plain(path: Any) -> str:
    try:
        return os.fsdecode(path)
    except (TypeError, NotImplementedError):
        return str(path)


def _is_address(name: str) -> bool:
    if _ADDRESS.match(name) or "://" in name:
        return True
    hidden = _HIDDEN.fullmatch(name)
    # A folder of that name that is there may have been meant.
    return bool(hidden) and not os.path.isdir(f"{hidden[1]}{hidden[2]}:" if hidden else "")


def _remote(name: str, argument: str) -> ArgumentError:
    remedy = (
        "Pass a local or mounted directory, and copy what is in it to the other place, for example "
        "with `gcloud storage rsync`, `aws s3 sync` or `hf upload`."
    )
    if argument == "path":
        remedy = (
            f"Download the file first, and pass its path. To save: {remedy[0].lower()}{remedy[1:]}"
        )
    if re.match(r"file:/+", name):
        remedy = f"Pass the path itself: {re.sub(r'^file:/+', '/', name)!r}."
    return ArgumentError(
        f"`{argument}` is a URL, not a path. This package does not access remote storage.",
        received=f"{argument}={name!r}",
        remedy=remedy,
    )

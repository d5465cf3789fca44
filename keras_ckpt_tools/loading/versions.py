"""Who wrote a file, and what a load passes over in it: source -> *report*.

A file of a later Keras may name what this one does not have yet, and one of Keras 2 what Keras 3
has no longer. Whoever reads that a class is missing should hear of it in the same report.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from keras_ckpt_tools.formats.source import Source
from keras_ckpt_tools.loading.inspection import Problem
from keras_ckpt_tools.showing.messages import warn

__all__ = ["newer_than_here", "passed_over", "warn_of_passed_over", "writer"]

# No older Keras is supported, so what it wrote is not newer than the installed one.
_OLDEST = [3, 10]
# Members of an archive that are named.
_NAMED = 5


def newer_than_here(versions: Mapping[str, str]) -> list[Problem]:
    """Return a warning where a later Keras than the installed one wrote a file.

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


def passed_over(source: object) -> list[Problem]:
    """Return a warning for each thing of a file that a load passes over, or does without."""
    if not isinstance(source, Source):
        return []
    names = source.passed_over
    problems = []
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        problems.append(
            Problem(
                "warning",
                f"Passed over what is no part of the model: {', '.join(map(repr, names[:_NAMED]))}"
                f"{more}.",
                "Nothing that is loaded depends on it.",
            )
        )
    if source.lacks_metadata:
        problems.append(
            Problem(
                "warning",
                "It has no metadata.json, so which version of Keras wrote it is not known.",
                "It is read as a file of Keras 3.",
            )
        )
    return problems


def warn_of_passed_over(source: object, stacklevel: int) -> None:
    """Say in one line what a load has passed over; `stacklevel` as for `warnings.warn`."""
    if problems := passed_over(source):
        what = " ".join(problem.what for problem in problems)
        warn(f"{getattr(source, 'path', '')!r}: {what}", UserWarning, stacklevel=stacklevel)


def writer(versions: Mapping[str, str]) -> str:
    """Return a sentence on who wrote a file, where that may be why it does not load.

    >>> writer({"keras": "2.15.0"}).split(";")[0]
    'The file was written by Keras 2.15.0'
    """
    newer = newer_than_here(versions)
    if newer:
        return str(newer[0])
    theirs = versions.get("keras", "")
    if _numbers(theirs)[:1] in ([1], [2]):
        return (
            f"The file was written by Keras {theirs}; what Keras 3 cannot open, "
            "`pip install tf_keras` and `tf_keras.models.load_model` can."
        )
    return ""


def _installed(package: str) -> str:
    # Importing it takes a third of the time that looking at a file of ours does.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:3]]

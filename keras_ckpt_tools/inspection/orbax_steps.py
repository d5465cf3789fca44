"""Choose the step of an Orbax checkpoint to read.

Keras' `OrbaxCheckpoint` writes a directory for each step, without a metric. The newest step is
used; with `save_best_only=True` it is the best. Damaged steps are skipped with a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from keras_ckpt_tools.errors import ArgumentError, DamagedArtefactError
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Artefact, Kind
from keras_ckpt_tools.formats.open_source import open_source
from keras_ckpt_tools.formats.orbax import steps_in
from keras_ckpt_tools.formats.tensor_source import ModelSource
from keras_ckpt_tools.runs.choose import check_which
from keras_ckpt_tools.showing.messages import warn

_Result = TypeVar("_Result")


def steps_at(artefact: Artefact, which: str | int = "latest") -> list[Artefact]:
    """Return the matching steps of an Orbax checkpoint, the first choice first.

    Args:
        artefact: The directory of all steps, or of one.
        which: `"best"` or `"latest"` for the newest, or the number of a step.

    Raises:
        ArgumentError: there is no such step.
    """
    steps = steps_in(artefact.path)
    check_which(which)
    exact = which if isinstance(which, int) else None
    alone = os.path.basename(os.path.abspath(artefact.path))
    there = steps or ([int(alone)] if alone.isdecimal() else [])
    if exact is not None and there and exact not in there:
        raise ArgumentError(
            f"There is no step {which} in the directory.",
            received=f"which={which!r}, path={artefact.path!r}",
            remedy=f"Steps that are there: {', '.join(map(str, there))}.",
        )
    chosen = [exact] if exact is not None and steps else sorted(steps, reverse=True)
    paths = [os.path.join(artefact.path, str(step)) for step in chosen]
    return [Artefact(path, Kind.ORBAX, 0) for path in paths] or [artefact]


def with_step(
    artefact: Artefact, which: str | int, limits: Limits, use: Callable[[ModelSource], _Result]
) -> _Result:
    """Open a step of an Orbax checkpoint, and return the result of `use`.

    Args:
        artefact: The directory of all steps, or of one.
        which: See `steps_at`; for `"best"` and `"latest"`, the newest intact step.
        limits: Limits for reading it.
        use: Called with the open step.

    Raises:
        ArgumentError: there is no such step.
        DamagedArtefactError: no step is intact.
    """
    steps = steps_at(artefact, which)
    bad: list[str] = []
    for step in steps:
        name = os.path.basename(step.path)
        try:
            with open_source(step.path, step, limits) as source:
                result = use(source)
        except DamagedArtefactError as error:
            if len(steps) == 1:
                raise
            bad.append(f"{name}: {error.how}")
            continue
        if bad:
            warn(
                f"Using step {name} of {artefact.path!r}; skipped damaged ones: {'; '.join(bad)}.",
                UserWarning,
                stacklevel=4,
            )
        return result
    raise DamagedArtefactError(
        f"No step of the Orbax checkpoint is intact: {'; '.join(bad)}.",
        received=f"path={artefact.path!r}",
        remedy="Restore one from a copy.",
        path=artefact.path,
        how="; ".join(bad),
    )

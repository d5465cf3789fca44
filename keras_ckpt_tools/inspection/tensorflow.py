"""TensorFlow checkpoints as files: artefact -> *report*, without TensorFlow.

What `inspect` and `verify` do where they are handed one, a run's own or a stranger's.
"""

from __future__ import annotations

import dataclasses
import os
import warnings

from keras_ckpt_tools.errors import ArtefactError
from keras_ckpt_tools.formats.common.limits import Limits
from keras_ckpt_tools.formats.kinds import Artefact
from keras_ckpt_tools.formats.tensorflow.prefixes import prefix_of, prefixes_in, state_of_directory
from keras_ckpt_tools.inspection.report import Inspection, Problem
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.runs.listing import checkpoints_in
from keras_ckpt_tools.runs.tensorflow import RECORD, is_prefix

__all__ = ["inspect_tensorflow", "prefixes_to_verify", "problems_of_prefix"]


def inspect_tensorflow(artefact: Artefact, limits: Limits, newest: str | None = None) -> Inspection:
    """Say what a TensorFlow checkpoint holds: its tensors, and where training was.

    Tensors of a run's checkpoint have the paths of our other files; those of others have the paths
    of the program that wrote them (`model/layer_with_weights-0/kernel`).

    Args:
        artefact: A prefix, one of its files, or a directory.
        limits: What it may take.
        newest: Of a directory, the prefix that is meant. Default: the one that TensorFlow names.
    """
    found = Inspection(artefact.path, artefact.kind, artefact.size)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            prefix = newest or prefix_of(artefact.path)
        notes = tuple(
            Problem("warning", str(one.message), "Pass the prefix that is meant.") for one in told
        )
        if is_prefix(prefix):
            from keras_ckpt_tools.runs.tensorflow_source import open_run

            with open_run(prefix, limits) as source:
                return dataclasses.replace(
                    found,
                    versions=dict(source.record.versions),
                    progress=source.record.progress,
                    tensors=tuple(source.tensors.values()),
                    groups=source.record.names,
                    problems=notes,
                )
        from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint

        checkpoint = TfCheckpoint(prefix, limits)
        tensors = (
            dataclasses.replace(checkpoint.tensors[key], path=name)
            for key, name in checkpoint.paths.by_key.items()
        )
        return dataclasses.replace(
            found,
            progress=TrainingProgress(step=checkpoint.step()),
            tensors=tuple(tensors),
            problems=notes,
        )
    except ArtefactError as error:
        return dataclasses.replace(found, problems=(Problem.of(error),))


def prefixes_to_verify(artefact: Artefact) -> list[str]:
    """Return the checkpoints that an artefact means: of a directory all, else the one."""
    if not os.path.isdir(artefact.path):
        return [prefix_of(artefact.path)]
    saved, damaged = checkpoints_in(artefact.path)
    runs = [path for path in (*(one.path for one in saved), *dict(damaged)) if is_prefix(path)]
    return sorted({*runs, *prefixes_in(artefact.path)})


def problems_of_prefix(prefix: str) -> list[str]:
    """Read every byte of a checkpoint; return what is wrong with it, as sentences."""
    try:
        if is_prefix(prefix):
            from keras_ckpt_tools.runs.tensorflow_source import open_run

            with open_run(prefix) as source:
                return source.problems()
        from keras_ckpt_tools.formats.tensorflow.checkpoint import TfCheckpoint

        return list(TfCheckpoint(prefix).bundle.problems())
    except ArtefactError as error:
        return [error.what]


def gone_from(directory: str) -> list[str]:
    """Return what is wrong with the file `checkpoint` of a directory, as sentences."""
    named = state_of_directory(directory)[:1]
    if not named or os.path.isfile(os.path.join(directory, f"{named[0]}.index")):
        return []
    return [f"it names {named[0]!r}, and that checkpoint is not there"]


def size_of_prefix(prefix: str) -> int:
    """Return the bytes of the files of a checkpoint."""
    folder, name = os.path.split(os.path.abspath(prefix))
    return sum(
        entry.stat().st_size
        for entry in os.scandir(folder)
        if entry.name in (f"{name}.index", f"{name}{RECORD}")
        or entry.name.startswith(f"{name}.data-")
    )

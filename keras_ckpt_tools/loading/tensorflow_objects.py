"""TensorFlow checkpoints into live objects: artefact -> source -> compare -> *fill*.

What `load_weights` and `compare` do where they are handed one. Nothing is ever put off until an
object happens to have variables, as TensorFlow's own `restore` does in silence: what is not built
is built where the checkpoint says enough for that, or refused.
"""

from __future__ import annotations

from typing import Any

from keras_ckpt_tools.formats.kinds import Artefact, Kind
from keras_ckpt_tools.formats.limits import Limits
from keras_ckpt_tools.formats.targets import Target
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.formats.tf_checkpoint import TfCheckpoint, prefix_of
from keras_ckpt_tools.formats.tf_match import match_target
from keras_ckpt_tools.formats.tf_run import is_prefix


def run_prefix(artefact: Artefact) -> str | None:
    """Return the prefix of a TensorFlow checkpoint that one of our runs wrote, `None` of others."""
    if artefact.kind is not Kind.TF_CHECKPOINT:
        return None
    prefix = prefix_of(artefact.path)
    return prefix if is_prefix(prefix) else None


def open_tensorflow(
    artefact: Artefact, target: Any, limits: Limits, *, build: bool = True
) -> tuple[Target, TensorSource]:
    """Match a TensorFlow checkpoint with live objects.

    Args:
        artefact: A prefix, one of its files, or a directory.
        target: What it is for: a model, optimizer, module, variable, or a list or dict of these.
        limits: What it may take.
        build: Whether optimizers without state are built on what they were built on.

    Returns:
        The target, and the tensors that belong to it by its paths.

    Raises:
        NotBuiltError: something has no variables yet.
        ArgumentError: the target has something that cannot be restored.
        ArtefactNotFoundError: the checkpoint that is named is not there.
        ArtefactKindError: there are several objects in it that may be meant.
        DamagedArtefactError: it cannot be read.
        OverBudgetError: it takes more than it may.
    """
    checkpoint = TfCheckpoint(prefix_of(artefact.path), limits)
    parts = Target(target)
    return parts, match_target(checkpoint, parts, build=build)

"""Compare what an object needs with what a checkpoint has: source + model -> *report*.

Works on names, shapes and dtypes alone, so it needs neither Keras nor the bytes of a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keras_ckpt_tools.errors import RestoreError
from keras_ckpt_tools.formats.report import Mismatch, RestoreReport, suggest_renames
from keras_ckpt_tools.metadata import TensorInfo

OPTIMIZER_GROUP = "optimizer/"
# State of seed generators (dropout, augmentation). Keras does not save it; readers of Keras pass
# over the group.
RANDOM_GROUP = "random_state/"

_REMEDY = (
    "Build the model with the arguments it was saved with, or load what fits with "
    "`kct.load_weights(model, path, strict=False)`."
)


def compare_tensors(
    path: str,
    expected: Mapping[str, TensorInfo],
    found: Mapping[str, TensorInfo],
    *,
    optimizer_may_differ: bool = True,
) -> RestoreReport:
    """Compare what an object needs with what a checkpoint has.

    Args:
        path: Name of the checkpoint, for the report.
        expected: Tensors of the object.
        found: Tensors of the checkpoint.
        optimizer_may_differ: Whether optimizer state that only one side has is set apart as
            skipped, as for a model that was compiled on one side only.
    """
    if not any(p.startswith(RANDOM_GROUP) for p in found):
        expected = {p: info for p, info in expected.items() if not p.startswith(RANDOM_GROUP)}
    missing = [p for p in expected if p not in found]
    unexpected = [p for p in found if p not in expected]
    skipped: list[str] = []
    if optimizer_may_differ and _only_on_one_side(OPTIMIZER_GROUP, expected, found):
        skipped = [p for p in (*missing, *unexpected) if p.startswith(OPTIMIZER_GROUP)]
        missing = [p for p in missing if p not in skipped]
        unexpected = [p for p in unexpected if p not in skipped]
    shape, dtype, matched = [], [], []
    for name in expected:
        if name not in found:
            continue
        ours, theirs = expected[name], found[name]
        if ours.shape != theirs.shape:
            shape.append(Mismatch(name, str(theirs.shape), str(ours.shape)))
        elif ours.dtype != theirs.dtype:
            dtype.append(Mismatch(name, theirs.dtype, ours.dtype))
        else:
            matched.append(name)
    return RestoreReport(
        path=path,
        matched=tuple(matched),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        shape_mismatch=tuple(shape),
        dtype_mismatch=tuple(dtype),
        skipped_optimizer=tuple(skipped),
        suggestions=suggest_renames(
            {p: expected[p].shape for p in missing}, {p: found[p].shape for p in unexpected}
        ),
    )


def _only_on_one_side(prefix: str, one: Iterable[str], other: Iterable[str]) -> bool:
    return any(p.startswith(prefix) for p in one) != any(p.startswith(prefix) for p in other)


def misfit(
    report: RestoreReport,
    refused: Iterable[tuple[Any, Exception]] = (),
    remedy: str = _REMEDY,
    differences: Iterable[str] = (),
) -> RestoreError:
    """Return the error that says what does not fit.

    Args:
        report: The tensors.
        refused: Layers, and why they refused their state.
        remedy: What to do.
        differences: What else there is, as sentences.
    """
    others = "".join(f"\n  differs   {sentence}" for sentence in differences)
    reasons = "".join(
        f"\n  refused   {getattr(s, 'name', None) or s!r}: {error}" for s, error in refused
    )
    return RestoreError(
        "The checkpoint and the model do not fit; nothing was changed.\n"
        f"{report}{reasons}{others}\n",
        received=f"path={report.path!r}",
        remedy=remedy,
        path=report.path,
        report=report,
    )

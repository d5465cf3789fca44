"""The arguments of an `ArrayDataset`, checked at once: what is wrong, all of it, before any epoch.

A source that cannot be indexed, or targets that are one too short, would otherwise show after
hours, in the batch that needs it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_ckpt_tools.data.positions import is_whole_number
from keras_ckpt_tools.data.rows import leaves, take
from keras_ckpt_tools.errors import ArgumentError

_PIPELINE = "put the pipeline into a function of the epoch, `kct.data.resumable(fn)`"
_MATERIALIZE = "collect it into arrays with `np.stack(list(...))`"


def check_arguments(data: Mapping[str, Any], **options: Any) -> None:
    """Raise one error for all that cannot work.

    Args:
        data: `x`, and `y` and `sample_weight` where they are given.
        **options: The other arguments of `ArrayDataset`, by name.

    Raises:
        ArgumentError: Something cannot work.
    """
    problems = [*_problems_of_data(data), *_problems_of_options(**options)]
    if not problems:
        samples = len(next(leaves(data["x"], "x"))[1])
        if options["drop_remainder"] and samples < options["batch_size"]:
            problems.append(
                f"with drop_remainder=True, batch_size={options['batch_size']} leaves no batch of "
                f"{samples} samples: use a smaller one"
            )
    if problems:
        raise ArgumentError(
            "An ArrayDataset cannot be made of this:\n  * " + "\n  * ".join(problems) + "\n",
            remedy="Change what is listed.",
        )


def _problems_of_data(data: Mapping[str, Any]) -> Iterator[str]:
    lengths: dict[str, int] = {}
    for name, structure in data.items():
        found = list(leaves(structure, name))
        if not found:
            yield f"{name} holds no array"
        for place, leaf in found:
            problem = _problem_of(leaf)
            if problem:
                yield f"{place} {problem}"
            else:
                lengths[place] = len(leaf)
    if "sample_weight" in data and "y" not in data:
        yield "sample_weight is given and y is not: there is no loss to weigh"
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{place} has {length}" for place, length in lengths.items())
        yield f"all need the same number of samples: {each}"
    elif 0 in lengths.values():
        yield f"there are no samples in {', '.join(lengths)}"


def _problem_of(leaf: Any) -> str | None:
    """Return why rows cannot be taken from a leaf, or `None`."""
    kind = f"is a {type(leaf).__name__}"
    if isinstance(leaf, keras.utils.PyDataset):
        return f"{kind}, which makes batches already: pass it to `fit()` as it is"
    if _is_tf_dataset(leaf):
        return f"{kind}: {_PIPELINE}"
    if inspect.isgenerator(leaf) or (hasattr(leaf, "__iter__") and not _can_be_indexed(leaf)):
        return f"{kind}, which cannot be begun anywhere but at its start: {_MATERIALIZE}"
    if isinstance(leaf, (str, bytes)) or not _can_be_indexed(leaf):
        return f"is {leaf!r:.40}, not an array; a list of values becomes one by `np.asarray(...)`"
    try:
        if len(leaf) and len(take(leaf, np.array([0]))) != 1:
            return f"{kind}: an array of one index does not give one row"
    except Exception as error:  # noqa: BLE001 - whatever a source of the user's may raise
        return f"{kind} and cannot be indexed with an array of integers: {error!r:.200}"
    return None


def _can_be_indexed(leaf: Any) -> bool:
    try:
        len(leaf)
    except TypeError:
        return False
    return hasattr(leaf, "__getitem__")


def _is_tf_dataset(leaf: Any) -> bool:
    import tensorflow as tf

    return isinstance(leaf, tf.data.Dataset)


def _problems_of_options(
    *,
    batch_size: Any,
    shuffle: Any,
    seed: Any,
    drop_remainder: Any,
    workers: Any,
    max_queue_size: Any,
) -> Iterator[str]:
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("workers", workers, 0),
        ("max_queue_size", max_queue_size, 1),
    ):
        if not is_whole_number(value) or value < least:
            yield f"{name}={value!r} has to be an integer of at least {least}"
    for name, value in (("shuffle", shuffle), ("drop_remainder", drop_remainder)):
        if not isinstance(value, (bool, np.bool_)):
            yield f"{name}={value!r} has to be True or False"
    if seed is not None and (not is_whole_number(seed) or seed < 0):
        yield f"seed={seed!r} has to be a non-negative integer"
    elif seed is None and shuffle is True:
        yield (
            "shuffle=True needs a seed, because without one no other process could make the same "
            "order, and a resumed run would train on other batches: pass any integer, such as "
            "seed=0"
        )

"""Save the state of a tf.data iterator as bytes, and restore it.

TensorFlow serializes iterators only for its own checkpoints. The same two operations are used here,
so that the state can be part of a run's checkpoint. It contains the state of each stage of the
pipeline, by position: the elements in `shuffle` buffers, random state, counters. It does not
contain the pipeline, so the program has to create the same one before it restores; only the element
spec can be compared.

TensorFlow parses these bytes in C++. So they have a digest, and only bytes that were written here
are passed to it.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import tensorflow as tf
import xxhash

from keras_ckpt_tools.errors import ArgumentError, CkptError, DamagedArtefactError, RestoreError

_MAGIC = b"kct-iterator-1\n"
_DIGEST_BYTES = 16
# `tf.data.experimental.ExternalStatePolicy.FAIL`: refuse what could not be restored.
_FAIL = 2
_WHERE = "<state of a tf.data iterator>"


def iterator_state(iterator: Any) -> bytes:
    """Return where a tf.data iterator is.

    Args:
        iterator: `iter(dataset)` of a `tf.data.Dataset`, made outside of tf.function.

    Returns:
        Bytes for `restore_iterator`, in this process or another.

    Raises:
        ArgumentError: It is no such iterator, or part of its pipeline has state that TensorFlow
            cannot save: Python code (`from_generator`, `py_function`), or random numbers of a
            `map` that are not stateless.

    Example:

    >>> import tensorflow as tf
    >>> dataset = tf.data.Dataset.range(9).shuffle(4, seed=1)
    >>> iterator = iter(dataset)
    >>> _ = next(iterator)
    >>> state = iterator_state(iterator)
    >>> goes_on = [int(x) for x in iterator]
    >>> restored = iter(dataset)
    >>> restore_iterator(restored, state)
    >>> [int(x) for x in restored] == goes_on
    True
    """
    resource = _resource_of(iterator)
    try:
        variant = _serialized(resource)
    except tf.errors.OpError as error:
        raise ArgumentError(
            f"TensorFlow cannot save the state of this iterator: {error.message:.400}",
            received=f"iterator={iterator!r}",
            remedy="Save where the run is in place of it: make the pipeline a function of the "
            "epoch with `kct.data.resumable`, and iterate over that with `manager.batches`.",
        ) from error
    # One by one, as TensorFlow does it: a message of protobuf ends at 2 GB.
    parts = [tf.io.serialize_tensor(part).numpy() for part in tf.unstack(variant)]
    header = {
        "element_spec": repr(iterator.element_spec),
        "tensorflow": tf.__version__,
        "parts": [len(part) for part in parts],
    }
    content = b"".join([json.dumps(header).encode(), b"\n", *parts])
    return _MAGIC + xxhash.xxh3_128_digest(content) + content


def restore_iterator(iterator: Any, state: bytes) -> None:
    """Let a tf.data iterator go on where another was.

    Args:
        iterator: `iter(dataset)` of the same pipeline as the one that was saved.
        state: What `iterator_state` returned.

    Raises:
        ArgumentError: It is no tf.data iterator.
        DamagedArtefactError: The state is incomplete.
        RestoreError: The state is that of another pipeline. The iterator is as it was.
    """
    resource = _resource_of(iterator)
    header, parts = _opened(state)
    expected = repr(iterator.element_spec)
    if header["element_spec"] != expected:
        raise _does_not_fit(
            f"elements: expected {expected}, found {header['element_spec']}", header
        )
    variant = tf.stack([tf.io.parse_tensor(part, tf.variant) for part in parts])
    try:
        # TensorFlow may leave an iterator at its end when it finds that a state does not fit.
        before = _serialized(resource)
        try:
            tf.raw_ops.DeserializeIterator(resource_handle=resource, serialized=variant)
        except tf.errors.OpError:
            tf.raw_ops.DeserializeIterator(resource_handle=resource, serialized=before)
            raise
    except tf.errors.OpError as error:
        raise _does_not_fit(f"{error.message:.400}", header) from error


def _serialized(resource: Any) -> Any:
    return tf.raw_ops.SerializeIterator(resource_handle=resource, external_state_policy=_FAIL)


def _resource_of(iterator: Any) -> Any:
    # The class does not show an iterator of a `resumable`: its pipeline is that of one epoch.
    dataset = getattr(iterator, "_dataset", None)
    if type(iterator) is not tf.data.IteratorSpec(tf.TensorSpec(())).value_type or dataset is None:
        raise ArgumentError(
            "The state of this object is not that of a tf.data iterator.",
            received=f"iterator={type(iterator).__name__}",
            remedy="Pass `iter(dataset)` of a tf.data.Dataset. An iterator of `kct.data.resumable` "
            "has no state beyond its epoch and batch: use `dataset.start(epoch, batch)`, or "
            "`manager.batches(dataset)`, which calls it.",
        )
    return iterator._iterator_resource


def _opened(state: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return the header and the parts of a state, once its digest is seen to be right."""
    begin = len(_MAGIC) + _DIGEST_BYTES
    digest, content = bytes(state[len(_MAGIC) : begin]), bytes(state[begin:])
    if state[: len(_MAGIC)] != _MAGIC or xxhash.xxh3_128_digest(content) != digest:
        raise DamagedArtefactError(
            "The state of the tf.data iterator is incomplete or damaged.",
            received=f"{len(state)} bytes",
            remedy="Restore an earlier checkpoint.",
            path=_WHERE,
            how="bytes of it are missing or have changed",
        )
    head, _, body = content.partition(b"\n")
    header = json.loads(head)
    ends = list(itertools.accumulate(header["parts"], initial=0))
    return header, [body[a:b] for a, b in itertools.pairwise(ends)]


def _does_not_fit(difference: str, header: dict[str, Any]) -> CkptError:
    return RestoreError(
        f"The state is not that of this iterator's pipeline. {difference}.",
        received=f"a state written by TensorFlow {header['tensorflow']}, restored by "
        f"{tf.__version__}",
        remedy="Make the same pipeline as the run that was saved had, in the same version of "
        "TensorFlow, and restore it right after `iter(dataset)`.",
        path=_WHERE,
        report=None,
    )

"""Write and commit a TensorFlow checkpoint of a run: snapshot -> *write, commit* -> keep.

Data, index and record are staged together and moved into place in this order; the record commits.
Only then does the file `checkpoint` name it, so whoever goes by that file finds one that is whole.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_ckpt_tools.formats.common.finite import spoiled, worst_in
from keras_ckpt_tools.formats.kinds import TENSORFLOW as STATE
from keras_ckpt_tools.formats.record.userblock import block_size, digest_of, encode, encode_json
from keras_ckpt_tools.formats.tensorflow.bundle_writer import write_bundle
from keras_ckpt_tools.formats.tensorflow.checkpoint import GRAPH
from keras_ckpt_tools.formats.tensorflow.recorded import DATA, INDEX, RECORD, SUFFIXES
from keras_ckpt_tools.metadata import Record
from keras_ckpt_tools.runs.tensorflow import write_state
from keras_ckpt_tools.storage.commit_set import staged_set

# What belongs to nothing tracked stands in the record under a name that no such thing can have.
_OTHERS = "_tensorflow/"


def commit_run(
    prefix: str,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    paths: Mapping[str, str],
    graph: bytes,
    record: Record,
) -> Record:
    """Write one checkpoint, and commit it.

    Args:
        prefix: Where to.
        arrays: The tensors, by TensorFlow's key.
        paths: What they are called in the record, by that key.
        graph: The graph of objects.
        record: What else the record says.

    Returns:
        The record as it stands in the file.

    Raises:
        CommitError: the operating system refused. Nothing is left of it, unless it is in place.
    """
    with staged_set(prefix, SUFFIXES) as files:
        data = files[DATA]
        index, infos, text = write_bundle(data.write, arrays, graph, GRAPH)
        files[INDEX].write(index)
        tensors = tuple(
            dataclasses.replace(info, path=paths.get(key, f"{_OTHERS}{key}"))
            for key, info in infos.items()
        )
        worst = {paths[key]: worst_in(array) for key, array in arrays.items() if key in paths}
        record = dataclasses.replace(
            record,
            not_finite=spoiled({path: what for path, what in worst.items() if what}, record),
            tensors=tensors,
            skeleton_digest=digest_of(text),
            size=data.tell(),
            state={STATE: {"index": digest_of(index)}},
        )
        files[RECORD].write(encode(record, block_size(len(encode_json(record)))))
    write_state(os.path.dirname(os.path.abspath(prefix)))
    return record

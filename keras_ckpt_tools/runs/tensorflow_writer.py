"""Write and commit a TensorFlow checkpoint of a run.

Data, index and record are staged together and moved into place in this order; the record commits.
The file `checkpoint` names it only after that, so it always names a complete checkpoint.
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

# State of no tracked object has a name in the record that no tracked object can have.
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
        prefix: Prefix of the checkpoint.
        arrays: The tensors, by TensorFlow's key.
        paths: The names of the tensors in the record, by that key.
        graph: The object graph.
        record: The record without the tensors.

    Returns:
        The record as written to the file.

    Raises:
        CommitError: the operating system refused. No file is left, unless it was committed.
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

"""The table of tensors is the same, made entry by entry or from what stays."""

from __future__ import annotations

import dataclasses

import pytest

from keras_ckpt_tools.formats.record.tensor_table import Rows, TensorTable
from keras_ckpt_tools.formats.record.userblock import encode_json
from keras_ckpt_tools.metadata import Record, TensorInfo, TrackedObject

_INFOS = [
    TensorInfo("layers/dense/vars/0", (3, 4), "float32", 4096, 48),
    TensorInfo('odd "name"/vars/ä', (), "bfloat16", 4160, 2),
    TensorInfo("empty", (0, 2), "int8", None, 0),
]
_DIGESTS = [f"{n:032x}" for n in range(3)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_record_has_the_same_bytes_with_either(count: int) -> None:
    """Also where something else in it looks like an empty table."""
    infos, digests = _INFOS[:count], _DIGESTS[:count]
    table = TensorTable(Rows(infos), digests)
    plain = tuple(
        dataclasses.replace(info, digest=digest)
        for info, digest in zip(infos, digests, strict=True)
    )
    tracked = {"a": TrackedObject("state", state={"b": 1, "tensors": [], "c": ',"tensors":[]'})}
    record = Record("checkpoint", tracked=tracked, tensors=plain, size=9)
    assert encode_json(dataclasses.replace(record, tensors=table)) == encode_json(record)
    assert dataclasses.replace(record, tensors=table) == record


def test_it_is_a_sequence_of_entries() -> None:
    """Who looks into it finds what a file would say."""
    table = TensorTable(Rows(_INFOS), _DIGESTS)
    assert len(table) == 3
    assert table[1] == dataclasses.replace(_INFOS[1], digest=_DIGESTS[1])
    assert table[1:] == tuple(table)[1:]
    assert [info.digest for info in table] == _DIGESTS
    assert table != TensorTable(Rows(_INFOS), _DIGESTS[::-1])

"""The table of tensors in a record, where only the digests change between saves.

The entries are created once for each structure, as values and as JSON with placeholders for the
digests, which each save fills in.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

from keras_ckpt_tools.metadata import TensorInfo


class Rows:
    """What the table of each file of one structure has in common."""

    def __init__(self, infos: Sequence[TensorInfo]):
        self.infos = tuple(infos)
        # The digest is what an entry ends with.
        self.begins = [_json(info).removesuffix('"}') for info in self.infos]


class TensorTable(Sequence[TensorInfo]):
    """The tensors of one file, in the order of the file.

    Example:

    >>> rows = Rows([TensorInfo("vars/0", (2,), "float32", 512, 8)])
    >>> table = TensorTable(rows, ["ab" * 16])
    >>> json.loads(table.json())[0] == table[0].to_json() | {"shape": [2]}
    True
    """

    def __init__(self, rows: Rows, digests: Sequence[str]):
        self._rows = rows
        self._digests = digests

    def json(self) -> str:
        """Return the table as it stands in a record."""
        entries = '"},'.join(map(operator.add, self._rows.begins, self._digests))
        return f'[{entries}"}}]' if entries else "[]"

    @overload
    def __getitem__(self, index: int) -> TensorInfo: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TensorInfo, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self)[index]
        return replace(self._rows.infos[index], digest=self._digests[index])

    def __len__(self) -> int:
        return len(self._digests)

    def __iter__(self) -> Iterator[TensorInfo]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


def _json(info: TensorInfo) -> str:
    return json.dumps(info.to_json(), separators=(",", ":"))

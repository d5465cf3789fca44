"""Read the index of sharded weights.

`model.save_weights("w.weights.json", max_shard_size=...)` writes several `.weights.h5` files, the
shards, and a JSON object that names the shards of each group of variables. The shards are in the
directory of the index. Their names are untrusted, so a name that leads out of this directory is
refused before anything is opened.

If a group spans several shards, Keras 3.10 names only the first, and cannot load such files itself.
The others are found from the total size of all tensors in the index, and from Keras' numbering of
shards.

Source: `ShardedH5IOStore` in `keras/src/saving/saving_lib.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_ckpt_tools.errors import CkptError, UnsafeArtefactError, damaged
from keras_ckpt_tools.formats.common.bounded_json import parse_object
from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.common.safe_open import open_regular, read_all

ENDING = ".weights.json"
# Each is looked at by a process of its own; the largest models have some hundreds.
_MOST_SHARDS = 1000
INDEX_MEMBER = f"model{ENDING}"

_SHARD = re.compile(r"(.+)_(\d{5})\.weights\.h5", re.DOTALL)
_MAP = "weight_map"
_AGAIN = "Fetch or copy it again."
_HDF5 = (".h5", ".hdf5")


@dataclass(frozen=True)
class ShardIndex:
    """Which shards there are, and what is in them.

    Attributes:
        groups: The names of the shards of each group of variables.
        total_bytes: What all tensors take together by Keras' count, or `None`.
        complete: Whether it is known to name all shards, as it has lists of them.
    """

    groups: Mapping[str, tuple[str, ...]]
    total_bytes: float | None = None
    complete: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any], path: str, limits: Limits) -> ShardIndex:
        """Read an index from its JSON.

        Raises:
            DamagedArtefactError: it is none that Keras writes.
            UnsafeArtefactError: it names a file outside of its folder.
            OverBudgetError: it names too many.
        """
        groups: dict[str, tuple[str, ...]] = {}
        for group, named in data[_MAP].items():
            shards = tuple(named) if isinstance(named, list) else (named,)
            if not shards or not all(isinstance(name, str) and name for name in shards):
                raise damaged(path, f"its index does not name files for {group[:100]!r}", _AGAIN)
            groups[group.strip("/")] = shards
        complete = any(isinstance(named, list) for named in data[_MAP].values())
        index = cls(groups, _total(data), complete)
        _require_plain(index.shards, path)
        most = min(limits.members, _MOST_SHARDS)
        if len(index.shards) > most:
            raise over_budget(path, "it has", "members", len(index.shards), most)
        return index

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of the shards, each once."""
        return tuple(dict.fromkeys(name for names in self.groups.values() for name in names))

    def unnamed(self, there: Iterable[str]) -> list[str]:
        """Return which of the files of a folder Keras may have written as shards as well."""
        named = set(self.shards)
        bases = {match[1] for name in named if (match := _SHARD.fullmatch(name))}
        if self.complete or len(bases) != 1:
            return []
        found = {
            int(match[2]): name for name in there if (match := _SHARD.fullmatch(name))
            and match[1] in bases
        }  # fmt: skip
        following: list[str] = []
        while len(following) in found:  # Keras numbers them from 0, without a gap.
            following.append(found[len(following)])
        return [name for name in following if name not in named]


def is_index(data: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is the index of sharded weights of Keras.

    Other libraries have such indexes as well, of files of other kinds.

    >>> is_index({"weight_map": {"/layers/dense/vars": "w_00000.weights.h5"}})
    True
    >>> is_index({"weight_map": {"dense.weight": "model-00001-of-00002.safetensors"}})
    False
    """
    groups = data.get(_MAP)
    if not isinstance(groups, dict):
        return False
    first = next(iter(groups.values()), "")
    name = first[0] if isinstance(first, list) and first else first
    known = isinstance(name, str) and name.endswith(_HDF5)
    return known or all(group.startswith("/") for group in groups)


def read_index(path: str, limits: Limits | None = None) -> ShardIndex | None:
    """Return the index at a path, or `None` where it is none or cannot be used."""
    limits = limits or Limits.of()
    try:
        descriptor = open_regular(path)
        if descriptor is None:
            return None
        data = parse_object(read_all(descriptor, limits.json_bytes), "index", path, limits)
        return ShardIndex.of(data, path, limits) if is_index(data) else None
    except (OSError, CkptError):
        return None


def shards_named_by(folder: str, names: Iterable[str]) -> frozenset[str]:
    """Return the names of files in a folder that an index in it has as shards."""
    names = tuple(names)
    found: set[str] = set()
    for name in names:
        if not name.endswith(ENDING) or name.startswith("."):
            continue
        index = read_index(os.path.join(folder, name))
        if index is not None:
            found |= {*index.shards, *index.unnamed(names)}
    return frozenset(found)


def index_beside(path: str) -> str | None:
    """Return the index that has a file as one of its shards, or `None`."""
    folder, name = os.path.split(path)
    match = _SHARD.fullmatch(name)
    if match is None:
        return None
    place = os.path.join(folder, f"{match[1]}{ENDING}")
    index = read_index(place) if os.path.isfile(place) else None
    if index is None:
        return None
    return place if name in (*index.shards, *index.unnamed(os.listdir(folder or "."))) else None


def _total(data: Mapping[str, Any]) -> float | None:
    noted = data.get("metadata")
    total = noted.get("total_size") if isinstance(noted, dict) else None
    if isinstance(total, bool) or not isinstance(total, (int, float)):
        return None
    return float(total) if 0 < total < 1 << 62 else None


def _is_plain(name: str) -> bool:
    """Return whether a name is that of a file in the folder, as Keras makes such names."""
    return name not in (".", "..") and name.isprintable() and not set(name) & {"/", "\\"}


def _require_plain(names: Iterable[str], path: str) -> None:
    bad = [name for name in names if not _is_plain(name)]
    if bad:
        listed = ", ".join(repr(name[:100]) for name in bad[:5])
        raise UnsafeArtefactError(
            f"Refused, because its index names files outside its directory: {listed}.",
            received=f"path={path!r}",
            remedy="Get the original files, as Keras saved them, from their source.",
            path=path,
        )

"""What a `.keras` holds beside weights: model -> *documents* -> write.

Keras describes the model and walks it for the files that layers save, anew at each save. For 1,000
layers that takes a second. It is not kept from save to save all the same: whether a description
still holds cannot be known without making it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.formats.walk import save_state

ASSETS_FOLDER = "assets"


@dataclass(frozen=True)
class Documents:
    """What a `.keras` holds beside weights.

    Attributes:
        config: `config.json`, as Keras writes it.
        metadata: `metadata.json`, likewise.
        assets: Files that layers saved (vocabularies), by their name in the archive.
    """

    config: str
    metadata: str
    assets: Mapping[str, bytes]


def documents_of(model: Any) -> Documents:
    """Return the present documents of a model."""
    config, metadata = internals.serialize_model_as_json(model)
    return Documents(config, metadata, _assets_of(model))


def _assets_of(model: Any) -> dict[str, bytes]:
    store = internals.DiskIOStore(ASSETS_FOLDER, mode="w")
    try:
        save_state(
            model,
            weights_store=_NoWeights(),
            assets_store=store,
            visited_saveables=set(),
        )
        root = Path(store.working_dir)
        files = (path for path in sorted(root.rglob("*")) if path.is_file())
        return {f"{ASSETS_FOLDER}/{p.relative_to(root).as_posix()}": p.read_bytes() for p in files}
    finally:
        store.close()


class _NoWeights(internals.H5IOStore):
    """Keras before 3.12 insists on a weights store even where only assets are saved."""

    def __init__(self) -> None:
        """Open nothing."""

    def __bool__(self) -> bool:
        return False

"""What a `.keras` holds beside weights: model -> *documents* -> write.

Keras describes the model, which for 1,000 layers takes a third of a second; the description is kept
for as long as the fingerprint of the model says that it would be the same. The files that layers
save (vocabularies) are asked for at each save, where there are layers that save any.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import keras

from keras_ckpt_tools import _keras_internals as internals
from keras_ckpt_tools.formats.contents import Documents
from keras_ckpt_tools.formats.fingerprint import Fingerprint, fingerprint
from keras_ckpt_tools.formats.walk import save_state

__all__ = ["ASSETS_FOLDER", "Describer", "Documents"]

ASSETS_FOLDER = "assets"


class Describer:
    """Describes one model again and again. Holds on to the model's parts."""

    def __init__(self) -> None:
        self._fingerprint: Fingerprint | None = None
        self._config = ""

    def describe(self, model: Any, *, has_assets: bool) -> Documents:
        """Return the present documents of a model.

        Args:
            model: The model.
            has_assets: Whether anything in it saves files.
        """
        if self._fingerprint is None or not self._fingerprint.still_holds(model):
            found = fingerprint(model)
            if found is None or found != self._fingerprint:
                self._config, _ = internals.serialize_model_as_json(model)
            self._fingerprint = found
        return Documents(self._config, _metadata(), _assets_of(model) if has_assets else {})


def _metadata() -> str:
    now = time.strftime("%Y-%m-%d@%H:%M:%S")
    return json.dumps({"keras_version": keras.__version__, "date_saved": now})


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

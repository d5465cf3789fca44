"""Write one file of each kind that this version of the package writes, into a folder of its name.

Run it once for each release, with the oldest supported Keras, so that all supported ones open what
it wrote:

    .venv-oldest/bin/python tests/files/make.py

A folder that is there is left alone: remove it to make that of an unreleased version again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "helpers"), str(TESTS.parent)]

import collection  # noqa: E402 (the path to it is set above)
import keras  # noqa: E402

import keras_ckpt_tools as kct  # noqa: E402


def make(folder: Path) -> None:
    """Write all files, and `expected.json`."""
    keras.utils.set_random_seed(collection.SEED)
    kct.register("kept")(collection.Scale)
    expected = {}
    words, numbers = collection.reader(), collection.numeric()
    callbacks = [
        kct.ModelCheckpoint(folder / "reader.keras", monitor="loss"),
        kct.ModelCheckpoint(folder / "reader.weights.h5", save_weights_only=True),
    ]
    words.fit(
        collection.WORDS, collection.TARGETS, batch_size=1, epochs=2, verbose=0, callbacks=callbacks
    )
    callbacks = [
        kct.ModelCheckpoint(folder / "numeric.h5"),
        kct.BackupAndRestore(folder / "backup", delete_checkpoint=False),
    ]
    numbers.fit(
        collection.NUMBERS,
        collection.TARGETS,
        batch_size=1,
        epochs=2,
        verbose=0,
        callbacks=callbacks,
    )
    objects = collection.tracked()
    manager = kct.CheckpointManager(folder / "run", **objects, monitor="loss", mode="min")
    for _ in manager.epochs(1):
        collection.change(objects)
        manager.log(loss=0.25)
    for name, model in (
        ("reader.keras", words),
        ("reader.weights.h5", words),
        ("numeric.h5", numbers),
        ("backup", numbers),
    ):
        expected[name] = {"holds": {"model": collection.held(model)}}
    expected["run"] = {"holds": {name: collection.held(item) for name, item in objects.items()}}
    for name, entry in expected.items():
        entry["progress"] = collection.progress_of(folder / name)
    text = json.dumps(
        {"keras": keras.__version__, "keras_ckpt_tools": kct.__version__, "files": expected},
        indent=1,
    )
    (folder / collection.EXPECTED).write_text(f"{text}\n", encoding="utf-8")


def main() -> None:
    """Make the folder of this version, whole or not at all."""
    folder = collection.FOLDER / kct.__version__
    if folder.exists():
        sys.exit(f"{folder} is there: files of a release stay as they were written.")
    with tempfile.TemporaryDirectory(dir=collection.FOLDER) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        make(made)
        shutil.move(made, folder)


if __name__ == "__main__":
    main()

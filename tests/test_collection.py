"""Files that earlier versions wrote open in this one, with what they held, and in stock Keras.

The folders in `tests/files` are made by `tests/files/make.py`, one for each version.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import collection
import keras
import pytest
from collection import FOLDER, held

import keras_ckpt_tools as kct

VERSIONS = sorted(path.parent.name for path in FOLDER.glob(f"*/{collection.EXPECTED}"))
NAMES = ("reader.keras", "reader.weights.h5", "numeric.h5", "backup", "run")
MODELS: dict[str, Callable[[], keras.Model]] = {
    "reader.weights.h5": collection.reader,
    "backup": collection.numeric,
}

each_version = pytest.mark.parametrize("version", VERSIONS)


def entry(version: str, name: str) -> Any:
    """Return what is to be expected of a file of a version."""
    text = (FOLDER / version / collection.EXPECTED).read_text(encoding="utf-8")
    return json.loads(text)["files"][name]


def file_in(path: Path) -> Path:
    """Return the one checkpoint of a directory, or the file itself."""
    return next(path.glob("ckpt-*")) if path.is_dir() else path


def fresh(name: str) -> keras.Model:
    """Return a model that a file is loaded into, its optimizer's state made."""
    model = MODELS[name]()
    model.optimizer.build(model.trainable_variables)
    return model


def test_this_version_is_in_the_collection() -> None:
    """Run `tests/files/make.py` where it is not."""
    assert kct.__version__ in VERSIONS


@each_version
@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_what_it_is_and_is_whole(version: str, name: str) -> None:
    """`inspect`, `verify`, and the progress in it."""
    path = FOLDER / version / name
    report = kct.inspect(file_in(path), registry=collection.registry)
    assert report.versions["keras_ckpt_tools"] == version
    assert kct.verify(path)
    assert kct.verify(path).problems == ()
    assert collection.progress_of(path) == entry(version, name)["progress"]


@each_version
@pytest.mark.parametrize("name", ["reader.keras", "numeric.h5"])
def test_a_whole_model_opens(version: str, name: str) -> None:
    """By us and by stock Keras, with the same values, vocabulary and optimizer."""
    path = FOLDER / version / name
    expected = entry(version, name)["holds"]["model"]
    assert held(kct.safe_load_model(path, registry=collection.registry)) == expected
    stock = keras.models.load_model(path, custom_objects={"kept>Scale": collection.Scale})
    if name.endswith(".h5"):  # Whose optimizer stock Keras leaves without state.
        expected = expected | {"optimizer": held(stock)["optimizer"]}
    assert held(stock) == expected


@each_version
@pytest.mark.parametrize("name", MODELS)
def test_weights_open(version: str, name: str) -> None:
    """By us and by stock Keras, into a model that is there."""
    path = FOLDER / version / name
    expected = entry(version, name)["holds"]["model"]
    ours, stock = fresh(name), fresh(name)
    assert held(ours) != expected
    assert kct.load_weights(ours, path)
    assert held(ours) == expected
    stock.load_weights(file_in(path))
    assert held(stock)["weights"] == expected["weights"]


@each_version
def test_a_run_is_restored(version: str, tmp_path: Path) -> None:
    """All that the manager tracked, and where the run was."""
    shutil.copytree(FOLDER / version / "run", tmp_path / "run")
    expected = entry(version, "run")
    objects = {n: item for n, item in collection.tracked().items() if n in expected["holds"]}
    manager = kct.CheckpointManager(tmp_path / "run", **objects, resume="must")
    assert manager.restore_or_initialize()
    assert {name: held(item) for name, item in objects.items()} == expected["holds"]
    assert manager.progress.step == expected["progress"]["step"]


@each_version
def test_fit_goes_on_from_a_backup(version: str, tmp_path: Path) -> None:
    """Two epochs were done, so one of three is left."""
    shutil.copytree(FOLDER / version / "backup", tmp_path / "backup")
    keras.utils.set_random_seed(collection.SEED)
    history = collection.numeric().fit(
        collection.NUMBERS,
        collection.TARGETS,
        batch_size=1,
        epochs=3,
        verbose=0,
        callbacks=[kct.BackupAndRestore(tmp_path / "backup", resume="must")],
    )
    assert history.epoch == [0, 1, 2]


@pytest.mark.slow
def test_what_a_version_wrote_is_not_written_again() -> None:
    """The script that makes the collection refuses."""
    script = [sys.executable, str(FOLDER / "make.py")]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "files of a release stay as they were written" in done.stderr

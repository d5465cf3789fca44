"""What a load passes over, or does without, is said in one line."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import pytest

import keras_ckpt_tools as kct


def model() -> Any:
    """Return a model of one layer with weights, and one with a vocabulary."""
    keras.utils.clear_session(free_memory=False)
    lookup = keras.layers.StringLookup()
    lookup.adapt(["a", "b"])
    layers = [keras.Input((1,), dtype="string"), lookup, keras.layers.Embedding(4, 2)]
    return keras.Sequential(layers)


def repacked(folder: Path, without: str = "", **more: str) -> Path:
    """Save a model; return its archive without a member, and with others."""
    path, other = folder / "a.keras", folder / "b.keras"
    model().save(path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            if name != without:
                new.writestr(name, old.read(name))
        for name, text in more.items():
            new.writestr(name, text)
    return other


def unzipped(path: Path) -> Path:
    """Return an archive as a directory."""
    with zipfile.ZipFile(path) as file:
        file.extractall(folder := path.with_suffix(""))
    return folder


def lines_of(call: Any) -> list[str]:
    """Return the warnings of this package in a call."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        call()
    assert {one.filename for one in told} <= {__file__}
    return [str(one.message) for one in told]


def test_a_file_as_keras_saved_it_passes_nothing_over(tmp_path: Path) -> None:
    """Its vocabularies are asked for."""
    path = repacked(tmp_path)
    for place in (path, unzipped(path)):
        assert lines_of(lambda place=place: kct.safe_load_model(place)) == []
        assert lines_of(lambda place=place: kct.load_weights(model(), place)) == []
        assert not kct.inspect(place).warnings


def test_surplus_members_are_named(tmp_path: Path) -> None:
    """In an archive and in a directory, by each load and by `inspect`; many are counted."""
    path = repacked(tmp_path, **{"model.py": "import os", "notes/a.txt": "-"})
    for place, names in (
        (path, "'model.py', 'notes/a.txt'"),
        (unzipped(path), "'model.py', 'notes'"),
    ):
        line = f"{str(place)!r}: Skipped, not part of the model: {names}."
        assert lines_of(lambda place=place: kct.safe_load_model(place)) == [line]
        assert lines_of(lambda place=place: kct.load_weights(model(), place)) == [line]
        (problem,) = kct.inspect(place).warnings
        assert names in problem.what
        assert kct.inspect(place)
    (line,) = lines_of(
        lambda: kct.safe_load_model(repacked(tmp_path, **{f"{n}.txt": "" for n in range(8)}))
    )
    assert line.endswith("'4.txt' and 3 more.")


def test_assets_that_no_layer_asks_for_are_named(tmp_path: Path) -> None:
    """A vocabulary of a layer that the model does not have, say."""
    path = repacked(tmp_path, **{"assets/layers/other/vocabulary.txt": "x"})
    (line,) = lines_of(lambda: kct.safe_load_model(path))
    assert line.endswith("not part of the model: 'assets/layers/other/vocabulary.txt'.")


def test_a_file_without_metadata_says_so(tmp_path: Path) -> None:
    """Which Keras wrote it decides how it is read."""
    path = repacked(tmp_path, without="metadata.json")
    (line,) = lines_of(lambda: kct.safe_load_model(path))
    assert line == (
        f"{str(path)!r}: It has no metadata.json, so the version of Keras that wrote it is unknown."
    )
    assert [p.severity for p in kct.inspect(path).problems] == ["warning"]


@pytest.mark.parametrize("compile", [True, False, "auto"])
def test_both_are_said_in_one_line(compile: Any, tmp_path: Path) -> None:
    """However it is loaded."""
    path = repacked(tmp_path, "metadata.json", **{"a.txt": ""})
    (line,) = lines_of(lambda: kct.safe_load_model(path, compile=compile))
    assert "'a.txt'. It has no metadata.json" in line

"""`rename=`, `include=` and `exclude=`: all that is wrong with them comes at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.matching.selection import Selection
from keras_ckpt_tools.metadata import TensorInfo


class Held:
    """Tensors of one number each."""

    path = "a.weights.h5"

    def __init__(self, *paths: str):
        self.tensors = {path: TensorInfo(path, (), "float32") for path in paths}
        self.names = {"layers/a": "first"}

    def read_all(self, paths: Any) -> dict[str, Any]:
        """Return the place of each in the list of all."""
        return {path: np.array(list(self.tensors).index(path)) for path in paths}


A, B, C = "layers/a/vars/0", "layers/b/vars/0", "other/c"


@pytest.mark.parametrize(
    ("rename", "expected"),
    [
        ({"layers/a/*": "layers/x/*"}, {"layers/x/vars/0": A, B: B, C: C}),
        ({"*/a/*/0": "*/x/*/1"}, {"layers/x/vars/1": A, B: B, C: C}),
        ({"layers/a": "x"}, {"x/vars/0": A, B: B, C: C}),
        ({A: B, B: A}, {B: A, A: B, C: C}),
        ({A: "x", "*": "y/*"}, {"x": A, f"y/{B}": B, f"y/{C}": C}),
        (lambda path: None if path == C else path.upper(), {A.upper(): A, B.upper(): B}),
    ],
)
def test_tensors_are_renamed(rename: Any, expected: dict[str, str]) -> None:
    """By patterns, of which the first that fits counts, or by a function."""
    held = Held(A, B, C)
    view = Selection.of(rename).renamed(held).source
    values = view.read_all(view.tensors)
    assert {path: list(held.tensors)[int(value)] for path, value in values.items()} == expected


def test_names_of_layers_move_with_them() -> None:
    """What a renamed group was called is known under its new path."""
    view = Selection.of({"layers/a/*": "layers/x/*"}).renamed(Held(A, B)).source
    assert view.names == {"layers/x": "first"}
    assert view.places["layers/x/vars/0"] == A


def test_all_that_is_wrong_with_a_renaming_is_said_at_once() -> None:
    """A pattern that fits nothing, and two tensors for one path."""
    with pytest.raises(ArgumentError) as caught:
        Selection.of({"gone/*": "x/*", A: B, "typo": "y"}).renamed(Held(A, B))
    for part in ("'gone/*' is not a path", "'typo' is not a path", f"would both be {B!r}"):
        assert part in str(caught.value)


def test_a_function_that_gives_no_path_is_told() -> None:
    """Text, or `None`."""
    with pytest.raises(ArgumentError, match="became 3"):
        Selection.of(lambda _: 3).renamed(Held(A))


@pytest.mark.parametrize(
    "arguments",
    [
        {"rename": {"a/*": "b"}},
        {"rename": {"a": 3}},
        {"rename": "a"},
        {"include": 3},
        {"include": []},
        {"include": [3]},
        {"exclude": {"a": "b"}},
    ],
)
def test_arguments_that_cannot_choose_are_refused(arguments: dict[str, Any]) -> None:
    """Before anything is opened."""
    with pytest.raises(ArgumentError, match="cannot select"):
        Selection.of(**arguments)


def test_paths_are_chosen_by_patterns() -> None:
    """All of `include` and none of `exclude`; a pattern without `*` takes what is below it."""
    choose = Selection.of(None, ["layers/*", C], "layers/b").chosen
    assert choose([A, B, C, "more"], [A, B, C]) == {A, C}
    assert Selection.of().chosen([A, B], []) == {A, B}


def test_an_include_that_fits_nothing_is_refused() -> None:
    """A typing error would load nothing, and call it a success."""
    with pytest.raises(ArgumentError, match=r"layer/\*"):
        Selection.of(include=["layers/*", "layer/*"]).chosen([A], [A])

"""What a state may hold comes back from JSON and arrays as it was; what it may not is refused."""

from __future__ import annotations

import collections
import datetime
import enum
import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import state_files
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.training.state.trees import give_arrays, take_arrays

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
)
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.text())
MARKS = st.sampled_from(["__array__", "__bytes__", "__set__", "__scalar__", "__tuple__", "__odd__"])
TREES = st.recursive(
    LEAVES | st.sets(LEAVES) | st.frozensets(LEAVES),
    lambda children: (
        st.lists(children)
        | st.lists(children).map(tuple)
        | st.dictionaries(KEYS | MARKS, children)
        | st.dictionaries(MARKS, children, max_size=1)
    ),
    max_leaves=12,
)


def types(tree: Any) -> Any:
    """Return a tree's types in its shape, as JSON: `1` and `True` and `1.0` are equal in Python."""
    if isinstance(tree, dict):
        return [[types(key), types(child)] for key, child in tree.items()]
    if isinstance(tree, (list, tuple)):
        return [type(tree).__name__, [types(child) for child in tree]]
    return type(tree).__name__


@given(TREES)
def test_a_tree_comes_back_with_its_values_types_and_order(tree: Any) -> None:
    """Whatever is in it, also where its keys look like our marks."""
    found = state_files.again(tree)
    assert found == tree
    assert types(found) == types(tree)


@pytest.mark.parametrize(
    "number",
    [
        np.float16(0.1),
        np.float32(0.1),
        np.float64(0.1),
        np.float32("nan"),
        np.float64("-inf"),
        np.int8(-3),
        np.uint64(2**64 - 1),
        np.bool_(True),
        np.complex64(1 + 2j),
    ],
    ids=lambda number: f"{type(number).__name__} {number}",
)
def test_a_number_of_numpys_stays_of_its_type(number: Any) -> None:
    """A `float32` that came back as `float` would be rounded otherwise in the next step."""
    found = state_files.again({"it": [number]})["it"][0]
    assert type(found) is type(number)
    assert found.tobytes() == number.tobytes()


def test_a_number_of_ml_dtypes_stays_of_its_type(save_and_restore: Any) -> None:
    """Through a real checkpoint, because a `.npz` file does not know `bfloat16`."""

    class Holder:
        content: Any = ml_dtypes.bfloat16(0.1)

        def get_state(self) -> Any:
            return {"it": self.content, "empty": b"", "bytes": b"\0\1"}

        def set_state(self, state: Any) -> None:
            self.content = state

    restored = Holder()
    save_and_restore(Holder(), restored)
    assert type(restored.content["it"]) is ml_dtypes.bfloat16
    assert restored.content == {"it": ml_dtypes.bfloat16(0.1), "empty": b"", "bytes": b"\0\1"}


def test_sets_are_written_in_one_order() -> None:
    """Python orders strings anew in each process; files of one state are the same."""
    tree = take_arrays({"seen": {"b", "c", "a"}}, {}, "it")
    assert tree == {"seen": {"__set__": ["a", "b", "c"]}}


def test_bytes_are_an_array_of_the_file() -> None:
    """JSON has none, and as text they would be longer."""
    arrays: dict[str, Any] = {}
    assert take_arrays(b"abc", arrays, "it") == {"__bytes__": "state/0"}
    assert arrays["state/0"].tolist() == list(b"abc")


class Phase(enum.IntEnum):
    """Numbers with names."""

    FIRST = 1


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (collections.OrderedDict(a=1), {"a": 1}),
        (Phase.FIRST, 1),
        (np.str_("text"), "text"),
    ],
    ids=["OrderedDict", "IntEnum", "np.str_"],
)
def test_what_derives_from_a_plain_type_comes_back_as_that(item: Any, expected: Any) -> None:
    """The class of it is code, which a file does not hold."""
    found = state_files.again(item)
    assert found == expected
    assert type(found) is type(expected)


def test_files_of_earlier_versions_are_read() -> None:
    """Marks have been added, and none has changed."""
    tree = {
        "a": {"__tuple__": [1, {"__float__": "nan"}]},
        "b": {"__items__": [[3, {"__int__": str(2**70)}]]},
        "c": {"__array__": "state/0"},
    }
    found = give_arrays(json.loads(json.dumps(tree)), {"state/0": np.arange(2)})
    assert math.isnan(found["a"][1])
    assert found["b"] == {3: 2**70}
    assert found["c"].tolist() == [0, 1]


@pytest.mark.parametrize(
    "item",
    [
        print,
        object(),
        datetime.date(2020, 1, 1),
        np.timedelta64(5, "ns"),
        np.datetime64("2020"),
        np.array(["text"]),
        np.array([object()]),
        tf.constant("text"),
        {"deep": [(object(),)]},
        {object()},
    ],
    ids=["function", "object", "date", "timedelta64", "datetime64", "array of text"]
    + ["array of objects", "tensor of text", "deep", "set"],
)
def test_what_is_neither_json_nor_numbers_is_refused(item: Any) -> None:
    """With the name of what it is the state of, and no pickle."""
    with pytest.raises(ArgumentError, match=r"'scaler'.*not JSON"):
        take_arrays(item, {}, "scaler")


def test_a_counter_comes_back_as_one() -> None:
    """As the milestones of a scheduler of PyTorch: what is not in it counts zero."""
    counted = collections.Counter([2, 2, 5])
    arrays: dict[str, Any] = {}
    taken = json.loads(json.dumps(take_arrays({"milestones": counted}, arrays, "it")))
    back = give_arrays(taken, arrays)["milestones"]
    assert isinstance(back, collections.Counter)
    assert back == counted
    assert back[3] == 0


@pytest.mark.parametrize("kind", ["StepLR", "MultiStepLR", "ReduceLROnPlateau", "OneCycleLR"])
def test_a_scheduler_of_pytorch_can_be_tracked(kind: str, tmp_path: Path) -> None:
    """With its optimizer, whose state is tensors: the rates that follow are the same."""
    torch = pytest.importorskip("torch")

    def make() -> Any:
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.Adam([parameter], lr=0.5)
        schedulers = torch.optim.lr_scheduler
        scheduler = {
            "StepLR": lambda: schedulers.StepLR(optimizer, 2),
            "MultiStepLR": lambda: schedulers.MultiStepLR(optimizer, [2, 4]),
            "ReduceLROnPlateau": lambda: schedulers.ReduceLROnPlateau(optimizer, patience=0),
            "OneCycleLR": lambda: schedulers.OneCycleLR(optimizer, 0.5, total_steps=20),
        }[kind]()
        return parameter, optimizer, scheduler

    def train(parameter: Any, optimizer: Any, scheduler: Any) -> list[float]:
        parameter.grad = parameter.detach() * 2
        optimizer.step()
        scheduler.step(*([1.0] if kind == "ReduceLROnPlateau" else []))
        return [*parameter.detach().tolist(), optimizer.param_groups[0]["lr"]]

    whole, cut, again = make(), make(), make()
    for _ in range(3):
        train(*whole)
        train(*cut)
    kct.CheckpointManager(tmp_path, optimizer=cut[1], scheduler=cut[2]).save()
    with torch.no_grad():
        again[0].copy_(cut[0])
    manager = kct.CheckpointManager(tmp_path, optimizer=again[1], scheduler=again[2])
    manager.restore_or_initialize()
    assert [train(*again) for _ in range(4)] == [train(*whole) for _ in range(4)]

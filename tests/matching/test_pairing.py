"""Which tensor belongs to which: by the names of layers first, and then by place."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from keras_ckpt_tools.matching.pairing import Pairing, pair
from keras_ckpt_tools.metadata import TensorInfo

Side = Mapping[str, tuple[str, tuple[int, ...]]]


def paired(ours: Side, theirs: Side, settled: frozenset[str] = frozenset()) -> Pairing:
    """Pair two sides, each `{group: (name, shape of its one tensor)}`."""
    (mine, my_names), (its, their_names) = _side(ours), _side(theirs)
    return pair(mine, its, my_names, their_names, settled)


def _side(groups: Side) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    tensors = {f"{g}/vars/0": TensorInfo("", shape, "float32") for g, (_, shape) in groups.items()}
    return tensors, {"": "model", **{group: name for group, (name, _) in groups.items()}}


def layers(*names: str, kind: str = "dense", shape: tuple[int, ...] = (2,)) -> dict:
    """Return layers of one class in a list, by Keras' paths."""
    return {
        f"layers/{kind}_{number}" if number else f"layers/{kind}": (name, shape)
        for number, name in enumerate(names)
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        pytest.param("ab", "ab", "01", id="the same"),
        pytest.param("ab", "ba", "10", id="changed places"),
        pytest.param("xab", "ab", "-01", id="one more"),
        pytest.param("b", "ab", "1", id="one less"),
        pytest.param("ax", "ab", "0-", id="called otherwise"),
        pytest.param(["dense_4", "dense_5"], ["dense", "dense_1"], "01", id="made up"),
        pytest.param(["a", "dense_5"], ["dense", "a"], "10", id="the one that is left"),
        pytest.param(["dense_1", "dense_2"], ["a", "b"], "01", id="no names here"),
        pytest.param("aa", "aa", "01", id="two of one name"),
        pytest.param(
            ["block_1", "block_2"], ["block_2", "block_1"], "10", id="numbers of a user's"
        ),
    ],
)
def test_layers_in_a_list_are_paired(ours: list[str], theirs: list[str], expected: str) -> None:
    """By their names, where they have some; `expected` has the place of each in the checkpoint."""
    found = paired(layers(*ours), layers(*theirs))
    mine, its = list(layers(*ours)), list(layers(*theirs))
    assert found.paths == {
        f"{group}/vars/0": f"{its[int(place)]}/vars/0"
        for group, place in zip(mine, expected, strict=True)
        if place != "-"
    }


def test_two_names_of_one_shape_are_told() -> None:
    """What would have been poured into what."""
    found = paired(layers("a", "x"), layers("a", "b"))
    assert found.misnamed == [("layers/dense_1", "b", "layers/dense_1", "x")]


def test_what_has_another_shape_would_not_have_been_poured() -> None:
    """Another name and another shape is another layer, and nothing to warn of."""
    found = paired(layers("x", shape=(3,)), layers("b"))
    assert found == Pairing()


def test_a_name_counts_more_than_a_shape() -> None:
    """A layer that is wider now is the same layer; the comparison says so."""
    assert paired(layers("a", shape=(3,)), layers("a")).paths


def test_the_same_name_of_another_class_counts_where_the_shapes_are_the_same() -> None:
    """A class that was renamed."""
    assert paired(layers("a", kind="block"), layers("a")).paths == {
        "layers/block/vars/0": "layers/dense/vars/0"
    }
    assert not paired(layers("a", kind="block", shape=(3,)), layers("a")).paths


def test_settled_paths_pair_whatever_the_names_are() -> None:
    """The user's word comes before names."""
    found = paired(layers("x"), layers("b"), frozenset({"layers/dense/vars/0"}))
    assert found.paths == {"layers/dense/vars/0": "layers/dense/vars/0"}


def test_attributes_pair_by_path() -> None:
    """`self.encoder` is a name; what the layer is called beside does not matter."""
    one = {"encoder": ("a", (2,)), "decoder": ("b", (2,))}
    other = {"encoder": ("b", (2,)), "decoder": ("a", (2,))}
    assert all(ours == theirs for ours, theirs in paired(one, other).paths.items())


def test_without_names_place_decides() -> None:
    """Files of older versions of Keras."""
    tensors, names = _side(layers("a", "b"))
    assert pair(tensors, tensors, names, {}) == Pairing({path: path for path in tensors})


def test_a_tensor_where_a_group_is_pairs_with_nothing() -> None:
    """A file can call things as it likes."""
    info = TensorInfo("", (2,), "float32")
    theirs = {"layers": info, "layers/dense/vars/0": info}
    names = {"": "m", "layers/dense": "a"}
    assert pair({"layers/dense/vars/0": info}, theirs, names, names) == Pairing()


def test_the_same_counted_names_in_another_order_are_told() -> None:
    """Whether layers have changed places or are only made in another order, no file says."""
    found = paired(layers("dense", "dense_1"), layers("dense_1", "dense"))
    assert not found.paths
    assert [(theirs, ours) for _, theirs, _, ours in found.misnamed] == [
        ("dense_1", "dense"),
        ("dense", "dense_1"),
    ]
    counted_on = paired(layers("dense_4", "dense_5"), layers("dense", "dense_1"))
    assert len(counted_on.paths) == 2
    overlapping = paired(layers("dense_1", "dense_2"), layers("dense", "dense_1"))
    assert len(overlapping.paths) == 2

"""How a name is matched, and which ones come near."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.errors import RegistryError
from keras_ckpt_tools.registry.names import match, nearest


@pytest.mark.parametrize(
    ("asked", "table", "expected"),
    [
        ("p>A", {"p>A": 1, "A": 2}, "p>A"),
        ("p>A", {"A": 2}, "A"),
        ("A", {"A": 1, "p>A": 2}, "A"),
        ("A", {"p>A": 2}, "p>A"),
        ("A", {"p>B": 2}, None),
        ("p>A", {"q>A": 2}, None),
        ("A", {}, None),
    ],
)
def test_each_spelling_matches_what_it_may_stand_for(asked, table, expected):
    """Exact names win; bare ones stand for any package; qualified ones keep to theirs."""
    assert match(asked, table) == expected


def test_a_bare_key_of_the_registry_does_not_answer_for_other_packages():
    """Only tables that a user wrote for one load answer so broadly."""
    assert match("p>A", {"A": 1}, bare_keys=False) is None


def test_a_bare_name_of_several_objects_is_refused_with_all_of_them():
    """The choice is the user's, and the message has what there is to choose from."""
    with pytest.raises(RegistryError, match="p>A, q>A") as caught:
        match("A", {"p>A": 1, "q>A": 2})
    assert caught.value.name == "A"


def test_a_bare_name_of_one_object_under_two_names_is_not_ambiguous():
    """An alias in another package is no second object."""
    one = object()
    assert match("A", {"p>A": one, "q>A": one}) == "p>A"


def test_the_same_name_in_another_package_is_nearest():
    """Packages are renamed more often than classes."""
    known = ["old>Block", "new>Blocks", "new>Other"]
    assert nearest("new>Block", known) == ("old>Block", "new>Blocks")


def test_no_more_than_three_names_are_near():
    """A message stays readable."""
    assert len(nearest("p>Block", [f"p>Block{n}" for n in range(9)])) == 3

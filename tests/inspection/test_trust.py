"""Trust is a list of names, and nothing else."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.inspection.trust import Trust


def test_a_name_allows_one_object_and_a_wildcard_one_package():
    """The wildcard does not reach a package whose name only begins alike."""
    trust = Trust.of(["my_package>Scale", "keras_hub>*", "lambda:scale"])
    assert trust.allows("my_package>Scale")
    assert trust.allows("keras_hub>Bert")
    assert trust.allows("lambda:scale")
    assert not trust.allows("my_package>Other")
    assert not trust.allows("keras_hub_extra>Bert")
    assert not trust.allows("lambda:other")
    assert not Trust.of(()).allows("anything")


def test_trusting_everything_is_refused():
    """There is no `trusted=True`; the error says what to pass."""
    with pytest.raises(ArgumentError) as caught:
        Trust.of(True)
    assert str(caught.value).startswith(
        "Trust is given by name; there is no `trusted=True`. Received: trusted=True. List what "
        'the file may use, `trusted=["my_package>Scale", "keras_hub>*", "lambda:scale"]`'
    )


@pytest.mark.parametrize("trusted", [False, None, 3, "my_package>Scale"])
def test_what_is_no_list_is_refused(trusted):
    """A single string is a list of letters to Python, so it is refused as well."""
    with pytest.raises(ArgumentError, match="trusted"):
        Trust.of(trusted)


@pytest.mark.parametrize(
    "name", ["*", ">*", "lambda:*", "my*", "my>*Scale", "*>*", "", 3, "lambda:"]
)
def test_wildcards_are_for_whole_packages_only(name):
    """Each name that cannot work is in the message."""
    with pytest.raises(ArgumentError) as caught:
        Trust.of(["fine>Name", name])
    assert f"of which {name!r} cannot be used" in str(caught.value)

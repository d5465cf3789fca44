"""JSON of others is parsed within limits, and says each thing once."""

from __future__ import annotations

import dataclasses

import pytest

from keras_ckpt_tools.errors import DamagedArtefactError, OverBudgetError
from keras_ckpt_tools.formats.common.bounded_json import depth_of, parse_object
from keras_ckpt_tools.formats.common.limits import Limits

LIMITS = dataclasses.replace(Limits.of(1 << 20), json_bytes=1000, json_nodes=50, json_depth=8)


def parse(text: str | bytes) -> dict[str, object]:
    """Parse a text as `config.json` of a file."""
    return parse_object(text, "config.json", "a.keras", LIMITS)


@pytest.mark.parametrize("text", ['{"a": [1, {"b": null}]}', b'{"a": [1, {"b": null}]}'])
def test_an_ordinary_object_comes_back(text):
    """From text and from bytes."""
    assert parse(text) == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "not a JSON object"),
        ("{", "not JSON"),
        (b"\xff{}", "not JSON"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "has the name 'c' twice"),
        ('{"a":' * 9 + "1" + "}" * 9, "nested deeper than any model's"),
        ('{"a":' + "9" * 5000 + "}", "has 5,006 bytes"),
    ],
)
def test_what_is_no_config_says_why(text, said):
    """The sentence names the document and what is wrong with it."""
    with pytest.raises((DamagedArtefactError, OverBudgetError), match=said) as caught:
        parse(text)
    assert "config.json" in caught.value.what
    assert caught.value.path == "a.keras"


@pytest.mark.parametrize("text", ['{"a":[' + ",".join("1" * 60) + "]}", "[" * 60, "{" * 60])
def test_values_are_counted_before_they_are_made(text):
    """A hundred megabytes of brackets would become ten gigabytes of lists."""
    with pytest.raises(OverBudgetError, match=r"its config\.json has 6") as caught:
        parse(text)
    assert caught.value.limit == "json_nodes"


def test_a_hundred_thousand_levels_do_not_end_the_process():
    """Neither while parsing nor while measuring."""
    limits = dataclasses.replace(LIMITS, json_bytes=1 << 20, json_nodes=1 << 20)
    text = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    with pytest.raises(DamagedArtefactError, match="nested deeper"):
        parse_object(text, "config.json", "a.keras", limits)


def test_empty_containers_count_as_levels():
    """Who walks them has to go into them."""
    assert depth_of({}) == 1
    assert depth_of([[], [[]]]) == 3

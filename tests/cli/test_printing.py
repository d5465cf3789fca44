"""Whatever is printed, the status is the worst of all."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize("as_json", [False, True])
def test_status_is_the_worst(as_json, capfd):
    """In both forms, and each answer is there."""
    from keras_ckpt_tools.cli.printing import GOOD, PROBLEMS, UNREADABLE, Answer, answer

    answers = [Answer(s, f"file {s}", facts={"path": str(s)}) for s in (1, 2, 0)]
    assert answer(answers, as_json=as_json) == UNREADABLE
    out = capfd.readouterr().out
    if as_json:
        found = json.loads(out)
        assert found["status"] == "unreadable"
        assert [f["status"] for f in found["files"]] == ["problems", "unreadable", "good"]
    else:
        assert out.splitlines() == ["problems: file 1", "unreadable: file 2", "good: file 0"]
    assert answer([], as_json=as_json) == GOOD
    assert answer(answers[:1], as_json=as_json) == PROBLEMS


def test_single_answer_has_its_own_word(capfd):
    """A command with one answer says it in one object, in the words of that command."""
    from keras_ckpt_tools.cli.printing import PROBLEMS, Answer, answer_one

    one = Answer(PROBLEMS, "a -> b", facts={"same": False}, word="different")
    assert answer_one(one, as_json=True) == PROBLEMS
    told = {"format": 1, "status": "different", "same": False}
    assert json.loads(capfd.readouterr().out) == told
    assert answer_one(one, as_json=False) == PROBLEMS
    assert capfd.readouterr().out == "different: a -> b\n"

"""What a type checker makes of the decorator, from the user's side."""

from __future__ import annotations

import textwrap

import pytest

SNIPPET = """
    from typing import assert_type
    from keras_ckpt_tools.registry import Registry, register

    @register
    class Bare:
        def __init__(self, units: int) -> None:
            self.units = units

    @register("p", aliases=["Old"], version=2)
    def act(x: float, *, steep: bool = False) -> float:
        return x

    assert_type(Bare(3).units, int)
    assert_type(act(1.0, steep=True), float)
    assert_type(register("p")(Bare), type[Bare])
    assert_type(Registry().register(act)(2.0), float)
"""


@pytest.mark.parametrize(("extra", "wrong"), [("", 0), ("act('x')", 1), ("Bare('x')", 1)])
def test_the_decorated_type_is_kept(tmp_path, monkeypatch, extra, wrong):
    """Arguments and results of what was decorated are still checked."""
    api = pytest.importorskip("mypy.api")
    file = tmp_path / "snippet.py"
    file.write_text(textwrap.dedent(SNIPPET) + extra + "\n")
    flags = [
        "--strict",
        "--follow-imports=silent",
        "--ignore-missing-imports",
        "--no-site-packages",
    ]
    output, _, status = api.run([*flags, "--cache-dir", str(tmp_path), str(file)])
    assert status == wrong, output
    assert output.count("error:") == wrong, output

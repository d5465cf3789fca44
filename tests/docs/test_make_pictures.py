"""The pictures of the documentation are made of what the commands really print."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from hostile.records import our_archive

SCRIPT = Path(__file__).parents[2] / "docs" / "make_pictures.py"


def test_what_a_terminal_shows_becomes_a_picture(tmp_path):
    """In colours, with the command above it, and without a font from elsewhere."""
    spec = importlib.util.spec_from_file_location("make_pictures", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (tmp_path / "a.keras").write_bytes(our_archive())
    said = script.on_terminal(["verify", "a.keras"], tmp_path)
    assert "\x1b[" in said
    assert "a.keras" in said
    drawn = script.as_svg("keras-ckpt verify a.keras", said)
    assert drawn.startswith("<svg")
    assert "verify" in drawn
    assert "good" in drawn
    assert not re.search(r"""url\(["']?http|@font-face""", drawn)

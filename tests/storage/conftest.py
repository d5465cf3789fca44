"""What the tests of storage share."""

from __future__ import annotations

import pytest


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write behind in pieces of 1,000 bytes, so that a little data makes many."""
    from keras_ckpt_tools.storage import write_behind

    monkeypatch.setattr(write_behind, "_PIECE", 1000)

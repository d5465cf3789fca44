"""Things that are called `model.keras` and are something else are told by their content."""

from __future__ import annotations

import pytest
from hostile.trial import of_family


@pytest.mark.parametrize("name", of_family("disguise"))
def test_thing_in_disguise_is_named(name, refused):
    """Not opened; and the report says what it is."""
    refused(name)

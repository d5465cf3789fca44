"""An archive whose structure lies is refused before anything is unpacked."""

from __future__ import annotations

import pytest
from hostile.trial import of_family


@pytest.mark.parametrize("name", of_family("zip"))
def test_lying_archive_is_refused(name, refused):
    """By `inspect`, by a load of the model and by a load of its weights alike."""
    refused(name)

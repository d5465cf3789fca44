"""JSON is read with caps, and only what is JSON is read."""

from __future__ import annotations

import pytest
from hostile.trial import of_family


@pytest.mark.parametrize("name", of_family("json"))
def test_document_is_refused(name, refused):
    """Too deep, too large, ambiguous, or not JSON."""
    refused(name)

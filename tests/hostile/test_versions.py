"""Versions that are not this one's are named."""

from __future__ import annotations

import pytest
from hostile.trial import of_family


@pytest.mark.parametrize("name", of_family("version"))
def test_version_is_named(name, refused):
    """Newer Keras, older Keras, packages that are gone."""
    refused(name)

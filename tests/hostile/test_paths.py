"""What is no regular file and no plain directory is not opened."""

from __future__ import annotations

import pytest
from hostile.trial import of_family


@pytest.mark.parametrize("name", of_family("path"))
def test_what_is_no_file_is_not_opened(name, refused):
    """No wait, no read, no connection."""
    refused(name)

"""Small files that ask for a machine's memory, or for hours, get neither."""

from __future__ import annotations

import pytest
from hostile.trial import of_family


@pytest.mark.parametrize("name", of_family("size"))
def test_oversized_model_is_refused(name, refused):
    """Before anything of that size is built."""
    refused(name)

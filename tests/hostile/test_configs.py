"""A config reaches what is allowed by name, and nothing else."""

from __future__ import annotations

import pytest
from hostile.trial import of_family


@pytest.mark.parametrize("name", of_family("config"))
def test_config_that_reaches_out_is_refused(name, refused):
    """The whole tree is walked, whatever stands in a place."""
    refused(name)

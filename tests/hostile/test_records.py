"""A record of ours is no more trusted than what anyone's file says."""

from __future__ import annotations

import pytest
from hostile.trial import of_family


@pytest.mark.parametrize("name", of_family("record"))
def test_lying_record_is_refused(name, refused):
    """Its digests are right; a digest has no key."""
    refused(name)

"""What libhdf5 has to see, another process sees first."""

from __future__ import annotations

import pytest
from hostile.trial import of_family


@pytest.mark.parametrize("name", of_family("hdf5"))
def test_foreign_hdf5_is_refused(name, refused):
    """Damage, arms that reach out of the file, shapes beyond all memory."""
    refused(name)

"""Assets come from the artefact, and arguments are no paths."""

from __future__ import annotations

import pytest
from hostile.trial import of_family


@pytest.mark.parametrize("name", of_family("assets"))
def test_artefact_that_reads_elsewhere_is_refused(name, refused):
    """No file beside it is read into a model."""
    refused(name)

"""What Keras' own test cases change for the whole process is put back."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import pytest


@pytest.fixture(autouse=True)
def traceback_filtering_put_back() -> Iterator[None]:
    """Keras' test cases turn the filter of tracebacks off for the whole process."""
    was_on = keras.config.is_traceback_filtering_enabled()
    yield
    if was_on:
        keras.config.enable_traceback_filtering()

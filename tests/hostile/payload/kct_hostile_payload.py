"""What a hostile file must not reach: it notes that it was imported, and each call of it.

Nothing here does anything but append to `EVENTS`; the judge looks there after each artefact, and
whether this module was imported at all.
"""

from __future__ import annotations

from typing import Any

EVENTS: list[str] = []


def call(*arguments: Any, **named: Any) -> Any:
    """Note the call."""
    EVENTS.append("call")
    return arguments[0] if arguments else None


class Scale:
    """Notes that it was built."""

    def __init__(self, *arguments: Any, **named: Any):
        EVENTS.append("built")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return call(*arguments)

    @classmethod
    def from_config(cls, config: Any) -> Any:
        """Note it."""
        EVENTS.append("from_config")
        return cls()

    def get_config(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

"""Files of each format, written by this package."""

from format_fixtures import *  # noqa: F403 (its fixtures)

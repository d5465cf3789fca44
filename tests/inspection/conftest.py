"""Models with custom objects, and files of them."""

from loading_fixtures import *  # noqa: F403 (its fixtures)

"""Directories of runs."""

from loading_fixtures import *  # noqa: F403 (its fixtures)
from training_fixtures import *  # noqa: F403 (its fixtures)

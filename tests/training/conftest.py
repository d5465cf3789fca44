"""Small models, and callbacks that are called by hand."""

from training_fixtures import *  # noqa: F403 (its fixtures)

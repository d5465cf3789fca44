"""The version, in its one place: the build, `kct.__version__` and the records in files read it."""

__version__ = "0.1.0"

"""Define the version; the build, `kct.__version__` and the records in files read it from here."""

__version__ = "0.1.0"

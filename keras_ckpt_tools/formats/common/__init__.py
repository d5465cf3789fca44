"""Shared by the readers of all formats: limits, safe opening, bounded JSON, dtypes."""

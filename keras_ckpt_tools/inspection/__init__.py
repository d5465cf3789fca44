"""Inspect and verify files: what a file is, what it needs, whether it is intact."""

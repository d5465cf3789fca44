"""Reads and writes the file formats, one folder or module each. Imports no framework."""

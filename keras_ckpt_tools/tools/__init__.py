"""Compares two files tensor by tensor, and exports one to another format."""

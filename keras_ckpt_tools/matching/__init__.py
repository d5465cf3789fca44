"""Compares names and shapes: what fits, what does not, and what was probably meant."""

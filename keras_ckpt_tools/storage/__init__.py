"""Writes files durably and atomically. Does not import Keras."""

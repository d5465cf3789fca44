"""Compares names and shapes of tensors in files and models."""

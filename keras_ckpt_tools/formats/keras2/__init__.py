"""Translates configs of Keras 2 models to Keras 3."""

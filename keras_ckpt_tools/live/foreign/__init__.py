"""Restores checkpoints in the layouts of Keras 2, TensorFlow and Orbax into a live model."""

"""Live Keras objects as named tensors: read for a save, compared and assigned by a restore."""

"""TensorFlow checkpoints: index, data, object graph. Does not import TensorFlow."""

"""TensorFlow checkpoints: the index, the data, the object graph."""

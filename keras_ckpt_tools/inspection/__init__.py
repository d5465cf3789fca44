"""What a file is, what it needs, and whether it is undamaged; without importing Keras."""

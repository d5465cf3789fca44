"""HDF5: weights files in Keras' layout, and third-party files, scanned in a child process."""

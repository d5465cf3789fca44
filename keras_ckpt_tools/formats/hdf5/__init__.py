"""HDF5: weights files as Keras lays them out, and third-party files, read by a child process."""

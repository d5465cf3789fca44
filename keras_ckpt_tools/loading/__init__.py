"""Load a model or weights from a file: inspect, check trust, build, assign, compare.

`inspection` reads the config of a file and decides for each name whether it may be used. `model`
builds the model, and `isolation` limits what Keras can look up meanwhile. `restore` loads weights.
"""
